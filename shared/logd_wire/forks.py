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

_MADV_WIPEONFORK = 18  # <linux/mman.h>; since Linux 4.14
_PAUSE_S = 0.0005


class Forked(BaseException):
    """This is a child, forked in the middle of an operation that only the parent may finish.

    Not an Exception, so that no handler for errors catches it.
    """


class Mark(Protocol):
    """`mark[0]` is true in the process that made it, false in every fork of that process."""

    def __getitem__(self, index: int, /) -> int: ...


class _PidMark:
    """Compares the process id, for a kernel that cannot wipe a page."""

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
    # As `threading.Condition` does; the type stubs lack it.
    owned: Any = lock
    return bool(owned._is_owned())


class Generation:
    """One process between two forks: its mark, and a lock that no parent's thread can hold."""

    def __init__(self) -> None:
        self.mark = _new_mark()
        self.lock = threading.RLock()
        self.busy = False  # whether a thread holds that lock
        # The generation of a child of this process, made by the first of its threads that asks.
        self._child: dict[str, Generation] = {}

    def must_wait(self) -> bool:
        """Sleeps for a moment; returns False if the lock's holder is this thread, or a parent's."""
        if not self.mark[0] or is_owned(self.lock):
            return False
        time.sleep(_PAUSE_S)
        return True

    def child(self) -> Generation:
        """Returns the generation of the child in which this mark is wiped; one for all threads."""
        return self._child.setdefault("child", Generation())


_current = Generation()


def current() -> Generation:
    """Returns this process's generation; a new one in a child that Python has not forked."""
    global _current
    generation = _current
    # More than one step for a process forked while its parent was in the middle of this loop.
    while not generation.mark[0]:
        generation = generation.child()
    _current = generation
    return generation
