"""The outbox: a ring of records in shared memory. Layout and writer; no file, no clock.

The writer is the producer's, the reader the daemon's. They share nothing but these bytes: a header
page of 8-byte words in the machine's own byte order, then the ring. Every word has one writer.

A *position* counts bytes written to the ring since its beginning and never wraps; a record lies at
`position % ring_bytes`, may go on at the ring's start, and is followed by zero to seven bytes so
that the next begins at a multiple of eight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet
from zlib import crc32

from shared.forks import Forked, Mark
from shared.wire import (
    LENGTH_CRC,
    RECORD_HEAD,
    SEQUENCE,
    SEQUENCE_MAX,
    OtherVersion,
    WireError,
    producer_seed,
)

_pack_sequence, _pack_length_crc = SEQUENCE.pack, LENGTH_CRC.pack

OUTBOX_VERSION = 1
MAGIC_WORD = int.from_bytes(b"LGDOUTBX", "little")
HEADER_BYTES = 4096
RING_BYTES_MIN = 64 * 1024
RING_BYTES_MAX = 64 * 1024 * 1024

# Indices of the header's 8-byte words. The producer writes those below CONFIRMED_SEQUENCE and the
# refusals; the daemon writes the two CONFIRMED ones, WATCHED, RETIRED and GIVEN_UP. Apart by cache
# lines, as they change apart.
WORD_MAGIC = 0
WORD_VERSION = 1
WORD_PRODUCER = 2
WORD_RING_BYTES = 3
WORD_PID = 4
WORD_CREATED_NS = 5
WORD_FOLLOWS = 6
WORD_GROWTH_BYTES = 7
WORD_WRITTEN = 8
WORD_FAREWELL = 9
WORD_CONFIRMED_SEQUENCE = 16
WORD_CONFIRMED_POSITION = 17
WORD_WATCHED_UNTIL_NS = 18
WORD_RETIRED = 19
WORD_GIVEN_UP = 20
WORD_REFUSED = 24

CONFIRMED_OFFSET = WORD_CONFIRMED_SEQUENCE * 8

# At least the largest record of a `durable_unknown`, with the longest type and user: what is kept
# free behind each durable event whose outcome is not known yet.
NOTE_BYTES_MAX = 448

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


class OutboxError(WireError):
    """A header that no producer of this protocol writes."""


def aligned(length: int) -> int:
    """`length` rounded up to a multiple of eight."""
    return (length + 7) & -8


def outbox_bytes(ring_bytes: int) -> int:
    """The size of a whole outbox file with that ring."""
    return HEADER_BYTES + ring_bytes


def initialise(
    words: memoryview,
    producer_id: int,
    ring_bytes: int,
    pid: int,
    now_ns: int,
    follows: int = 0,
    growth_bytes: int = 0,
) -> None:
    """Fills the header of a new outbox. `words` is its first page, cast to "Q"."""
    words[WORD_VERSION] = OUTBOX_VERSION
    words[WORD_PRODUCER] = producer_id
    words[WORD_RING_BYTES] = ring_bytes
    words[WORD_PID] = pid
    words[WORD_CREATED_NS] = now_ns
    words[WORD_FOLLOWS] = follows
    words[WORD_GROWTH_BYTES] = growth_bytes
    words[WORD_MAGIC] = MAGIC_WORD


class OutboxWriter:
    """Appends records to a new outbox over `buffer`: its header page and ring, all zeros.

    Not locked: its caller lets one thread in at a time. `mark` is of the process whose ring it is,
    `follows` the id of the producer that came before in it, if one did, `growth_bytes` what larger
    rings may take that follow this one.
    """

    def __init__(
        self,
        buffer: memoryview,
        producer_id: int,
        pid: int,
        now_ns: int,
        mark: Mark = (1,),
        follows: int = 0,
        growth_bytes: int = 0,
    ) -> None:
        self.ring_bytes = ring_bytes = len(buffer) - HEADER_BYTES
        self._mapped = buffer[:HEADER_BYTES].cast("Q")
        self._words: memoryview[int] | list[int] = self._mapped
        self._ring = buffer[HEADER_BYTES:]
        self._ring_bytes = ring_bytes
        self._seed = producer_seed(producer_id)
        # One tuple, so that sequence and position cannot come apart between two assignments.
        self._tail = (0, 0)
        self._mark = mark
        # Weak, so that a reservation goes with its holder, however its holder's call ends.
        self._reservations: WeakSet[Any] = WeakSet()
        # The sequence that `append` was last about to write: for who sets it to 0 before, and is
        # interrupted, `attempted` tells with `written` whether that event is accepted.
        self.attempted = 0
        self._position_max = ring_bytes
        self._confirmed_position = 0
        initialise(self._mapped, producer_id, ring_bytes, pid, now_ns, follows, growth_bytes)

    def append(self, payload: bytes) -> bytes | None:
        """Writes the next record and returns its bytes; None when the ring has no room for it.

        When it returns, or is interrupted at any point, the event is either wholly accepted or
        was never there: the record is complete before the one store that counts it. Raises Forked
        in a child of the process whose ring it is, before anything is written.
        """
        words = self._words
        sequence, position = self._tail
        if words[WORD_WRITTEN] != sequence:
            # A signal handler raised after the store below and before the tail followed it.
            sequence, position = self._tail = self._tail_from_ring(sequence, position)
        sequence += 1
        # As `encode_record`, without another call.
        body = _pack_sequence(sequence) + payload
        record = _pack_length_crc(len(payload), crc32(body, self._seed)) + body
        length = len(record)
        position_next = position + ((length + 7) & -8)
        if position_next > self._position_max and not self._reclaim(position, position_next):
            return None
        offset = position % self._ring_bytes
        end = offset + length
        if not self._mark[0]:  # behind the last call: from here on no signal handler can fork
            raise Forked
        self.attempted = sequence
        if end <= self._ring_bytes:
            self._ring[offset:end] = record
        else:
            first = self._ring_bytes - offset
            self._ring[offset:] = record[:first]
            self._ring[: end - self._ring_bytes] = record[first:]
        words[WORD_WRITTEN] = sequence  # from here on the event is accepted
        self._tail = (sequence, position_next)
        return record

    def reserve(self, holder: object) -> None:
        """Keeps NOTE_BYTES_MAX bytes from `append`, until they are released or the holder is gone.

        Interrupted at any point, it has reserved them for that holder or not at all.
        """
        self._position_max = 0  # so that the next `append` counts the reservations
        self._reservations.add(holder)

    def release_reservation(self, holder: object) -> None:
        """Gives back what `reserve` kept for that holder, if anything."""
        self._reservations.discard(holder)

    @property
    def reserved_bytes(self) -> int:
        """Bytes kept from `append`."""
        return len(self._reservations) * NOTE_BYTES_MAX

    def _reclaim(self, position: int, position_next: int) -> bool:
        confirmed = self._words[WORD_CONFIRMED_POSITION]
        # Another process wrote it: a confirmation of what was never written frees nothing.
        if confirmed <= position:
            self._confirmed_position = confirmed
        self._position_max = self._confirmed_position + self._ring_bytes - self.reserved_bytes
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
        return max(0, self._ring_bytes - self.used_bytes - self.reserved_bytes)

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

    def only_unconfirmed(self) -> bytes | None:
        """The payload of the last event, if it is the only one that is not confirmed."""
        words = self._words
        confirmed, position = words[WORD_CONFIRMED_SEQUENCE], words[WORD_CONFIRMED_POSITION]
        if confirmed + 1 != words[WORD_WRITTEN] or position > self._tail[1]:
            return None
        head = read_ring(self._read_own, self._ring_bytes, position, RECORD_HEAD.size)
        length = LENGTH_CRC.unpack_from(head)[0]
        if position + aligned(RECORD_HEAD.size + length) != self._tail[1]:
            return None  # not where the daemon said
        return read_ring(self._read_own, self._ring_bytes, position + RECORD_HEAD.size, length)

    @property
    def retired(self) -> bool:
        """Whether the daemon has taken this producer for ended: it reads nothing past `confirmed`
        any more once the file is removed as well.
        """
        return bool(self._words[WORD_RETIRED])

    @property
    def given_up(self) -> bool:
        """Whether this outbox is foreign to the daemon, or damaged: it will not be read."""
        return bool(self._words[WORD_GIVEN_UP])

    @property
    def left_by_daemon(self) -> bool:
        """Whether the daemon has retired this outbox, or given it up: its producer is to follow."""
        words = self._words
        return bool(words[WORD_RETIRED] or words[WORD_GIVEN_UP])

    def refused(self, cause: str, count: int) -> None:
        """Tells the daemon how many events this producer has refused for that cause."""
        word = WORD_REFUSED + REFUSAL_CAUSES.index(cause)
        if self._mark[0]:
            self._words[word] = count

    def no_growth(self) -> None:
        """Tells the daemon that there is no memory for a larger ring to follow this one."""
        if self._mark[0]:
            self._words[WORD_GROWTH_BYTES] = 0

    @property
    def refusals(self) -> dict[str, int]:
        """What this producer has reported as refused, by cause."""
        words = self._words
        counts = {cause: words[n] for n, cause in enumerate(REFUSAL_CAUSES, start=WORD_REFUSED)}
        return {cause: int(count) for cause, count in counts.items() if count}

    def farewell(self) -> None:
        """Says that nothing will follow: the sequence written is the producer's last."""
        if self._mark[0]:  # in a child of the process whose ring it is, others follow
            self._words[WORD_FAREWELL] = 1

    def release(self) -> None:
        """Lets go of the buffer, so that its mapping can be closed. Its numbers stay as they are
        now, and nothing is written to it any more.
        """
        if self._words is self._mapped:
            self._words = self._mapped.tolist()
        self._ring.release()
        self._mapped.release()


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
    follows: int = 0
    growth_bytes: int = 0

    @property
    def room_bytes(self) -> int:
        """What this ring takes and, by its producer's word, those that may follow it."""
        return self.ring_bytes + self.growth_bytes


def is_outbox(page: bytes, file_bytes: int) -> bool:
    """Whether a file with that first page is an outbox of this version and of the size it names."""
    if len(page) < HEADER_BYTES:
        return False
    words = memoryview(page).cast("Q")
    ring_bytes = words[WORD_RING_BYTES]
    return (
        (words[WORD_MAGIC], words[WORD_VERSION]) == (MAGIC_WORD, OUTBOX_VERSION)
        and RING_BYTES_MIN <= ring_bytes <= RING_BYTES_MAX
        and ring_bytes % 8 == 0
        and file_bytes == outbox_bytes(ring_bytes)
    )


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
        follows=words[WORD_FOLLOWS],
        growth_bytes=min(words[WORD_GROWTH_BYTES], RING_BYTES_MAX),
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
