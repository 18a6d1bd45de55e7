"""Detects that this process is a fork of the one an object was made in, however it was forked.

Python's at-fork hooks run only for a fork that Python makes: uWSGI, `fork()` called by a C library
and embedders do not run them. So the kernel keeps the mark: a page of memory that reads as zeros in
any child (MADV_WIPEONFORK, madvise(2)). Reading it costs 25 ns, where `os.getpid` takes 50 to 220.

A signal handler may fork while its thread is anywhere inside this package, and both processes
continue from there. Code that a child must not continue checks the mark right before, without a
call in between: Python runs signal handlers only when a call returns or a loop repeats.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from typing import Any, Protocol

_MADV_WIPEONFORK = 18  # a constant of <linux/mman.h>, known since Linux 4.14
_PAUSE_S = 0.0005


class Forked(BaseException):
    """This is a child, forked in the middle of an operation that only the parent may finish.

    Not an Exception, so that no handler for errors catches it.
    """


class Mark(Protocol):
    """`mark[0]` is true in the process that made it, false in every fork of that process."""

    def __getitem__(self, index: int, /) -> int: ...


class _PidMark:
    """A mark that compares process ids, for a kernel without MADV_WIPEONFORK."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, _index: int, /) -> int:
        return int(os.getpid() == self._pid)


def _new_mark() -> Mark:
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_MADV_WIPEONFORK)
    except OSError:
        return _PidMark()
    page[0] = 1
    return page


def is_owned(lock: threading.RLock) -> bool:
    """Whether the calling thread holds the lock."""
    # `threading.Condition` uses this method of RLock too; the type stubs lack it.
    owned: Any = lock
    return bool(owned._is_owned())


class Generation:
    """A process between two forks: its mark, and a lock that no thread of a parent holds."""

    def __init__(self) -> None:
        self.mark = _new_mark()
        self.lock = threading.RLock()
        self.busy = False  # whether a thread holds the lock
        # The generation of a child of this process, made by the child's first thread that needs it.
        self._child: dict[str, Generation] = {}

    def must_wait(self) -> bool:
        """Sleeps for a moment; returns False if this thread or a parent process holds the lock."""
        if not self.mark[0] or is_owned(self.lock):
            return False
        time.sleep(_PAUSE_S)
        return True

    def child(self) -> Generation:
        """Returns the generation of this child process, in which the parent's mark is wiped.

        All threads of the child get the same one.
        """
        return self._child.setdefault("child", Generation())


_current = Generation()


def current() -> Generation:
    """Returns this process's generation; a new one in a child that Python did not fork."""
    global _current
    generation = _current
    # Several steps are needed if the process was forked while its parent ran this loop.
    while not generation.mark[0]:
        generation = generation.child()
    _current = generation
    return generation
