"""Counters in a page of memory that outlives the process that counts."""

from __future__ import annotations

import mmap
import os
import tempfile


class CounterFile:
    """512 words in a file, as the test sees them; the counting process uses `attach`."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="logd-count-")  # noqa: SIM115 - kept open
        self._file.truncate(mmap.PAGESIZE)
        self._last: list[int] | None = None  # of a closed file
        self.path: str = self._file.name

    def words(self) -> list[int]:
        """All counters as they are now, or as they were at `close`."""
        if self._last is not None:
            return self._last
        data = os.pread(self._file.fileno(), mmap.PAGESIZE, 0)
        words: list[int] = memoryview(data).cast("Q").tolist()
        return words

    def set(self, index: int) -> None:
        """Sets a word to 1."""
        os.pwrite(self._file.fileno(), b"\1", index * 8)

    def close(self) -> None:
        """Removes the file; the counters can still be read."""
        if self._last is None:
            self._last = self.words()
            self._file.close()


def attach(path: str) -> memoryview:
    """The words of a `CounterFile`, mapped, so that the test sees each store at once."""
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
