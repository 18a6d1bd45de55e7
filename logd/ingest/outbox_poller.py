"""Reads outboxes that hold events not yet in the batch, and finds producers that have died."""

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

# The most outboxes that one step polls in a round through all of them.
POLL_FILES_MAX = 500


@dataclass(eq=False)
class OutboxPoller(Generic[AnOutbox]):
    """Polls the open outboxes; a round through all of them is due every poll interval."""

    outboxes: OpenOutboxes[AnOutbox]
    lifecycle: OutboxLifecycle[AnOutbox]
    searches: PlaceSearches[AnOutbox]
    intake: Intake
    state: StepState
    # The outboxes left in the current round.
    _round: Iterator[Producer] | None = field(default=None, init=False)
    # Whether the kernel's queue may have been full and refused senders:
    # then all outboxes are polled at `poll_all_due_s`.
    queue_was_full: bool = field(default=False, init=False)
    poll_all_due_s: float = field(default=0.0, init=False)

    @property
    def in_round(self) -> bool:
        """Whether the current round through all outboxes has some left."""
        return self._round is not None

    def poll(self, *, due: bool, closed: set[Producer], check_wakeups: bool) -> None:
        """Reads outboxes that hold events not yet in the batch, up to the batch's capacity.

        `due` begins a round through all outboxes, which also checks whether their producers are
        alive; for `closed` ones that is checked at once. `check_wakeups` includes the producers
        whose wake-ups are suppressed.
        """
        outboxes, state = self.outboxes, self.state
        began_s = state.monotonic_s()
        in_round = self._next_of_round(due=due)
        poll_all = self.queue_was_full and began_s >= self.poll_all_due_s
        suppressed: Container[Producer] = outboxes.wakeups if check_wakeups else ()
        requests = self._requests(began_s, in_round, closed, suppressed, poll_all=poll_all)
        if poll_all:
            # Polling all outboxes takes longer than ten small datagrams,
            # so it gets half of the time.
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
        """Returns the outboxes to be read: with new events, or of a dead producer."""
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
            # Check the lock before reading `written`:
            # once the producer is known to be dead, the number read is its last one.
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
        """Returns the next outboxes of the round through all, if a round is due or under way."""
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
        """Reads an outbox into the batch; marks a dead producer as ended when everything is read.

        Raises WireError and OSError.
        """
        state, batch = self.state, self.state.batch
        header = outbox.refresh()
        if outbox.confirmed < producer.stored == producer.taken:
            # The confirmation after the commit failed for lack of memory or descriptors: repeat it.
            self.lifecycle.confirm(producer)
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
