"""Holds a producer's outbox back until the one that it follows is read, to keep order. Pure.

A process continues in another outbox when its ring is full (a larger one follows) or lost. What it
wrote to the former one was written earlier, and is often still unread when the first event of the
next one arrives. The header of the next one names the former producer (shared/PROTOCOL.md, word 6);
that next outbox is read once the former one has been read up to its end at the opening of the
next.

The header is not trusted: the wait is for a fixed number of events of the same user, in an outbox
that is open, which the daemon reads in any case. If that outbox is closed or given up, the wait
ends; at worst, the order of two producers is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from logd.batch import Producer

T = TypeVar("T")


class Succession(Generic[T]):
    """The producers that are held back. `outboxes` has the open outboxes, by producer."""

    def __init__(self, outboxes: Mapping[Producer, T]) -> None:
        self._outboxes = outboxes
        # By held producer: its predecessor, the outbox of that one when it was opened,
        # and the sequence up to which that is read first.
        # An outbox waits only for one opened earlier, so there is no cycle.
        self._held: dict[Producer, tuple[Producer, T, int]] = {}

    def hold(self, successor: Producer, predecessor: Producer, written: int) -> None:
        """Holds `successor` back until the predecessor's events up to `written` are in a batch."""
        outbox = self._outboxes.get(predecessor)
        if outbox is None or predecessor is successor or predecessor.taken >= written:
            return
        self._held[successor] = (predecessor, outbox, written)
        successor.held = successor.behind = predecessor.behind = True

    def release(self) -> bool:
        """Releases the producers whose wait is over; returns whether there were any."""
        over = [
            successor
            for successor, (predecessor, outbox, written) in self._held.items()
            if predecessor.taken >= written or self._outboxes.get(predecessor) is not outbox
        ]
        for successor in over:
            self.drop(successor)
        return bool(over)

    def drop(self, successor: Producer) -> None:
        """Ends the wait of one producer, if it is held back."""
        if self._held.pop(successor, None) is not None:
            successor.held = False

    def __bool__(self) -> bool:
        return bool(self._held)
