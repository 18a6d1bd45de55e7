"""The outbox: a ring of records in shared memory. Layout, writer and reader; no file, no clock.

The writer is the producer's, the reader the daemon's. They share nothing but these bytes: a header
page of 8-byte words in the machine's own byte order, then the ring. Every word has one writer.

A *position* counts bytes written to the ring since its beginning and never wraps; a record lies at
`position % ring_bytes`, may go on at the ring's start, and is followed by zero to seven bytes so
that the next begins at a multiple of eight.
"""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from shared.schema import PAYLOAD_BYTES_MAX
from shared.wire import (
    LENGTH_CRC,
    RECORD_BYTES_MAX,
    RECORD_HEAD,
    SEQUENCE_MAX,
    OtherVersion,
    WireError,
    decode_record,
    encode_record,
    producer_seed,
)

OUTBOX_VERSION = 1
MAGIC_WORD = int.from_bytes(b"LGDOUTBX", "little")
HEADER_BYTES = 4096
RING_BYTES_MIN = 64 * 1024
RING_BYTES_MAX = 64 * 1024 * 1024

# Indices of the header's 8-byte words. The producer writes those below CONFIRMED_SEQUENCE and the
# refusals; the daemon writes the two CONFIRMED ones and WATCHED. Apart by cache lines, as they
# change apart.
WORD_MAGIC = 0
WORD_VERSION = 1
WORD_PRODUCER = 2
WORD_RING_BYTES = 3
WORD_PID = 4
WORD_CREATED_NS = 5
WORD_WRITTEN = 8
WORD_FAREWELL = 9
WORD_CONFIRMED_SEQUENCE = 16
WORD_CONFIRMED_POSITION = 17
WORD_WATCHED_UNTIL_NS = 18
WORD_REFUSED = 24

CONFIRMED_OFFSET = WORD_CONFIRMED_SEQUENCE * 8

# A promise to look at an outbox is never for longer than this. What says more is of another clock
# (a time namespace) or of a forger, and not believed.
WATCHED_NS_MAX = 10**9

# Why a client refuses an event, in the order of their words from WORD_REFUSED on.
REFUSED_MALFORMED = "malformed"
REFUSED_FULL = "outbox_full"
REFUSED_REENTERED = "reentered"
REFUSED_UNDELIVERED = "undelivered"
REFUSED_CLOSED = "closed"
REFUSED_ERROR = "internal_error"
REFUSAL_CAUSES = (
    REFUSED_MALFORMED,
    REFUSED_FULL,
    REFUSED_REENTERED,
    REFUSED_UNDELIVERED,
    REFUSED_CLOSED,
    REFUSED_ERROR,
)

# More refusals than a client can count, and few enough that sums of them stay in 64 bits.
REFUSALS_MAX = 2**40
# Nor can a ring have been written to this often; sums with a ring's size stay in 64 bits.
POSITION_MAX = 2**62
PID_MAX = 2**31 - 1

# The daemon reads a ring in pieces of at most this; the first piece is small, for one late event.
READ_BYTES_FIRST = 16 * 1024
READ_BYTES_MAX = 1024 * 1024
# What looking at a possible record costs at least, as bytes of CRC.
CHECK_BYTES_MIN = 1024


class OutboxError(WireError):
    """A header that no producer of this protocol writes."""


def aligned(length: int) -> int:
    """`length` rounded up to a multiple of eight."""
    return (length + 7) & -8


def outbox_bytes(ring_bytes: int) -> int:
    """The size of a whole outbox file with that ring."""
    return HEADER_BYTES + ring_bytes


def initialise(words: memoryview, producer_id: int, ring_bytes: int, pid: int, now_ns: int) -> None:
    """Fills the header of a new outbox. `words` is its first page, cast to "Q"."""
    words[WORD_VERSION] = OUTBOX_VERSION
    words[WORD_PRODUCER] = producer_id
    words[WORD_RING_BYTES] = ring_bytes
    words[WORD_PID] = pid
    words[WORD_CREATED_NS] = now_ns
    words[WORD_MAGIC] = MAGIC_WORD


