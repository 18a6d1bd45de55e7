"""The wire codec: what is encoded is decoded, and other bytes are refused without harm."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logd_wire.schema import INT64_MAX, PAYLOAD_BYTES_MAX, PROPS_DEPTH_MAX, Malformed
from logd_wire.wire import (
    DATAGRAM_BYTES_MAX,
    DATAGRAM_HEAD,
    KIND_EVENTS,
    KIND_FAREWELL,
    RECORD_BYTES_MAX,
    RECORD_HEAD,
    WIRE_VERSION,
    Event,
    OtherVersion,
    WireError,
    datagram_head,
    decode_farewell,
    decode_head,
    decode_record,
    encode_farewell,
    encode_record,
    pack_payload,
    producer_seed,
    unpack_payload,
    unpack_props,
)

PACKER = msgpack.Packer()

producer_ids = st.integers(0, 2**64 - 1)
sequences = st.integers(1, INT64_MAX)
event_types = st.from_regex(r"[a-z][a-z0-9_]{0,50}([.-][a-z0-9_]{1,6})?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
users = st.none() | texts.filter(lambda text: 0 < len(text.encode()) <= 255)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
props = st.dictionaries(texts, values, max_size=6)
events = st.tuples(event_types, st.integers(0, INT64_MAX), users, props)

Fields = tuple[str, int, str | None, dict[str, Any]]
EVENT: Fields = ("quiz_submitted", 5, "7", {"quiz": 3, "score": 0.8})


def packed(event: Fields) -> bytes:
    return pack_payload(PACKER, *event)


def decode_events(datagram: bytes) -> list[tuple[int, int, Event]]:
    """The producer, the sequence and the event of every record."""
    _, producer_id = decode_head(datagram)
    found = []
    offset = DATAGRAM_HEAD.size
    while offset < len(datagram):
        sequence, payload, offset = decode_record(datagram, offset, producer_seed(producer_id))
        found.append((producer_id, sequence, unpack_payload(payload)))
    return found


def decode(datagram: bytes) -> object:
    """Decodes any datagram as the daemon does."""
    kind, producer_id = decode_head(datagram)
    if kind == KIND_FAREWELL:
        return (producer_id, *decode_farewell(datagram, producer_seed(producer_id)))
    return decode_events(datagram)


# -- round trips ---------------------------------------------------------------------------------


@given(producer_ids, st.lists(st.tuples(sequences, events), min_size=1, max_size=4))
def test_any_events_come_out_of_a_datagram_as_they_went_in(
    producer_id: int, given_events: list[tuple[int, Fields]]
) -> None:
    seed = producer_seed(producer_id)
    datagram = datagram_head(producer_id)
    for sequence, event in given_events:
        datagram += encode_record(seed, sequence, packed(event))
    assert [
        (sequence, (event.type, event.ts_ns, event.user, unpack_props(event.props)))
        for _, sequence, event in decode_events(datagram)
    ] == given_events


@given(producer_ids, st.integers(0, INT64_MAX - 1), st.dictionaries(texts, st.integers(0, 9)))
def test_a_farewell_comes_out_as_it_went_in_or_is_refused(
    producer_id: int, last: int, refused: dict[str, int]
) -> None:
    datagram = encode_farewell(producer_id, last, refused)
    if len(refused) <= 16 and all(len(cause) <= 32 for cause in refused):
        assert decode(datagram) == (producer_id, last, refused)
    else:
        with pytest.raises(WireError, match="damaged farewell"):
            decode(datagram)


# -- damage --------------------------------------------------------------------------------------

TWO_EVENTS = datagram_head(77) + b"".join(
    encode_record(producer_seed(77), sequence, packed(EVENT)) for sequence in (1, 2)
)
FAREWELL = encode_farewell(77, 2, {"outbox_full": 1})


@pytest.mark.parametrize("datagram", [TWO_EVENTS, FAREWELL], ids=["events", "farewell"])
def test_no_byte_changed_anywhere_makes_another_event(datagram: bytes) -> None:
    before = decode(datagram)
    for index in range(len(datagram)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 0xFF):
            damaged = bytearray(datagram)
            damaged[index] ^= change
            with contextlib.suppress(WireError, Malformed):
                assert decode(bytes(damaged)) == before, f"byte {index} ^ {change}"


@given(st.data())
def test_any_cut_of_a_datagram_is_refused_or_ends_between_two_records(data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(TWO_EVENTS) - 1))
    middle = (DATAGRAM_HEAD.size + len(TWO_EVENTS)) // 2
    if end in (DATAGRAM_HEAD.size, middle):
        found = decode_events(TWO_EVENTS[:end])
        assert found == decode_events(TWO_EVENTS)[: len(found)]
    else:
        with pytest.raises(WireError, match="truncated"):
            decode(TWO_EVENTS[:end])


def test_a_record_belongs_to_one_producer_only() -> None:
    record = encode_record(producer_seed(1), 1, packed(EVENT))
    with pytest.raises(WireError, match="damaged record"):
        decode_record(record, 0, producer_seed(2))


# -- arbitrary bytes -----------------------------------------------------------------------------


@given(st.binary(max_size=200))
@example(b"\xdd\xff\xff\xff\xff")  # an array that claims 2**32-1 items
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x91" * 200)
@example(b"\xd7\xff" + b"\xff" * 8)  # an impossible timestamp
def test_arbitrary_bytes_are_no_payload_or_a_checked_event(data: bytes) -> None:
    try:
        event = unpack_payload(data)
    except Malformed:
        return
    assert 0 <= event.ts_ns <= INT64_MAX
    assert isinstance(unpack_props(event.props), dict)


@given(st.binary(max_size=200), st.sampled_from([KIND_EVENTS, KIND_FAREWELL]), st.booleans())
def test_arbitrary_bytes_in_a_datagram_are_refused_and_nothing_else(
    data: bytes, kind: int, as_record: bool
) -> None:
    # As a well-formed record they pass the CRC, and the payload's own checks are what is left.
    body = encode_record(producer_seed(1), 1, data) if as_record else data
    for datagram in (data, datagram_head(1, kind) + body):
        with contextlib.suppress(WireError, Malformed):
            decode(datagram)


def nested(depth: int, inner: bytes) -> bytes:
    return b"\x81\xa1a" * depth + inner


@pytest.mark.parametrize("depth", [PROPS_DEPTH_MAX + 1, 400, 600, 10_000])
def test_props_nested_too_deep_are_malformed_however_deep(depth: int) -> None:
    packed_props = nested(depth, b"\xc0")[: PAYLOAD_BYTES_MAX - 100]
    payload = msgpack.packb(["a", 1, None, packed_props])
    with pytest.raises(Malformed, match=r"^props"):
        unpack_payload(payload)


def test_a_payload_nested_too_deep_outside_of_props_is_malformed() -> None:
    with pytest.raises(Malformed, match=r"^payload"):
        unpack_payload(b"\x91" * 10_000)


# -- limits --------------------------------------------------------------------------------------


def event_of(payload_bytes: int) -> Fields:
    """An event whose payload has exactly that many bytes."""
    overhead = len(packed(("a", 1, None, {"pad": "x" * 1000}))) - 1000
    return ("a", 1, None, {"pad": "x" * (payload_bytes - overhead)})


def test_the_largest_event_fits_and_one_byte_more_does_not() -> None:
    largest = packed(event_of(PAYLOAD_BYTES_MAX))
    assert len(largest) == PAYLOAD_BYTES_MAX
    record = encode_record(0, 1, largest)
    assert decode_record(record, 0, 0) == (1, largest, RECORD_BYTES_MAX)
    with pytest.raises(Malformed, match=f"over the limit of {PAYLOAD_BYTES_MAX}"):
        packed(event_of(PAYLOAD_BYTES_MAX + 1))


def test_a_record_past_the_limit_is_oversize_even_when_all_of_it_is_there() -> None:
    record = encode_record(0, 1, bytes(PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(WireError, match="oversize record"):
        decode_record(record, 0, 0)


def test_the_largest_record_fits_into_a_datagram() -> None:
    assert DATAGRAM_HEAD.size + RECORD_BYTES_MAX <= DATAGRAM_BYTES_MAX


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_a_number_over_64_bits_is_malformed_for_the_sender(value: int) -> None:
    with pytest.raises(Malformed, match="cannot be packed"):
        packed(("a", 1, None, {"n": value}))


def test_text_that_is_not_unicode_is_malformed_for_the_sender() -> None:
    with pytest.raises(Malformed, match="cannot be packed"):
        packed(("a", 1, None, {"text": "\ud800"}))


def test_a_refused_event_leaves_nothing_in_the_packer() -> None:
    before = packed(EVENT)
    with pytest.raises(Malformed):
        packed(("a", 1, None, {"first": "fine", "second": 2**64}))
    assert packed(EVENT) == before


# -- versions ------------------------------------------------------------------------------------


@given(st.integers(0, 255), st.binary(max_size=40))
def test_another_version_is_reported_as_such_whatever_follows(version: int, rest: bytes) -> None:
    datagram = b"LGD" + bytes([version]) + bytes(12) + rest
    if version == WIRE_VERSION:
        assert decode_head(datagram) == (KIND_EVENTS, 0)
    else:
        with pytest.raises(OtherVersion, match="other version"):
            decode_head(datagram)


@given(events, st.lists(values, max_size=3))
def test_fields_past_the_fourth_change_nothing(event: Fields, further: list[Any]) -> None:
    now = packed(event)
    later = msgpack.packb([*msgpack.unpackb(now), *further])
    assert unpack_payload(later) == unpack_payload(now)


def test_all_numbers_of_a_record_and_a_head_are_little_endian() -> None:
    record = encode_record(producer_seed(1), 0x0102, b"abc")
    assert record[:4] == b"\x03\0\0\0"
    assert record[8:16] == b"\x02\x01\0\0\0\0\0\0"
    assert datagram_head(0x0102)[8:] == b"\x02\x01\0\0\0\0\0\0"
    assert struct.calcsize("<IIQ") == RECORD_HEAD.size == len(record) - 3
