"""An outbox that is damaged, cut short or no outbox: what is found, and what is searched for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd_wire.outbox import layout
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_RING_BYTES,
    WORD_WRITTEN,
    OutboxError,
    outbox_bytes,
    parse_header,
)
from logd_wire.outbox.reader import RecordSearch, find_record, read_records
from logd_wire.wire import (
    OtherVersion,
    WireError,
    decode_record,
    encode_record,
)
from tests.shared.memory_outbox import RING, SEED, Outbox, payload, record_bytes


def test_records_below_the_one_expected_are_damage_and_not_passed_over() -> None:
    """A ring full of them has no end: a reader that skipped them would read for ever."""
    box = Outbox()
    whole = encode_record(SEED, 1, payload(0, 1008))
    assert RING % len(whole) == 0
    box.file[HEADER_BYTES:] = whole * (RING // len(whole))
    page = read_records(box.read_at, RING, SEED, 0, after=1, written=2, bytes_max=10**6)
    assert page.payloads == [] and page.damage == "another record: 2 expected, 1 found"


def test_a_torn_record_ends_the_reading_before_it() -> None:
    box = Outbox()
    for number in range(5):
        box.writer.append(payload(number))
    box.damage(2 * record_bytes(100) + 50)
    page = box.page()
    assert page.payloads == [payload(0), payload(1)]
    assert page.position == 2 * record_bytes(100)
    assert page.damage is not None
    assert "damaged" in page.damage


def test_a_header_that_counts_records_that_are_not_there_is_found_out() -> None:
    box = Outbox()
    box.writer.append(payload(0))
    memoryview(box.file)[:HEADER_BYTES].cast("Q")[WORD_WRITTEN] = 3
    page = box.page()
    assert page.payloads == [payload(0)]
    assert page.damage is not None


def test_a_file_cut_short_is_damage_and_no_crash() -> None:
    box = Outbox()
    for number in range(5):
        box.writer.append(payload(number))
    whole = bytes(box.file)
    for end in range(HEADER_BYTES, HEADER_BYTES + 5 * record_bytes(100) - 8, 4):
        box.file = bytearray(whole[:end])
        page = read_records(box.read_at, RING, SEED, 0, after=0, written=5, bytes_max=10**6)
        assert page.damage is not None
        assert page.payloads == [payload(number) for number in range(len(page.payloads))]


def test_the_lowest_readable_record_is_found_after_damage() -> None:
    box = Outbox()
    for number in range(5):
        box.writer.append(payload(number))
    box.damage(0)
    assert find_record(box.read_at, RING, SEED, 1, 5) == (2, record_bytes(100))
    assert find_record(box.read_at, RING, SEED, 4, 5) == (4, 3 * record_bytes(100))
    assert find_record(box.read_at, RING, SEED, 6, 6) is None


@pytest.mark.parametrize("slice_bytes", [8, 24, 4096, 64 * 1024])
def test_a_search_in_slices_finds_what_one_in_one_go_finds(slice_bytes: int) -> None:
    box = Outbox()
    for number in range(1100):
        box.writer.append(payload(number, 100 + number % 400))
        box.read()
        box.confirm()
    for damaged in (0, 1000, 20_000):
        box.damage(box.position + damaged)
    written = box.writer.written
    for sequence_min in (1, written - 30, written, written + 1):
        search = RecordSearch(box.read_at, RING, SEED, sequence_min, written)
        steps = 1
        while not search.step(slice_bytes):
            steps += 1
        assert search.found == find_record(box.read_at, RING, SEED, sequence_min, written)
        assert steps >= RING // slice_bytes


def test_a_slice_is_short_whatever_the_ring_is_made_to_look_like() -> None:
    """Each multiple of eight looks like the head of a large record."""
    box = Outbox(1024 * 1024)
    box.file[HEADER_BYTES:] = (32_768).to_bytes(8, "little") * (1024 * 1024 // 8)
    search = RecordSearch(box.read_at, 1024 * 1024, SEED, 1, 2**62)
    checked = 0

    def counting(data: bytes, offset: int, seed: int) -> tuple[int, bytes, int]:
        nonlocal checked
        checked += 32_768
        return decode_record(data, offset, seed)

    with pytest.MonkeyPatch.context() as context:
        context.setattr("logd_wire.outbox.reader.decode_record", counting)
        assert not search.step(64 * 1024)
    # A byte of CRC costs an eighth of what one that is searched costs.
    assert 0 < checked <= 64 * 1024 * 8 + 32_768


def test_a_record_around_the_rings_end_is_found() -> None:
    box = Outbox()
    while box.position + record_bytes(1000) <= RING:
        box.writer.append(payload(0, 1000))
        box.read()
        box.confirm()
    box.writer.append(payload(1, 1000))
    sequence = box.writer.written
    assert find_record(box.read_at, RING, SEED, sequence, sequence) == (sequence, box.position)


def test_records_of_an_earlier_round_are_found_for_a_database_from_a_backup() -> None:
    box = Outbox()
    for number in range(2000):
        box.writer.append(payload(number))
        box.read()
        box.confirm()
    found = find_record(box.read_at, RING, SEED, 1, 2000)
    assert found is not None
    in_ring = RING // record_bytes(100)
    assert 2000 - in_ring < found[0] <= 2000 - in_ring + 2


@pytest.mark.parametrize(
    ("word", "value", "reason"),
    [
        (layout.WORD_MAGIC, 0, "not an outbox"),
        (layout.WORD_VERSION, 2, "other version"),
        (WORD_RING_BYTES, 0, "impossible ring"),
        (WORD_RING_BYTES, RING + 1, "impossible ring"),
        (WORD_RING_BYTES, RING + 8, "impossible ring"),
        (WORD_RING_BYTES, 2**64 - 8, "impossible ring"),
        (WORD_WRITTEN, 2**63, "impossible sequence"),
    ],
)
def test_a_header_that_no_producer_writes_is_refused(word: int, value: int, reason: str) -> None:
    box = Outbox()
    memoryview(box.file)[:HEADER_BYTES].cast("Q")[word] = value
    with pytest.raises(OutboxError if word != layout.WORD_VERSION else OtherVersion, match=reason):
        box.header()


@given(
    st.dictionaries(st.integers(0, 63), st.integers(0, 2**64 - 1), max_size=20),
    st.sampled_from([outbox_bytes(RING), 0, HEADER_BYTES]),
)
def test_a_header_of_arbitrary_words_is_refused_or_within_every_limit(
    changed: dict[int, int], file_bytes: int
) -> None:
    box = Outbox()
    words = memoryview(box.file)[:HEADER_BYTES].cast("Q")
    for word, value in changed.items():
        words[word] = value
    try:
        header = parse_header(words.tobytes(), file_bytes)
    except WireError:
        return
    assert header.ring_bytes == RING
    assert file_bytes == outbox_bytes(RING)
    assert header.written < 2**63
    assert all(0 < count < 2**63 for count in header.refused.values())
