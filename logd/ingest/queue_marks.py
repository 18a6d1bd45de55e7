"""Determines when everything that was in the kernel's queue at some time is committed. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Used if the length of a socket's queue is unknown: more than any kernel is set to.
QUEUE_DATAGRAMS_MAX = 65_536


@dataclass(eq=False)
class QueueMark:
    """A moment, with the number of datagrams queued before it that may still be unread."""

    unread: int
    committed: bool = False


class QueueMarks:
    """The marks that are not committed yet. The first mark is the start of this process."""

    def __init__(self) -> None:
        self.start = QueueMark(QUEUE_DATAGRAMS_MAX)
        self._marks = [self.start]

    def add(self, queue_max: int) -> Callable[[], bool]:
        """Returns a check that is true once everything now in the kernel's queue is committed.

        The queue is in order and holds `queue_max` datagrams at most. Once it was empty, or that
        many have been taken, those that are in it now have been taken.
        """
        mark = QueueMark(queue_max)
        self._marks.append(mark)
        return lambda: mark.committed

    def record_taken(self, taken: int, *, emptied: bool) -> None:
        """Records that datagrams were taken from the queue, and whether that emptied it."""
        for mark in self._marks:
            mark.unread = 0 if emptied else mark.unread - taken

    def record_commit(self, *, batch_empty: bool) -> None:
        """After a commit: if the batch is empty, marks without unread datagrams are committed."""
        for mark in self._marks:
            mark.committed = mark.unread <= 0 and batch_empty
        self._marks = [mark for mark in self._marks if not mark.committed]

    def __bool__(self) -> bool:
        return bool(self._marks)
