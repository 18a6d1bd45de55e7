"""Wraps two calls of inotify(7): wakes the daemon when an outbox is closed."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

from logd_wire.outbox.names import SUFFIX

OTHERS_MAX = 8
IN_CLOSE_WRITE = 0x08
IN_OPEN = 0x20
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC
_EVENT = struct.Struct("iIII")


def watch(directory: str | os.PathLike[str], mask: int) -> int:
    """Returns a descriptor that yields the events of a directory.

    Raises OSError if no watch is left.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    if libc.inotify_add_watch(fd, os.fsencode(directory), mask) < 0:
        error = ctypes.get_errno()
        os.close(fd)
        raise OSError(error, "inotify_add_watch")
    return fd


def read_events(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yields the mask and name of each event that is queued, up to one read. Never waits."""
    try:
        data = os.read(fd, 64 * 1024)
    except BlockingIOError:
        return
    offset = 0
    while offset < len(data):
        _watch, mask, _cookie, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        yield mask, data[offset : offset + length].rstrip(b"\0")
        offset += length


class Inotify:
    """Watches a directory for outboxes that are closed after writing, or moved in.

    The kernel also closes the files of a killed process. Raises OSError when the kernel has no
    watch left; the caller then polls.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        # Names of closed files that are not outboxes, from the last call, to count their owners.
        self.others: dict[str, None] = {}
        self.fd = watch(directory, IN_CLOSE_WRITE | IN_MOVED_TO)

    def names(self) -> list[str]:
        """Returns the outboxes that had an event since the last call, each once; never waits.

        It returns the events of one read, about a thousand at most, since a user may cause events
        as fast as they are read. The rest comes with the next call. If the kernel's queue was full
        (IN_Q_OVERFLOW, an event without a name) some are missing: the caller polls too.
        """
        self.others.clear()
        found: dict[str, None] = {}
        suffix = SUFFIX.encode()
        for _mask, name in read_events(self.fd):
            if name.endswith(suffix):
                found[os.fsdecode(name)] = None
            elif len(self.others) < OTHERS_MAX:
                self.others[os.fsdecode(name)] = None
        return list(found)

    def close(self) -> None:
        """Stops watching the directory."""
        os.close(self.fd)
