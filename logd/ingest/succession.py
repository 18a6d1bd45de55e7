"""Which outboxes wait for the one that they follow, so that a process's events stay in order. Pure.

A producer continues in another outbox when its ring is full (a larger one follows) or lost. What it
wrote to the former one was written before, and is often still unread when the first event of the
next one arrives. The header of the next one names the former producer (shared/PROTOCOL.md, word 6);
it is read when the former one is, as far as that was written when the next one was opened.

The header is a stranger's word, so the wait is for a number of events that is fixed when it begins,
of the same user, in an outbox that is open: the daemon reads those in any case. Whatever becomes of
that outbox ends the wait; nothing is lost by it but, at worst, the order of two producers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from logd.batch import Producer

T = TypeVar("T")


class Succession(Generic[T]):
    """The producers that are held. `outboxes` are those that are open, by producer."""

    def __init__(self, outboxes: Mapping[Producer, T]) -> None:
        self._outboxes = outboxes
        # The predecessor, its outbox as it was then opened, and up to which event it is read first.
        # An outbox only waits for one that was opened before it: there are no cycles.
        self._held: dict[Producer, tuple[Producer, T, int]] = {}

    def hold(self, successor: Producer, predecessor: Producer, written: int) -> None:
        """`successor` waits until all that `predecessor` has written by now is in a batch."""
        outbox = self._outboxes.get(predecessor)
        if outbox is None or predecessor is successor or predecessor.taken >= written:
            return
        self._held[successor] = (predecessor, outbox, written)
        successor.held = successor.behind = predecessor.behind = True

    def release(self) -> bool:
        """Ends the waits that are over; whether any was."""
        over = [
            successor
            for successor, (predecessor, outbox, written) in self._held.items()
            if predecessor.taken >= written or self._outboxes.get(predecessor) is not outbox
        ]
        for successor in over:
            self.drop(successor)
        return bool(over)

    def drop(self, successor: Producer) -> None:
        """It waits no longer."""
        if self._held.pop(successor, None) is not None:
            successor.held = False

    def __bool__(self) -> bool:
        return bool(self._held)
