"""Reads an outbox's ring: its records in sequence, or the lowest one still there. Pure."""

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

# The daemon reads a ring in pieces of at most this; the first piece is small, for one late event.
READ_BYTES_FIRST = 16 * 1024
READ_BYTES_MAX = 1024 * 1024
# The least cost of checking a possible record, in bytes of CRC and in bytes searched.
CHECK_BYTES_MIN = 1024
CHECK_COST_BYTES = 128


@dataclass(slots=True)
class Page:
    """Records read from a ring, in sequence, and the position of the next one.

    `damage` is why reading ended before `written`, or None.
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
    """Reads the records `after`+1 .. `written` from `position` on, until they exceed `bytes_max` or
    are `records_max`.

    `position` is where record `after`+1 lies; any other record there is damage. `written` must have
    been read from the header before this call, so that all these records were complete by then.
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
            # A whole record that is the next one is decoded here, without calling `decode_record`:
            # nothing in the daemon runs more often. Anything else is handled below.
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
                    break  # it continues in the next piece
                if piece_bytes <= RECORD_BYTES_MAX and error.reason == "truncated record":
                    break  # larger than the first, small piece
                page.damage = str(error)
                return page
            # Not skipped, even an earlier one: a ring full of those would never end.
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
        """Searches about `bytes_max` bytes more; returns True when the search is over.

        It is over when the whole ring is searched, or its limit of CRC checks is reached.

        Raises OutboxError where the file is shorter than its ring.
        """
        start = self._offset
        length = aligned(min(bytes_max, READ_BYTES_MAX, self._ring_bytes - start))
        # With a whole record after it, which at the ring's end continues at its start.
        with_record = length + aligned(RECORD_BYTES_MAX)
        piece = read_ring(self._read_at, self._ring_bytes, start, with_record)
        if len(piece) < with_record:
            raise OutboxError("truncated outbox", f"less than a ring of {self._ring_bytes} bytes")
        words = array("Q", piece)  # a record's sequence is one of them
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
    """Runs a `RecordSearch` to its end, for callers that may take the time."""
    search = RecordSearch(read_at, ring_bytes, seed, sequence_min, written)
    while not search.step(READ_BYTES_MAX):
        pass
    return search.found
