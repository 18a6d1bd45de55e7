"""Confirms open outboxes, retires those of ended producers, gives up damaged ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Generic

from logd.batch import LOST_CLAIMED, LOST_DAMAGED, Batch, Capacity, Producer
from logd.errors import is_shortage
from logd.ingest.interfaces import AnOutbox, Directory
from logd.ingest.open_outboxes import OpenOutboxes
from logd.ingest.ordering import Intake
from logd.ingest.outbox_reader import NextRecordSearch, ring_events_max
from logd.ingest.salvage import begin_salvage, read_rest
from logd.ingest.step_state import StepState


@dataclass(eq=False)
class OutboxLifecycle(Generic[AnOutbox]):
    """Confirms outboxes, and ends their use."""

    directory: Directory[AnOutbox]
    outboxes: OpenOutboxes[AnOutbox]
    intake: Intake
    state: StepState
    # Given-up outboxes, which are removed after the commit that records their loss.
    given_up: dict[Producer, AnOutbox] = field(default_factory=dict, init=False)

    def finish_commit(self, batch: Batch) -> None:
        """Confirms what a commit has stored, retires ended producers, removes given-up outboxes."""
        given_up, self.given_up = self.given_up, {}
        for producer in batch.producers:
            self.confirm(producer)
            if producer.ended:
                self.retire(producer)
        for producer, outbox in given_up.items():
            self._remove_given_up(producer, outbox)

    def confirm(self, producer: Producer) -> None:
        """Writes the committed sequence into the producer's outbox."""
        outboxes, state = self.outboxes, self.state
        outbox = outboxes.get(producer)
        if outbox is None or producer in outboxes.searches:
            return
        now_s = state.monotonic_s()
        until_ns = outboxes.wakeups.suppress(producer, now_s, now_s - state.now_s)
        try:
            outbox.confirm(producer.stored, producer.position, until_ns)
        except OSError as error:
            if not producer.ended:  # an error matters only if the producer still reads the word
                self.handle_error(producer, outbox, error)

    def retire(self, producer: Producer) -> None:
        """Retires a producer whose end is committed, and removes its outbox."""
        outbox = self.outboxes.get(producer)
        if outbox is not None:
            if not self._is_retired(outbox):
                producer.ended, producer.behind = False, True
                return
            self.outboxes.take_out(producer)
            self.state.attempt(self.directory.remove, outbox)
        self.intake.drop(producer)

    def _is_retired(self, outbox: AnOutbox) -> bool:
        """Marks an outbox as retired; False if its process, alive without a lock, wrote more."""
        try:
            outbox.resume_wakeups()  # the producer sends datagrams again, and checks the mark
            return outbox.retire()
        except OSError as error:
            return not is_shortage(error)  # an outbox that cannot be written to is removed anyway

    def handle_error(self, producer: Producer, outbox: AnOutbox, error: OSError) -> None:
        """Handles an OSError of an outbox: retries later after a shortage, else gives it up."""
        if is_shortage(error):
            producer.behind = True
            self.state.warn_throttled("%s: cannot be used now: %s", outbox.name, error.strerror)
            return
        self.end_use(producer, outbox, f"system error: {error.strerror}")

    def end_use(
        self, producer: Producer, outbox: AnOutbox, reason: str, capacity: Capacity | None = None
    ) -> None:
        """Stores what is still readable in an outbox, then gives it up, now or in a later step."""
        begin_salvage(producer, outbox, reason)
        batch = self.state.batch
        if producer not in self.outboxes.searches and read_rest(
            producer, outbox, batch, self.intake, capacity or batch.capacity()
        ):
            producer.behind = self.state.work_left = True
        else:
            self.give_up(producer, outbox, reason)

    def give_up(self, producer: Producer, outbox: AnOutbox, reason: str) -> None:
        """Records the unreadable rest of an outbox as lost, and schedules its removal."""
        state, batch = self.state, self.state.batch
        state.warn_throttled("%s: given up: %s", outbox.name, reason, user=producer.uid)
        header = outbox.header
        # Later events, up to a ring's capacity, are recorded when the outbox is removed.
        outbox.header = replace(header, written=max(header.written, producer.taken))
        if header.written > producer.taken:
            plausible = header.written - producer.taken <= ring_events_max(header)
            last = header.written if plausible else None
            # Until the next record's place is found, only the header reports any events.
            placing = isinstance(self.outboxes.searches.get(producer), NextRecordSearch)
            cause = LOST_CLAIMED if placing else LOST_DAMAGED
            batch.add_loss(producer, producer.taken + 1, last, cause)
            producer.taken = last or producer.taken
        batch.add_quarantine(
            producer.uid, producer.pid, f"outbox: {reason}", outbox.name.encode(), producer
        )
        producer.has_outbox = producer.behind = False
        self.outboxes.take_out(producer)
        self.given_up[producer] = outbox

    def _remove_given_up(self, producer: Producer, outbox: AnOutbox) -> None:
        """Removes a given-up outbox after its loss is committed, so that a living producer notices.

        What the producer has written since is recorded first, up to what its ring can hold.
        """
        batch = self.state.batch
        try:
            written = outbox.written()
        except OSError as error:
            if is_shortage(error):
                batch.touch(producer)
                self.given_up[producer] = outbox
                return
            written = producer.taken
            batch.add_loss(producer, producer.taken + 1, None, LOST_DAMAGED)
        if producer.taken < written <= outbox.header.written + ring_events_max(outbox.header):
            batch.add_loss(producer, producer.taken + 1, written, LOST_DAMAGED)
            producer.taken = written
            self.given_up[producer] = outbox
        else:
            self.state.attempt(self.directory.remove, outbox)
