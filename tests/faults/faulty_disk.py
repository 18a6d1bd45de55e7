"""A disk that fails on demand, and a wall clock that jumps, for one process: see faulty_disk.c.

disk = FaultyDisk(directory)
instance.start(env=disk.env)
disk.fail_flushes(errno.EIO, after=3)
"""

from __future__ import annotations

import contextlib
import errno
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.slow_flush import NoCompiler, build

EVERY = -1
_SOURCE = Path(__file__).with_name("faulty_disk.c")
_NAMES_AT = 512
(
    _FLUSH_DELAY_MS, _FLUSH_ERRNO, _FLUSH_SKIP, _FLUSH_TIMES, _FLUSHES, _FLUSHES_FAILED,
    _WRITE_ERRNO, _WRITE_SKIP, _WRITE_TIMES, _WRITES, _WRITES_FAILED, _CLOCK_OFFSET_S,
) = range(12)  # fmt: skip


@contextlib.contextmanager
def faulty_disk(directory: Path, *names: str) -> Iterator[FaultyDisk]:
    """A faulty disk for a `with` block; skips the test if there is no compiler."""
    try:
        disk = FaultyDisk(directory, *names)
    except NoCompiler as reason:
        pytest.skip(f"the shim that makes a disk fail cannot be built: {reason}")
    try:
        yield disk
    finally:
        disk.close()


class FaultyDisk:
    """Controls processes started with `env`, while they run. Raises NoCompiler.

    Concerned are the files whose paths end in one of `names`.
    """

    def __init__(self, directory: Path, *names: str) -> None:
        library = build(_SOURCE, directory)
        control = directory / "faulty_disk.control"
        control.write_bytes(bytes(mmap.PAGESIZE))
        with open(control, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("q")
        self.env = {"LD_PRELOAD": str(library), "FAULTY_DISK": str(control)}
        self.concern(*(names or ("/activity.db", "/activity.db-wal")))

    def concern(self, *names: str) -> None:
        """Limits the faults to files whose paths end with the given names."""
        text = "\n".join(names).encode()
        self._map[_NAMES_AT:] = text.ljust(mmap.PAGESIZE - _NAMES_AT, b"\0")

    def slow_flushes(self, delay_ms: int) -> None:
        """Delays each flush by this much; 0 ends it."""
        self._words[_FLUSH_DELAY_MS] = delay_ms

    def fail_flushes(self, error: int = errno.EIO, *, after: int = 0, times: int = EVERY) -> None:
        """Makes flushes fail: a number of times, after a number that succeed."""
        self._fail(_FLUSH_ERRNO, error, after, times)

    def fail_writes(self, error: int = errno.EIO, *, after: int = 0, times: int = EVERY) -> None:
        """Makes writes fail: a number of times, after a number that succeed."""
        self._fail(_WRITE_ERRNO, error, after, times)

    def _fail(self, at: int, error: int, after: int, times: int) -> None:
        self._words[at] = 0
        self._words[at + 1], self._words[at + 2], self._words[at] = after, times, error

    def heal(self) -> None:
        """Ends all faults; the clock keeps its offset."""
        self._words[_FLUSH_ERRNO] = self._words[_WRITE_ERRNO] = self._words[_FLUSH_DELAY_MS] = 0

    def move_clock(self, offset_s: int) -> None:
        """Sets the offset of the wall clock from the machine's, in seconds."""
        self._words[_CLOCK_OFFSET_S] = offset_s

    @property
    def flushes(self) -> int:
        """Flushes requested so far."""
        return self._words[_FLUSHES]

    @property
    def flushes_failed(self) -> int:
        """Flushes that failed so far."""
        return self._words[_FLUSHES_FAILED]

    @property
    def writes_failed(self) -> int:
        """Writes that failed so far."""
        return self._words[_WRITES_FAILED]

    def close(self) -> None:
        """Unmaps the control page."""
        self._words.release()
        self._map.close()