class OutboxWriter:
    """Appends records to a new outbox over `buffer`: its header page and ring, all zeros.

    Not locked: its caller lets one thread in at a time.
    """

    def __init__(self, buffer: memoryview, producer_id: int, pid: int, now_ns: int) -> None:
        ring_bytes = len(buffer) - HEADER_BYTES
        self._words = buffer[:HEADER_BYTES].cast("Q")
        self._ring = buffer[HEADER_BYTES:]
        self._ring_bytes = ring_bytes
        self._seed = producer_seed(producer_id)
        # One tuple, so that sequence and position cannot come apart between two assignments.
        self._tail = (0, 0)
        self._reserved_bytes = 0
        self._position_max = ring_bytes
        initialise(self._words, producer_id, ring_bytes, pid, now_ns)

    def append(self, payload: bytes) -> bytes | None:
        """Writes the next record and returns its bytes; None when the ring has no room for it.

        When it returns, or is interrupted at any point, the event is either wholly accepted or
        was never there: the record is complete before the one store that counts it.
        """
        words = self._words
        sequence, position = self._tail
        if words[WORD_WRITTEN] != sequence:
            # A signal handler raised after the store below and before the tail followed it.
            sequence, position = self._tail = self._tail_from_ring(sequence, position)
        sequence += 1
        record = encode_record(self._seed, sequence, payload)
        length = len(record)
        position_next = position + ((length + 7) & -8)
        if position_next > self._position_max and not self._reclaim(position, position_next):
            return None
        offset = position % self._ring_bytes
        end = offset + length
        if end <= self._ring_bytes:
            self._ring[offset:end] = record
        else:
            first = self._ring_bytes - offset
            self._ring[offset:] = record[:first]
            self._ring[: end - self._ring_bytes] = record[first:]
        words[WORD_WRITTEN] = sequence  # from here on the event is accepted
        self._tail = (sequence, position_next)
        return record

    def reserve(self, change_bytes: int) -> None:
        """Keeps so many bytes more from `append`, or fewer: room for what must be said later."""
        self._reserved_bytes += change_bytes
        self._position_max -= change_bytes

    def _reclaim(self, position: int, position_next: int) -> bool:
        confirmed = self._words[WORD_CONFIRMED_POSITION]
        # Another process wrote it: a confirmation of what was never written frees nothing.
        if confirmed <= position:
            self._position_max = confirmed + self._ring_bytes - self._reserved_bytes
        return position_next <= self._position_max

    def _tail_from_ring(self, sequence: int, position: int) -> tuple[int, int]:
        written = self._words[WORD_WRITTEN]
        while sequence < written:
            head = read_ring(self._read_own, self._ring_bytes, position, RECORD_HEAD.size)
            position += aligned(RECORD_HEAD.size + LENGTH_CRC.unpack_from(head)[0])
            sequence += 1
        return written, position

    def _read_own(self, offset: int, length: int) -> bytes:
        start = offset - HEADER_BYTES
        return bytes(self._ring[start : start + length])

    @property
    def written(self) -> int:
        """The sequence of the last accepted event; 0 before the first."""
        return self._words[WORD_WRITTEN]

    @property
    def confirmed(self) -> int:
        """The highest sequence the daemon has on disk, with all below it."""
        return int(self._words[WORD_CONFIRMED_SEQUENCE])

    @property
    def room_bytes(self) -> int:
        """Bytes that can be written before the ring is full."""
        return max(0, self._ring_bytes - self.used_bytes - self._reserved_bytes)

    @property
    def bytes_written(self) -> int:
        """Bytes of all records ever written."""
        return self._tail[1]

    @property
    def used_bytes(self) -> int:
        """Bytes that wait for the daemon's confirmation."""
        return max(0, int(self._tail[1] - self._words[WORD_CONFIRMED_POSITION]))

    def watched(self, now_ns: int) -> bool:
        """Whether the daemon looks here by itself, after `now_ns` on the monotonic clock.

        True only of what was appended before the clock was read: the daemon's last look comes
        after the moment it has named.
        """
        until_ns = self._words[WORD_WATCHED_UNTIL_NS]
        return now_ns < until_ns <= now_ns + WATCHED_NS_MAX

    @property
    def daemon_watches(self) -> bool:
        """Whether the daemon ever promised to look here: then it knows of awaited events too."""
        return bool(self._words[WORD_WATCHED_UNTIL_NS])

    def refused(self, cause: str, count: int) -> None:
        """Tells the daemon how many events this producer has refused for that cause."""
        self._words[WORD_REFUSED + REFUSAL_CAUSES.index(cause)] = count

    def farewell(self) -> None:
        """Says that nothing will follow: the sequence written is the producer's last."""
        self._words[WORD_FAREWELL] = 1

    def release(self) -> None:
        """Lets go of the buffer, so that its mapping can be closed."""
        self._ring.release()
        self._words.release()


@dataclass(frozen=True, slots=True)
class Header:
    """An outbox's header as read at one moment."""

    producer_id: int
    ring_bytes: int
    pid: int
    created_ns: int
    written: int
    farewell: bool
    confirmed_sequence: int
    confirmed_position: int
    watched_until_ns: int
    refused: dict[str, int]


