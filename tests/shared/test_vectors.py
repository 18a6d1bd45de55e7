"""The vectors of shared/vectors, which other languages' clients are written against."""

from __future__ import annotations

import inspect
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.ingest.ordering import Intake
from logd_wire import query, rendezvous, schema, wire
from logd_wire.outbox import layout
from logd_wire.outbox import reader as ring
from logd_wire.outbox.names import parse_name
from logd_wire.outbox.writer import OutboxWriter
from tests.shared import independent_encoder, make_vectors, outbox_vectors, payload_vectors
from tests.support.instance import ROOT

FOLDER = ROOT / "shared/vectors"
UID, PID = 1000, 4242

Vector = dict[str, Any]


def load(name: str) -> Vector:
    document: Vector = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def cases(name: str, having: str | None = None, key: str = "vectors") -> pytest.MarkDecorator:
    """The vectors of a file that have a field, each one a test of its own."""
    vectors = [v for v in load(name)[key] if having is None or having in v]
    label = "file" if key == "outbox_names" else "name"
    return pytest.mark.parametrize("vector", vectors, ids=[v[label] for v in vectors])


def data(vector: Vector) -> bytes:
    return bytes.fromhex(vector["hex"])


def runs(vector: list[list[Any]]) -> bytes:
    return b"".join(bytes.fromhex(part) * times for part, times in vector)


def shown(event: wire.Event) -> Vector:
    """An event in the form of the vectors."""
    return {
        "type": event.type,
        "ts_ns": str(event.ts_ns),
        "user": event.user,
        "props": wire.unpack_props(event.props),
    }


def test_the_files_are_what_the_independent_encoder_writes() -> None:
    built = {
        name: make_vectors.text_of(document) for name, document in make_vectors.build().items()
    }
    files = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert files == built


def test_the_independent_encoder_imports_nothing_it_is_to_check() -> None:
    own = (make_vectors, independent_encoder, outbox_vectors, payload_vectors)
    source = "\n".join(map(inspect.getsource, own))
    imported = {line.split()[1] for line in source.splitlines() if line[:5] in ("impor", "from ")}
    assert imported == {
        "__future__", "collections.abc", "json", "struct", "zlib", "pathlib", "typing",
        independent_encoder.__name__, outbox_vectors.__name__, payload_vectors.__name__,
    }  # fmt: skip


# -- payloads, records, datagrams ----------------------------------------------------------------


def test_one_datagram_is_right_byte_by_byte() -> None:
    by_hand = (
        b"\x94"  # an array of four
        b"\xa9page_view"
        b"\xcf\x18\x6c\xc6\xac\xd4\xb0\x00\x00"  # 1,760,000,000,000,000,000
        b"\xa17"
        b"\xc4\x1d"  # 29 bytes holding
        b"\x82"  # a map of two
        b"\xa5route\xac/lesson/<id>"
        b"\xa6status\xcc\xc8"
    )
    producer, sequence = 0x0123456789ABCDEF, 1
    crc = zlib.crc32(struct.pack("<Q", producer) + struct.pack("<Q", sequence) + by_hand)
    expected = (
        b"LGD\x01\x00\x00\x00\x00"
        b"\xef\xcd\xab\x89\x67\x45\x23\x01"
        + struct.pack("<I", len(by_hand))
        + struct.pack("<I", crc)
        + b"\x01\x00\x00\x00\x00\x00\x00\x00"
        + by_hand
    )
    vector = next(v for v in load("datagrams")["vectors"] if v["name"] == "one event")
    assert data(vector) == expected


@cases("payloads", "event")
def test_a_payload_decodes_to_its_event(vector: Vector) -> None:
    assert shown(wire.unpack_payload(data(vector))) == vector["event"]


@cases("payloads", "event")
def test_a_canonical_payload_is_what_the_encoder_writes(vector: Vector) -> None:
    event = vector["event"]
    ts_ns, props = int(event["ts_ns"]), event["props"]
    packed = wire.pack_payload(msgpack.Packer(), event["type"], ts_ns, event["user"], props)
    assert (packed == data(vector)) is vector["canonical"]


