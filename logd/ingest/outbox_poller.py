"""Reads the outboxes that are ahead of the batch, and finds out which producers have died."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic

from logd.batch import Capacity, Producer
from logd.ingest.interfaces import AnOutbox
from logd.ingest.open_outboxes import OpenOutboxes
from logd.ingest.ordering import Intake
from logd.ingest.outbox_lifecycle import OutboxLifecycle
from logd.ingest.outbox_reader import DamageSkip, read_available
from logd.ingest.place_searches import PlaceSearches
from logd.ingest.scheduling import ReadRequest, schedule
from logd.ingest.step_state import StepState
from logd_wire.wire import WireError

# The most outboxes that a due poll goes through in one step.
POLL_FILES_MAX = 500


@dataclass(eq=False)
class OutboxPoller(Generic[AnOutbox]):
    """Polls the open outboxes; a round through all of them is due every poll interval."""

    outboxes: OpenOutboxes[AnOutbox]
    lifecycle: OutboxLifecycle[AnOutbox]
    searches: PlaceSearches[AnOutbox]
    intake: Intake
    state: StepState
    # The outboxes still to be read in the round under way.
    _round: Iterator[Producer] | None = field(default=None, init=False)
    # Senders may have been turned away: all outboxes are polled, from that moment on.
    queue_was_full: bool = field(default=False, init=False)
    poll_all_due_s: float = field(default=0.0, init=False)

    @property
    def in_round(self) -> bool:
        """Whether the round of a due poll has outboxes left."""
        return self._round is not None

    def poll(self, *, due: bool, closed: set[Producer], check_wakeups: bool) -> None:
        """Reads the outboxes that are ahead of the batch, as the batch has capacity.

        `due` begins a round through all of them, which asks whether their producers are alive; of
        those that were `closed` that is asked at once. `check_wakeups` includes the producers whose
        wake-ups are suppressed.
        """
        outboxes, state = self.outboxes, self.state
        began_s = state.monotonic_s()
        in_round = self._next_of_round(due=due)
        poll_all = self.queue_was_full and began_s >= self.poll_all_due_s
        suppressed: Container[Producer] = outboxes.wakeups if check_wakeups else ()
        requests = self._requests(began_s, in_round, closed, suppressed, poll_all=poll_all)
        if poll_all:
            # Half of the time at most: ten small datagrams cost less than polling all outboxes.
            ended_s = state.monotonic_s()
            self.queue_was_full, self.poll_all_due_s = False, ended_s + (ended_s - began_s)
        shared = outboxes.quota.several_users
        for request, capacity in schedule(requests, state.batch, shared=shared):
            if capacity is None:
                request.producer.behind = state.work_left = True
                continue
            self._serve(request, capacity)
        if outboxes.succession and outboxes.succession.release():
            state.work_left = True

    def _requests(
        self,
        began_s: float,
        in_round: set[Producer],
        closed: set[Producer],
        suppressed: Container[Producer],
        *,
        poll_all: bool,
    ) -> list[ReadRequest[AnOutbox]]:
        """Returns the outboxes that have something to read, or whose producer has died."""
        requests: list[ReadRequest[AnOutbox]] = []
        failed: list[tuple[Producer, AnOutbox, OSError]] = []
        searches = self.outboxes.searches
        asked = in_round | closed
        for producer, outbox in self.outboxes.items():
            if producer in searches:
                if producer in in_round:
                    self.searches.queue(producer)
                continue
            if producer.held:
                continue
            ask = producer in asked
            if not (ask or poll_all or producer.behind or producer in suppressed):
                continue
            # Ask whether it is alive before reading what it has written: what a producer writes
            # last must be seen by the read after it is known to be dead.
            try:
                alive = outbox.alive() if ask or producer.behind else True
                written = outbox.written()
            except OSError as error:
                failed.append((producer, outbox, error))
                continue
            if alive and producer not in in_round and written == producer.taken:
                producer.behind = False
                self.outboxes.wakeups.record_idle_poll(producer, began_s)
                continue
            unread = max(0, written - producer.taken)
            requests.append(ReadRequest(producer, outbox, alive, unread))
        for producer, outbox, problem in failed:
            self.lifecycle.handle_error(producer, outbox, problem)
        return requests

    def _next_of_round(self, *, due: bool) -> set[Producer]:
        """Returns the next part of the round through all outboxes, if one is due or under way."""
        if due and self._round is None:
            self._round = iter(list(self.outboxes))
        part = set(islice(self._round or (), POLL_FILES_MAX))
        if len(part) < POLL_FILES_MAX:
            self._round = None
        else:
            self.state.work_left = True
        return part

    def _serve(self, request: ReadRequest[AnOutbox], capacity: Capacity) -> None:
        producer, outbox = request.producer, request.outbox
        try:
            if outbox.unusable is not None:
                self.lifecycle.end_use(producer, outbox, outbox.unusable, capacity)
            else:
                self.read(producer, outbox, request.alive, capacity)
        except WireError as error:
            self.lifecycle.end_use(producer, outbox, str(error), capacity)
        except OSError as error:
            self.lifecycle.handle_error(producer, outbox, error)

    def read(self, producer: Producer, outbox: AnOutbox, alive: bool, capacity: Capacity) -> None:
        """Reads an outbox into the batch; marks a dead producer as ended once all is read.

        Raises WireError and OSError.
        """
        state, batch = self.state, self.state.batch
        header = outbox.refresh()
        if outbox.confirmed < producer.stored == producer.taken:
            self.lifecycle.confirm(producer)  # which failed for a shortage after the commit
            if producer not in self.outboxes:
                return
        if header.refused != producer.refused:
            producer.refused = header.refused
            batch.touch(producer)
        damage = read_available(producer, header, outbox.read_at, batch, self.intake, capacity)
        if damage is not None:
            state.warn_throttled("%s: %s", outbox.name, damage, user=producer.uid)
            outbox.scans_left -= 1
            if outbox.scans_left >= 0:
                self.searches.start(producer, DamageSkip(producer, header, outbox.read_at))
            else:
                self.lifecycle.end_use(producer, outbox, damage)
            return
        producer.behind = producer.taken < header.written
        if producer.behind:
            state.work_left = True
        elif not alive:
            producer.ended = True
            batch.touch(producer)
