"""The layout of an outbox: a header page and a ring of records in shared memory. Pure.

The producer writes, the daemon reads. They share only these bytes: a header page of 8-byte words in
the machine's own byte order, then the ring. Every word has one writer.

A *position* counts bytes written to the ring since its beginning and never wraps; a record lies at
`position % ring_bytes`, may continue at the ring's start, and is followed by zero to seven bytes so
that the next begins at a multiple of eight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from logd_wire.wire import SEQUENCE_MAX, OtherVersion, WireError

OUTBOX_VERSION = 1
MAGIC_WORD = int.from_bytes(b"LGDOUTBX", "little")
HEADER_BYTES = 4096
RING_BYTES_MIN = 64 * 1024
RING_BYTES_MAX = 64 * 1024 * 1024

# Indices of the header's 8-byte words. The producer writes those below CONFIRMED_SEQUENCE and the
# refusals; the daemon writes the two CONFIRMED ones, WATCHED, RETIRED and GIVEN_UP. Words written
# by different sides are in different cache lines.
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

# At least the largest record of a `durable_unknown`, with the longest type and user: the space that
# is reserved after each durable event whose outcome is not known yet.
NOTE_BYTES_MAX = 448

# The longest time for which the daemon announces that it polls an outbox.
# A larger value is forged or from another clock (a time namespace), and ignored.
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

# The most refusals taken from a header: more than a client can count; sums stay within 64 bits.
REFUSALS_MAX = 2**40
# The highest position taken from a header: more bytes than a ring can have taken; sums with a
# ring's size stay within 64 bits.
POSITION_MAX = 2**62
PID_MAX = 2**31 - 1


class OutboxError(WireError):
    """The header is not one that a producer of this protocol writes."""


def aligned(length: int) -> int:
    """Rounds up to a multiple of eight."""
    return (length + 7) & -8


def outbox_bytes(ring_bytes: int) -> int:
    """Returns the size of a whole outbox file with that ring."""
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


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of an outbox's header, read at one moment."""

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
        """Bytes of this ring and of the larger ones that may follow, as its producer claims."""
        return self.ring_bytes + self.growth_bytes


def is_outbox(page: bytes, file_bytes: int) -> bool:
    """Whether `page` is the first page of a whole outbox file of `file_bytes`, in this version."""
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
    """Parses the header in a file's first page. Raises OutboxError, or OtherVersion if it is newer.

    The file is untrusted: every field is checked against what a producer could have written.
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


# A function that reads `length` bytes at an offset of a file, as pread does.
ReadAt = Callable[[int, int], bytes]


def read_ring(read_at: ReadAt, ring_bytes: int, position: int, length: int) -> bytes:
    """Reads `length` bytes of the ring from `position` on, also across the ring's end."""
    offset = position % ring_bytes
    first = min(length, ring_bytes - offset)
    data = read_at(HEADER_BYTES + offset, first)
    if first < length:
        data += read_at(HEADER_BYTES, length - first)
    return data
