"""Searches for the next record's place in outboxes, in slices that are tasks of their users."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Generic

from logd.batch import Producer
from logd.ingest.interfaces import AnOutbox
from logd.ingest.open_outboxes import OpenOutboxes
from logd.ingest.outbox_lifecycle import OutboxLifecycle
from logd.ingest.outbox_reader import DamageSkip, NextRecordSearch
from logd.ingest.step_state import StepState
from logd.ingest.user_tasks import UserTasks
from logd_wire.wire import WireError


@dataclass(eq=False)
class PlaceSearches(Generic[AnOutbox]):
    """Searches in open outboxes; a slice reads `slice_bytes`."""

    outboxes: OpenOutboxes[AnOutbox]
    lifecycle: OutboxLifecycle[AnOutbox]
    tasks: UserTasks
    state: StepState
    slice_bytes: int

    def start(self, producer: Producer, search: NextRecordSearch | DamageSkip) -> None:
        """Begins a search for the next record in the producer's ring."""
        self.outboxes.searches[producer] = search
        self.queue(producer)

    def queue(self, producer: Producer) -> None:
        """Queues the next slice of the search in the producer's ring."""
        self.tasks.add(producer.uid, producer, partial(self._run_slice, producer))

    def _run_slice(self, producer: Producer) -> bool:
        search, outbox = self.outboxes.searches.get(producer), self.outboxes.get(producer)
        if search is None or outbox is None:
            return True
        try:
            done = search.step(self.state.batch, self.slice_bytes)
        except WireError as error:
            self.lifecycle.end_use(producer, outbox, str(error))
            return True
        except OSError as error:
            self.lifecycle.handle_error(producer, outbox, error)
            return True  # the next poll queues the search again, unless the outbox is given up
        if done:
            self.finish(producer)
        return done

    def finish(self, producer: Producer) -> None:
        """Ends a search, so that the outbox is read from the place that was found."""
        del self.outboxes.searches[producer]
        producer.behind = True
        if producer.taken == producer.stored:
            # An earlier daemon committed the events and was killed before it confirmed them.
            self.lifecycle.confirm(producer)
