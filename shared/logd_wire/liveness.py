"""Determines whether a producer lives, by the POSIX record lock that it holds on its outbox file.

The kernel releases record locks when the process ends, however it ends; a forked child does not
inherit them, and a reader can test for them (F_GETLK) without taking them. `flock` can do none of
this. Closing any descriptor of the file drops its record locks, so a producer opens the file once
and keeps that descriptor.
"""

from __future__ import annotations

import fcntl
import os
import struct

from logd_wire.forks import Forked, Mark

# struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (fcntl(2)).
_FLOCK = struct.Struct("hhqqi4x")


def acquire(fd: int, mark: Mark = (1,)) -> bool:
    """Locks the whole file for this process; False when another process has locked it.

    Raises Forked in a child of the process that `mark` belongs to, which would take over the
    parent's file.
    """
    if not mark[0]:
        raise Forked
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_running(pid: int) -> bool:
    """Whether a process with this id exists, as far as this process can see."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return pid > 0  # kill(0, 0) tests this process's own group


def lock_holder(fd: int) -> int | None:
    """Returns the pid of the process that holds the lock, or None. Does not take the lock."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, asked)
    lock_type, _whence, _start, _length, pid = _FLOCK.unpack(answer)
    return None if lock_type == fcntl.F_UNLCK else int(pid)
