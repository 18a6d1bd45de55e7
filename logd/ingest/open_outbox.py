"""Reads one open outbox file, and writes the daemon's words in its header.

The file is neither mapped nor locked. If it were mapped, a producer that shortens it would kill the
daemon.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from dataclasses import dataclass, field

from logd.runtime_stats import WaitingSince, WriteRate
from logd_wire import liveness
from logd_wire.outbox.layout import (
    CONFIRMED_OFFSET,
    HEADER_BYTES,
    WORD_GIVEN_UP,
    WORD_RETIRED,
    WORD_WATCHED_UNTIL_NS,
    WORD_WRITTEN,
    Header,
    OutboxError,
    is_outbox,
    parse_header,
)
from logd_wire.wire import WireError

# Three words: confirmed sequence, confirmed position, watched_until_ns.
_WORDS = struct.Struct("=QQQ")
_WORD = struct.Struct("=Q")
# Place of the words RETIRED and GIVEN_UP, with which the daemon ends its use of an outbox.
LEFT_OFFSET, LEFT_BYTES = WORD_RETIRED * 8, 16


class Foreign(WireError):
    """A file in the directory that is not an outbox of the user and producer in its name."""


@dataclass(slots=True, eq=False)
class OpenOutbox:
    """An open outbox, which has passed every check."""

    name: str
    uid: int
    producer_id: int
    fd: int
    header: Header
    # How many more damaged places are searched past before the outbox is given up:
    # each may take a search of the whole ring.
    scans_left: int = 3
    # Why this outbox will be given up, after its readable events are taken; None if it will not.
    unusable: str | None = None
    # Whether another program removed the file, so that no later daemon finds it.
    nameless: bool = False
    confirmed: int = field(init=False)
    rate: WriteRate | None = None  # the producer's write rate; None before it is measured
    waiting_since: WaitingSince | None = None  # None before the first sample

    def __post_init__(self) -> None:
        self.confirmed = self.header.confirmed_sequence

    def read_at(self, offset: int, length: int) -> bytes:
        """Returns bytes of the file; fewer than `length` if the file was shortened."""
        return os.pread(self.fd, length, offset)

    def refresh(self) -> Header:
        """Reads the header again. Raises WireError if it is not valid any more."""
        header = parse_header(self.read_at(0, HEADER_BYTES), self._size())
        if header.producer_id != self.producer_id:
            raise OutboxError("another producer's outbox")
        self.header = header
        return header

    def written(self) -> int:
        """Returns the highest sequence written, from the header."""
        return int.from_bytes(self.read_at(WORD_WRITTEN * 8, 8), sys.byteorder)

    def alive(self) -> bool:
        """Returns whether the producer's process still holds its lock."""
        return liveness.lock_holder(self.fd) is not None

    def confirm(self, sequence: int, position: int, watched_until_ns: int) -> None:
        """Writes the committed sequence and position into the header, never lower ones.

        Called only after the commit.

        Until `watched_until_ns` the producer need not wake the daemon (see `logd.ingest.wakeups`).
        """
        if sequence <= self.confirmed:
            return
        if self.nameless:
            # With 0 the producer sends again, checks its file, and makes another.
            watched_until_ns = 0
        self._write_at(CONFIRMED_OFFSET, _WORDS.pack(sequence, position, watched_until_ns))
        self.confirmed = sequence

    def retire(self) -> bool:
        """Marks the outbox as read to its end; returns False, unmarked, if there is more to read.

        A process that lost its lock with a closed descriptor may still write. Either it sees the
        mark, or this call sees what it wrote.
        """
        self._write_at(WORD_RETIRED * 8, _WORD.pack(1))
        if self.written() <= self.confirmed:
            return True
        self._write_at(WORD_RETIRED * 8, bytes(8))
        return False

    def give_up(self) -> None:
        """Tells the producer, in the header, to continue in another outbox."""
        self._write_at(WORD_GIVEN_UP * 8, _WORD.pack(1))

    def take_back(self) -> None:
        """Clears the words RETIRED and GIVEN_UP of a killed daemon, to use the outbox again.

        If they cannot be written, they stay as they are.
        """
        with contextlib.suppress(OSError):
            self._write_at(LEFT_OFFSET, bytes(LEFT_BYTES))

    def resume_wakeups(self) -> None:
        """Makes the producer wake the daemon again when it writes."""
        self._write_at(WORD_WATCHED_UNTIL_NS * 8, bytes(8))

    def _size(self) -> int:
        status = os.fstat(self.fd)
        self.nameless = status.st_nlink == 0
        check_no_holes(status)
        return status.st_size

    def _write_at(self, offset: int, data: bytes) -> None:
        os.pwrite(self.fd, data, offset)


def give_up_foreign(fd: int) -> None:
    """Gives up a refused file, if it certainly is an outbox, so that its producer notices.

    A user may have put another file, or a link to one, under an outbox's name: the daemon does not
    write to such files. Errors are ignored.
    """
    with contextlib.suppress(OSError):
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            page = os.pread(fd, HEADER_BYTES, 0)
            if is_outbox(page, status.st_size):
                # The write is in the page that holds the magic,
                # so it is not in a hole or past the end.
                os.pwrite(fd, _WORD.pack(1), WORD_GIVEN_UP * 8)
                os.pwrite(fd, bytes(8), WORD_WATCHED_UNTIL_NS * 8)


def check_no_holes(status: os.stat_result) -> None:
    """Raises OutboxError for a file that takes less memory than it is long.

    No producer makes a sparse file (shared/PROTOCOL.md). Its owner could have the daemon search
    bytes that take no memory, and a write into a hole may fail.
    """
    if status.st_blocks * 512 < status.st_size:
        raise OutboxError("sparse file", f"{status.st_blocks * 512} of {status.st_size} bytes")
