"""An outbox in memory, with the producer's end and the daemon's."""

from __future__ import annotations

import struct

from logd_wire.outbox.layout import (
    CONFIRMED_OFFSET,
    HEADER_BYTES,
    RING_BYTES_MIN,
    Header,
    aligned,
    outbox_bytes,
    parse_header,
)
from logd_wire.outbox.reader import Page, read_records
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.wire import (
    RECORD_HEAD,
    producer_seed,
)

PRODUCER = 0xFEDCBA9876543210
SEED = producer_seed(PRODUCER)
RING = RING_BYTES_MIN


class Outbox:
    """An outbox in memory: the producer's end of it, and the daemon's."""

    def __init__(self, ring_bytes: int = RING) -> None:
        self.file = bytearray(outbox_bytes(ring_bytes))
        self.writer = OutboxWriter(memoryview(self.file), PRODUCER, pid=1, now_ns=2)
        self.reads: list[int] = []
        self.position = 0
        self.taken = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append(length)
        return bytes(self.file[offset : offset + length])

    def header(self) -> Header:
        return parse_header(bytes(self.file[:HEADER_BYTES]), len(self.file))

    def read(self, bytes_max: int = 10**9) -> list[bytes]:
        """Takes what is new, as the daemon does."""
        page = self.page(bytes_max)
        assert page.damage is None
        self.position = page.position
        self.taken += len(page.payloads)
        return page.payloads

    def page(self, bytes_max: int = 10**9, written: int | None = None) -> Page:
        header = self.header()
        return read_records(
            self.read_at,
            header.ring_bytes,
            SEED,
            self.position,
            after=self.taken,
            written=header.written if written is None else written,
            bytes_max=bytes_max,
        )

    def confirm(self) -> None:
        """Says that all that was taken is on disk."""
        words = struct.pack("=QQ", self.taken, self.position)
        self.file[CONFIRMED_OFFSET : CONFIRMED_OFFSET + 16] = words

    def damage(self, position: int) -> None:
        self.file[HEADER_BYTES + position % RING] ^= 0xFF


def payload(number: int, length: int = 100) -> bytes:
    return struct.pack("<Q", number).ljust(length, b".")


def record_bytes(length: int) -> int:
    return aligned(RECORD_HEAD.size + length)