@cases("payloads", "client_refuses")
def test_what_a_daemon_still_stores_a_client_refuses_by_the_field(vector: Vector) -> None:
    event, field = vector["event"], vector["client_refuses"]
    assert field == "user"
    with pytest.raises(schema.Malformed, match=f"^{field}"):
        schema.check_user(event[field])


@cases("payloads", "malformed")
def test_a_malformed_payload_is_refused_by_the_field_that_is_wrong(vector: Vector) -> None:
    with pytest.raises(schema.Malformed, match=f"^{vector['malformed']}"):
        wire.unpack_payload(data(vector))


@cases("records", "payload")
def test_a_record_is_encoded_and_decoded(vector: Vector) -> None:
    seed = wire.producer_seed(int(vector["producer"], 16))
    sequence, payload = int(vector["sequence"]), bytes.fromhex(vector["payload"])
    assert wire.encode_record(seed, sequence, payload) == data(vector)
    assert wire.decode_record(data(vector), 0, seed) == (sequence, payload, len(data(vector)))
    assert data(vector)[4:8] == bytes.fromhex(vector["crc"])[::-1]


@cases("records", "error")
def test_a_bad_record_is_refused_for_its_reason(vector: Vector) -> None:
    with pytest.raises(wire.WireError) as refused:
        wire.decode_record(data(vector), 0, wire.producer_seed(int(vector["producer"], 16)))
    assert refused.value.reason == vector["error"]


def intake_of(vector: Vector) -> tuple[Batch, Producer]:
    """What the daemon's intake takes of the datagram, the producer's watermark just before it."""
    producer_id = int(load("datagrams")["producer"], 16)
    producer = Producer(UID, producer_id, wire.producer_seed(producer_id))
    if vector.get("events"):
        producer.taken = int(vector["events"][0]["sequence"]) - 1
    intake, batch = Intake(lambda *_: producer, gap_events_max=0), Batch(1000, 10**6)
    if "farewell" in vector:
        producer.taken = int(vector["farewell"]["last_sequence"])
    intake.take_datagram(data(vector), UID, PID, batch)
    return batch, producer


@cases("datagrams", "events")
def test_a_datagram_gives_its_events_in_order(vector: Vector) -> None:
    batch, producer = intake_of(vector)
    found = [{"sequence": str(number), "event": shown(event)} for _, number, event in batch.events]
    assert found == vector["events"]
    assert producer.taken == int(vector["events"][-1]["sequence"])
    assert bool(batch.quarantine_entries) is ("error" in vector)


@cases("datagrams", "error")
def test_a_bad_datagram_is_quarantined_for_its_reason(vector: Vector) -> None:
    batch, _ = intake_of(vector)
    (refusal,) = batch.quarantine_entries
    assert refusal.reason.split(":")[0] == vector["error"]
    assert (refusal.uid, refusal.pid, refusal.bytes) == (UID, PID, len(data(vector)))


@cases("datagrams", "farewell")
def test_a_farewell_carries_the_last_sequence_and_the_refusals(vector: Vector) -> None:
    kind, producer_id = wire.decode_head(data(vector))
    expected = vector["farewell"]
    last, refused = wire.decode_farewell(data(vector), wire.producer_seed(producer_id))
    assert (kind, last, refused) == (1, int(expected["last_sequence"]), expected["refused"])
    assert wire.encode_farewell(producer_id, last, refused) == data(vector)
    batch, producer = intake_of(vector)
    assert (producer.ended, producer.refused, batch.losses) == (True, refused, [])


def test_only_another_version_is_reported_as_such() -> None:
    """An error after the head is not an error of the head."""

    def error_of(head: bytes) -> type[wire.WireError] | None:
        try:
            wire.decode_head(head)
        except wire.WireError as error:
            return type(error)
        return None

    broken = [vector for vector in load("datagrams")["vectors"] if "error" in vector]
    for vector in broken:
        other = error_of(data(vector)) is wire.OtherVersion
        assert other is (vector["error"] == "other version"), vector["name"]
    assert {error_of(data(vector)) for vector in broken} == {
        None, wire.WireError, wire.OtherVersion,
    }  # fmt: skip


