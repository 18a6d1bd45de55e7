"""The outboxes that the daemon has open, kept consistent with the state about each of them."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Generic

from logd.batch import Producer
from logd.ingest.interfaces import AnOutbox
from logd.ingest.outbox_reader import DamageSkip, NextRecordSearch
from logd.ingest.scheduling import OpenFileQuota
from logd.ingest.step_state import StepState
from logd.ingest.succession import Succession
from logd.ingest.wakeups import Wakeups


class OpenOutboxes(Generic[AnOutbox]):
    """Open outboxes by producer, with file quota, wake-up suppression, searches and succession.

    `searches` has the producers whose next record's place in the ring is not known yet; their
    outboxes are neither read nor confirmed.
    """

    def __init__(self, quota: OpenFileQuota, wakeups: Wakeups, state: StepState) -> None:
        self.quota = quota
        self.wakeups = wakeups
        self.searches: dict[Producer, NextRecordSearch | DamageSkip] = {}
        self._state = state
        self._open: dict[Producer, AnOutbox] = {}
        self.succession = Succession(self._open)

    def add(self, producer: Producer, outbox: AnOutbox) -> None:
        """Adds an open outbox, with the wake-up suppression that its header announces."""
        self._open[producer] = outbox
        self.wakeups.inherit(producer, outbox.header.watched_until_ns, self._state.monotonic_s())
        self.quota.add(producer.uid)

    def take_out(self, producer: Producer) -> AnOutbox | None:
        """Stops using a producer's outbox; the caller closes, removes or keeps it."""
        outbox = self._open.pop(producer, None)
        self.searches.pop(producer, None)
        self.succession.drop(producer)
        if outbox is not None:
            self.wakeups.end(producer)
            # If the producer is alive after all, it must send datagrams again.
            self._state.attempt(lambda one: one.resume_wakeups(), outbox)
            self.quota.drop(producer.uid)
        return outbox

    def release_all(self) -> list[AnOutbox]:
        """Forgets all outboxes and returns them; the caller closes them."""
        released = list(self._open.values())
        self._open.clear()
        return released

    def get(self, producer: Producer) -> AnOutbox | None:
        return self._open.get(producer)

    def items(self) -> ItemsView[Producer, AnOutbox]:
        return self._open.items()

    def keys(self) -> KeysView[Producer]:
        return self._open.keys()

    def values(self) -> ValuesView[AnOutbox]:
        return self._open.values()

    def __contains__(self, producer: object) -> bool:
        return producer in self._open

    def __iter__(self) -> Iterator[Producer]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)
