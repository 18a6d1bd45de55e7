"""Reads an outbox's ring: its records in sequence, or the lowest record still in it. Pure."""

from __future__ import annotations

import contextlib
import sys
from array import array
from dataclasses import dataclass
from zlib import crc32

from logd_wire.outbox.layout import OutboxError, ReadAt, aligned, read_ring
from logd_wire.schema import PAYLOAD_BYTES_MAX
from logd_wire.wire import (
    LENGTH_CRC,
    RECORD_BYTES_MAX,
    RECORD_HEAD,
    SEQUENCE_MAX,
    WireError,
    decode_record,
)

# The daemon reads a ring in pieces of up to the second size.
# The first piece is smaller, since often a single event is read.
READ_BYTES_FIRST = 16 * 1024
READ_BYTES_MAX = 1024 * 1024
# The least cost of checking a possible record: in bytes of CRC, and in bytes searched.
CHECK_BYTES_MIN = 1024
CHECK_COST_BYTES = 128


@dataclass(slots=True)
class Page:
    """Records read from a ring, in sequence, and the position of the next one.

    `damage` says why reading ended before the last record wanted, or is None.
    """

    payloads: list[bytes]
    position: int
    damage: str | None = None


def read_records(
    read_at: ReadAt,
    ring_bytes: int,
    seed: int,
    position: int,
    after: int,
    written: int,
    bytes_max: int,
    records_max: int = SEQUENCE_MAX,
) -> Page:
    """Reads the records `after`+1 to `written`, until they exceed `bytes_max` or are `records_max`.

    `position` is where record `after`+1 lies; any other record there is damage. `written` must have
    been read from the header before this call, so that all these records are complete.
    """
    page = Page([], position)
    take, head, head_bytes = page.payloads.append, RECORD_HEAD.unpack_from, RECORD_HEAD.size
    crc_start = LENGTH_CRC.size
    taken_bytes = 0
    written = min(written, after + records_max)
    piece_bytes = READ_BYTES_FIRST
    while after < written and taken_bytes < bytes_max:
        data = read_ring(read_at, ring_bytes, page.position, min(piece_bytes, ring_bytes))
        offset, size = 0, len(data)
        while after < written and taken_bytes < bytes_max:
            # The expected record is decoded here if it is whole, without calling `decode_record`,
            # since this loop runs for each event. All other cases are handled below.
            if offset + head_bytes <= size:
                length, crc, sequence = head(data, offset)
                end = offset + head_bytes + length
                if (
                    sequence == after + 1
                    and length <= PAYLOAD_BYTES_MAX
                    and end <= size
                    and crc32(data[offset + crc_start : end], seed) == crc
                ):
                    take(data[offset + head_bytes : end])
                    page.position += ((end + 7) & -8) - offset
                    offset = (end + 7) & -8
                    taken_bytes += head_bytes + length
                    after = sequence
                    continue
            try:
                sequence = decode_record(data, offset, seed)[0]
            except WireError as error:
                if offset and error.reason == "truncated record":
                    break  # the record continues in the next piece
                if piece_bytes <= RECORD_BYTES_MAX and error.reason == "truncated record":
                    break  # the record is larger than the first, small piece
                page.damage = str(error)
                return page
            # The record is not skipped, even if it is an earlier one:
            # a ring full of those would never end.
            page.damage = f"another record: {after + 1} expected, {sequence} found"
            return page
        piece_bytes = READ_BYTES_MAX
    return page


class RecordSearch:
    """Finds the lowest record with `sequence_min` <= sequence <= `written` still in the ring.

    Checks every multiple of eight, for a database restored from an older backup or a ring with a
    damaged record: the position that the header confirms is of no use then. `found` is (sequence,
    offset in the ring), once `step` has returned True: a position modulo `ring_bytes`.

    A ring made to look like records everywhere costs at most four times its size in CRCs. It is
    read in slices, so that its producer does not decide how much time or memory one step takes.
    """

    def __init__(
        self, read_at: ReadAt, ring_bytes: int, seed: int, sequence_min: int, written: int
    ) -> None:
        self.found: tuple[int, int] | None = None
        self._read_at, self._ring_bytes, self._seed = read_at, ring_bytes, seed
        self._sequence_min, self._highest = sequence_min, written
        self._offset = 0
        self._checked_bytes_left = 4 * ring_bytes

    def step(self, bytes_max: int) -> bool:
        """Searches about `bytes_max` further bytes; returns True when the search is over.

        It is over when the whole ring is searched, or the limit of bytes in CRC checks is reached.
        Raises OutboxError if the file is shorter than its ring.
        """
        start = self._offset
        length = aligned(min(bytes_max, READ_BYTES_MAX, self._ring_bytes - start))
        # The piece has a whole record more than the part searched;
        # past the ring's end it continues at its start.
        with_record = length + aligned(RECORD_BYTES_MAX)
        piece = read_ring(self._read_at, self._ring_bytes, start, with_record)
        if len(piece) < with_record:
            raise OutboxError("truncated outbox", f"less than a ring of {self._ring_bytes} bytes")
        words = array("Q", piece)  # a record's sequence is one of these words
        if sys.byteorder == "big":
            words.byteswap()
        sequence_min, highest = self._sequence_min, self._highest
        checks_left = length // CHECK_COST_BYTES
        for index, sequence in enumerate(words[1 : 1 + length // 8]):
            if not sequence_min <= sequence <= highest:
                continue
            payload_bytes = LENGTH_CRC.unpack_from(piece, index * 8)[0]
            if payload_bytes > PAYLOAD_BYTES_MAX:
                continue
            checked_bytes = max(payload_bytes, CHECK_BYTES_MIN)
            self._checked_bytes_left -= checked_bytes
            if self._checked_bytes_left < 0:
                return True
            with contextlib.suppress(WireError):
                decode_record(piece, index * 8, self._seed)
                self.found = (sequence, start + index * 8)
                highest = self._highest = sequence - 1
            checks_left -= checked_bytes // CHECK_BYTES_MIN
            if checks_left <= 0:
                self._offset = start + (index + 1) * 8
                return self._offset >= self._ring_bytes
        self._offset = start + length
        return self._offset >= self._ring_bytes


def find_record(
    read_at: ReadAt, ring_bytes: int, seed: int, sequence_min: int, written: int
) -> tuple[int, int] | None:
    """Runs a `RecordSearch` to its end, however long it takes."""
    search = RecordSearch(read_at, ring_bytes, seed, sequence_min, written)
    while not search.step(READ_BYTES_MAX):
        pass
    return search.found