# -- outboxes ------------------------------------------------------------------------------------


def replay(vector: Vector) -> bytearray:
    """The file after the vector's steps, by the writer of this repository."""
    file = bytearray(layout.outbox_bytes(vector["ring_bytes"]))
    producer_id, created_ns = int(vector["producer"], 16), int(vector["created_ns"])
    writer = OutboxWriter(memoryview(file), producer_id, vector["pid"], created_ns)
    for step in vector["steps"]:
        if "append" in step:
            assert (writer.append(runs(step["append"])) is None) is step.get("refused", False)
        elif "confirm" in step:
            at = layout.CONFIRMED_OFFSET
            file[at : at + 16] = struct.pack("<QQ", *map(int, step["confirm"]))
        elif "count" in step:
            writer.refused(*step["count"])
        else:
            assert step == {"farewell": True}
            writer.farewell()
    return file


def expected_file(vector: Vector) -> bytes:
    words = [0] * (layout.HEADER_BYTES // 8)
    for index, value in vector["words"].items():
        words[int(index)] = int(value, 16)
    ring = runs(vector["ring"])
    return struct.pack("<512Q", *words) + ring + bytes(vector["ring_bytes"] - len(ring))


@cases("outboxes")
def test_an_outbox_is_written_byte_by_byte_as_given(vector: Vector) -> None:
    assert replay(vector) == expected_file(vector)


@cases("outboxes")
def test_an_outbox_as_given_is_read_to_its_last_record(vector: Vector) -> None:
    file = expected_file(vector)
    header = layout.parse_header(file[: layout.HEADER_BYTES], len(file))
    page = ring.read_records(
        lambda offset, length: file[offset : offset + length],
        header.ring_bytes,
        wire.producer_seed(header.producer_id),
        header.confirmed_position,
        after=header.confirmed_sequence,
        written=header.written,
        bytes_max=10**6,
    )
    assert page.payloads == [runs(payload) for payload in vector["readable"]]
    assert page.damage is None
    for payload in page.payloads:
        wire.unpack_payload(payload)


# -- queries and names ---------------------------------------------------------------------------


def reader(stream: bytes) -> Iterator[bytes]:
    yield from (stream[index : index + 1] for index in range(len(stream)))


@cases("queries", "message")
def test_a_frame_is_encoded_and_read_back(vector: Vector) -> None:
    assert query.encode_frame(vector["message"]) == data(vector)
    bytes_one_by_one = reader(data(vector))
    read = query.read_frame(lambda _: next(bytes_one_by_one, b""), query.REQUEST_BYTES_MAX)
    assert read == vector["message"]


@cases("queries", "error")
def test_a_bad_frame_is_refused_for_its_reason(vector: Vector) -> None:
    bytes_one_by_one = reader(data(vector))
    with pytest.raises(query.FrameError, match=vector["error"]):
        query.read_frame(lambda _: next(bytes_one_by_one, b""), query.REQUEST_BYTES_MAX)


@cases("names", key="rendezvous")
def test_the_file_beside_the_socket_means_what_is_given(vector: Vector, tmp_path: Path) -> None:
    socket_path = str(tmp_path / "logd.sock")
    Path(rendezvous.rendezvous_path(socket_path)).write_text(vector["text"])
    if vector["means"] is None:
        with pytest.raises(rendezvous.NoOutbox):
            rendezvous.read_rendezvous(socket_path)
    else:
        assert rendezvous.read_rendezvous(socket_path) == rendezvous.Rendezvous(**vector["means"])


@cases("names", key="outbox_names")
def test_the_name_of_an_outbox_carries_user_and_producer(vector: Vector) -> None:
    expected = None if vector["uid"] is None else (vector["uid"], int(vector["producer"], 16))
    assert parse_name(vector["file"]) == expected
