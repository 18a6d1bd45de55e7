"""Two calls of inotify(7), which the standard library lacks: wake up when an outbox is let go."""

from __future__ import annotations

import ctypes
import os
import struct

from shared.outbox_file import SUFFIX

OTHERS_MAX = 8
IN_CLOSE_WRITE = 0x08
IN_MOVED_TO = 0x80
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC
_EVENT = struct.Struct("iIII")


class Inotify:
    """Names of outboxes in one directory that were closed after writing, or moved in.

    A process that is killed closes its files too, its mappings included. Raises OSError when the
    kernel has no watch left to give; the caller does without, on its clock.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        # Of the last call: some files that are no outboxes, so that their owners can be named.
        self.others: dict[str, None] = {}
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if (
            libc.inotify_add_watch(self.fd, os.fsencode(directory), IN_CLOSE_WRITE | IN_MOVED_TO)
            < 0
        ):
            error = ctypes.get_errno()
            os.close(self.fd)
            raise OSError(error, "inotify_add_watch")

    def names(self) -> list[str]:
        """The outboxes something happened to since the last call, each once; never waits.

        Not more than one read gives, a thousand or so: who makes them happen as fast as we read
        must not keep us here. The rest comes with the next call. Where the kernel's queue was full
        (IN_Q_OVERFLOW, an event without a name) some are missing: the caller looks by the clock
        too.
        """
        self.others.clear()
        try:
            data = os.read(self.fd, 64 * 1024)
        except BlockingIOError:
            return []
        found: dict[str, None] = {}
        offset, suffix = 0, SUFFIX.encode()
        while offset < len(data):
            _watch, _mask, _cookie, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = data[offset : offset + length].rstrip(b"\0")
            if name.endswith(suffix):
                found[os.fsdecode(name)] = None
            elif len(self.others) < OTHERS_MAX:
                self.others[os.fsdecode(name)] = None
            offset += length
        return list(found)

    def close(self) -> None:
        """Ends the watch."""
        os.close(self.fd)
