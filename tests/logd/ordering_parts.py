"""Helpers for tests of ordering and reading: producers, datagrams, and an outbox in memory."""

from __future__ import annotations

import msgpack

from logd.batch import Batch, Producer
from logd.ingest.ordering import Intake
from logd.ingest.outbox_reader import DamageSkip, NextRecordSearch, read_available
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    Header,
    aligned,
    outbox_bytes,
    parse_header,
)
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.wire import RECORD_HEAD, datagram_head, encode_record, pack_payload, producer_seed

RING = 64 * 1024
ID = 7
UID = 1000


def payload(number: int) -> bytes:
    return pack_payload(msgpack.Packer(), "page_view", number, None, {"n": number})


def new_producer(taken: int = 0) -> Producer:
    return Producer(uid=UID, id=ID, seed=producer_seed(ID), stored=taken, taken=taken)


def new_intake(producer: Producer, gap_events_max: int = 1000) -> Intake:
    def introduce(_uid: int, _id: int) -> Producer:
        return producer

    return Intake(introduce, gap_events_max)


def sequences(batch: Batch) -> list[int]:
    return [sequence for _, sequence, _ in batch.events]


def losses(batch: Batch) -> list[tuple[int, int | None, str]]:
    return [(loss.first, loss.last, loss.cause) for loss in batch.losses]


def batch_of(events_max: int = 100_000) -> Batch:
    return Batch(events_max, 10**8)


def datagram(sequence: int) -> bytes:
    return datagram_head(ID) + encode_record(producer_seed(ID), sequence, payload(sequence))


def whole(data: bytes, intake: Intake, batch: Batch, uid: int = UID, pid: int = 5) -> int:
    """Takes all of a datagram; returns in how many slices."""
    slices, offset = 1, intake.take_datagram(data, uid, pid, batch)
    while offset:
        slices, offset = slices + 1, intake.take_datagram(data, uid, pid, batch, offset)
    return slices


def position_of(sequence: int) -> int:
    """Where the record of that number begins in a ring that has not wrapped around."""
    return sum(aligned(RECORD_HEAD.size + len(payload(n))) for n in range(1, sequence))


class Shared:
    """An outbox in memory, as both sides see it."""

    def __init__(self, ring_bytes: int = RING) -> None:
        self.buffer = bytearray(outbox_bytes(ring_bytes))
        self.words = memoryview(self.buffer)[:HEADER_BYTES].cast("Q")
        self.writer = OutboxWriter(memoryview(self.buffer), ID, pid=1, now_ns=1)

    def write(self, count: int) -> None:
        for _ in range(count):
            assert self.writer.append(payload(self.writer.written + 1)) is not None

    def confirm(self, sequence: int) -> None:
        """As the daemon does after a commit of everything up to `sequence`."""
        self.words[WORD_CONFIRMED_SEQUENCE] = sequence
        self.words[WORD_CONFIRMED_POSITION] = position_of(sequence + 1)

    def damage(self, sequence: int) -> None:
        """Inverts a byte in the middle of a record."""
        self.buffer[HEADER_BYTES + position_of(sequence) + RECORD_HEAD.size] ^= 0xFF

    def header(self) -> Header:
        return parse_header(bytes(self.buffer[:HEADER_BYTES]), len(self.buffer))

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.buffer[offset : offset + length])

    def locate_next(self, producer: Producer, batch: Batch) -> None:
        """Finds the producer's next record, in slices."""
        search = NextRecordSearch(producer, self.header(), self.read_at)
        while not search.step(batch, 8192):
            pass

    def skip_damage(self, producer: Producer, batch: Batch) -> None:
        """Finds the record after damage, in slices."""
        search = DamageSkip(producer, self.header(), self.read_at)
        while not search.step(batch, 8192):
            pass

    def read(self, producer: Producer, batch: Batch, intake: Intake | None = None) -> str | None:
        """Reads what is written; returns what is wrong with the next record, if anything is."""
        intake = intake or new_intake(producer)
        return read_available(producer, self.header(), self.read_at, batch, intake)