def parse_header(page: bytes, file_bytes: int) -> Header:
    """The header in a file's first page. Raises OutboxError, or OtherVersion for a newer one.

    The file is a stranger's: every field is checked against what its writer could have written.
    """
    if len(page) < HEADER_BYTES:
        raise OutboxError("truncated outbox", f"{len(page)} bytes")
    words = memoryview(page).cast("Q")
    if words[WORD_MAGIC] != MAGIC_WORD:
        raise OutboxError("not an outbox")
    if words[WORD_VERSION] != OUTBOX_VERSION:
        raise OtherVersion("other version", f"outbox version {words[WORD_VERSION]}")
    ring_bytes = words[WORD_RING_BYTES]
    if not RING_BYTES_MIN <= ring_bytes <= RING_BYTES_MAX or ring_bytes % 8:
        raise OutboxError("impossible ring", f"{ring_bytes} bytes")
    if file_bytes != outbox_bytes(ring_bytes):
        raise OutboxError("impossible ring", f"a file of {file_bytes} bytes, ring {ring_bytes}")
    written = words[WORD_WRITTEN]
    if words[WORD_CONFIRMED_POSITION] > POSITION_MAX:
        raise OutboxError("impossible position", f"{words[WORD_CONFIRMED_POSITION]}")
    if written > SEQUENCE_MAX:
        raise OutboxError("impossible sequence", f"{written} written")
    return Header(
        producer_id=words[WORD_PRODUCER],
        ring_bytes=ring_bytes,
        pid=min(words[WORD_PID], PID_MAX),
        created_ns=words[WORD_CREATED_NS],
        written=written,
        farewell=words[WORD_FAREWELL] == 1,
        confirmed_sequence=words[WORD_CONFIRMED_SEQUENCE],
        confirmed_position=words[WORD_CONFIRMED_POSITION],
        watched_until_ns=words[WORD_WATCHED_UNTIL_NS],
        refused={
            cause: min(words[WORD_REFUSED + index], REFUSALS_MAX)
            for index, cause in enumerate(REFUSAL_CAUSES)
            if words[WORD_REFUSED + index]
        },
    )


# Reads `length` bytes at an offset of the file, as pread does.
ReadAt = Callable[[int, int], bytes]


def read_ring(read_at: ReadAt, ring_bytes: int, position: int, length: int) -> bytes:
    """`length` bytes of the ring from `position` on, put together across the ring's end."""
    offset = position % ring_bytes
    first = min(length, ring_bytes - offset)
    data = read_at(HEADER_BYTES + offset, first)
    if first < length:
        data += read_at(HEADER_BYTES, length - first)
    return data


@dataclass(slots=True)
class Page:
    """Records read from a ring, in sequence, and where the next one lies.

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
    """The records `after`+1 .. `written` from `position` on: until they exceed `bytes_max`, or are
    `records_max`.

    `position` is where record `after`+1 lies, or an earlier record: those at or below `after` are
    passed over. `written` must have been read from the header before this call, so that all these
    records were complete by then.
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
            # The next record, whole: as `decode_record` reads it, in place, since nothing of the
            # daemon runs more often. Whatever is not so goes the long way below.
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
                sequence, _, end = decode_record(data, offset, seed)
            except WireError as error:
                if offset and error.reason == "truncated record":
                    break  # it goes on in the next piece
                if piece_bytes <= RECORD_BYTES_MAX and error.reason == "truncated record":
                    break  # larger than the first, small piece
                page.damage = str(error)
                return page
            if sequence > after:
                page.damage = f"record {after + 1} expected, {sequence} found"
                return page
            page.position += aligned(end) - offset
            offset = aligned(end)
        piece_bytes = READ_BYTES_MAX
    return page


def find_record(
    read_at: ReadAt, ring_bytes: int, seed: int, sequence_min: int, written: int
) -> tuple[int, int] | None:
    """The lowest record with `sequence_min` <= sequence <= `written` still in the ring.

    Looks at every multiple of eight, for a database restored from an older backup or a ring with a
    damaged record: the position that the header confirms is of no use then. Returns (sequence,
    offset in the ring): a position modulo `ring_bytes`.

    A ring made to look like records everywhere costs at most four times its size in CRCs. It is
    read in pieces: whoever made it does not decide how much memory this takes.
    """
    checked_bytes_max = 4 * ring_bytes
    best: tuple[int, int] | None = None
    highest = written
    for start in range(0, ring_bytes, READ_BYTES_MAX):
        length = min(READ_BYTES_MAX, ring_bytes - start)
        # With a whole record behind it, which at the ring's end goes on at its start.
        piece = read_ring(read_at, ring_bytes, start, length + aligned(RECORD_BYTES_MAX))
        if len(piece) < length + aligned(RECORD_BYTES_MAX):
            raise OutboxError("truncated outbox", f"less than a ring of {ring_bytes} bytes")
        words = array("Q", piece)  # a record's sequence is one of them
        if sys.byteorder == "big":
            words.byteswap()
        for index, sequence in enumerate(words[1 : 1 + length // 8]):
            if not sequence_min <= sequence <= highest:
                continue
            payload_bytes = LENGTH_CRC.unpack_from(piece, index * 8)[0]
            if payload_bytes > PAYLOAD_BYTES_MAX:
                continue
            checked_bytes_max -= max(payload_bytes, CHECK_BYTES_MIN)
            if checked_bytes_max < 0:
                return best
            with contextlib.suppress(WireError):
                decode_record(piece, index * 8, seed)
                best, highest = (sequence, start + index * 8), sequence - 1
    return best
