"""Ends a client at `close` or at process exit, and reports events that it refuses after that."""

from __future__ import annotations

from dataclasses import dataclass

from logd_client.clock import Clock
from logd_client.guard import Guard
from logd_client.producer import Producer
from logd_client.refusals import LOG_INTERVAL_S
from logd_client.session import ProducerSession
from logd_client.succession import ProducerSuccession
from logd_client.tracker import DurableTracker
from logd_wire.forks import Forked


@dataclass(eq=False)
class Shutdown:
    """Writes and sends farewells when a client closes or its process exits.

    `ending`: the process is exiting, so refusal reports are not rate-limited.
    """

    producers: ProducerSuccession
    session: ProducerSession
    tracker: DurableTracker
    guard: Guard
    clock: Clock

    def __post_init__(self) -> None:
        self.reset(forked=True)

    def reset(self, forked: bool) -> None:
        """Resets the shutdown to its state in a new client."""
        if forked:
            self.ending = False
        self._report_due_s = 0.0

    @property
    def is_needed(self) -> bool:
        """Whether there are producers that must be ended."""
        return self.producers.current is not None or self.producers.former.any

    def close(self) -> None:
        """Closes the client; inside another call of the same thread, after that call."""
        self.guard.run(self._close)

    def _close(self, nested: bool) -> None:
        if nested:
            self.guard.defer(self.close)
            return
        producers = self.producers
        if producers.current is not None:
            try:
                self.tracker.record_pending_outcomes()
            finally:
                producers.closed = True
        producers.closed = True
        self.session.catch_up()
        # The producers are read before the clock,
        # since a child that is forked while the clock is read has others.
        producer, former, now_s = producers.current, producers.former, self.clock.monotonic_s()
        if producer is not None:
            former.add(producer, now_s)
            producers.current = None
            self._end_numbers(producer)
        former.close_all(now_s)

    def _end_numbers(self, producer: Producer) -> None:
        """Writes or sends the producer's farewell, and reports refusals with it."""
        refusals = self.producers.refusals
        counted = dict(refusals.by_cause)  # a copy, since a signal handler may add a cause
        unreported = refusals.unreported(counted)
        if producer.outbox is not None:
            producer.outbox.writer.farewell()
        elif not ((producer.sequence_sent or unreported) and producer.send_farewell(unreported)):
            return
        refusals.end_report(counted)

    def end_process(self) -> None:
        """Sends the farewell at process exit, and leaves the client open.

        Exit handlers that were registered before, destructors and threads may still emit.
        """
        self.guard.run(self._end_process)

    def _end_process(self, nested: bool) -> None:
        if nested:
            self.guard.defer(self.end_process)
            return
        producers = self.producers
        self.ending = True
        if producers.closed:
            self.guard.defer(self.report_refusals)
            return
        self.tracker.record_resolved_at_end()
        producer = producers.current
        if producer is None:
            return
        if producer.outbox is not None:
            # Emits may follow in this outbox: the farewell word means "last"
            # only once the process's lock is gone (PROTOCOL.md, "Ending").
            producer.outbox.writer.farewell()
        else:
            # Without an outbox the farewell ends the sequence,
            # so a later event gets a new producer.
            producers.former.add(producer, self.clock.monotonic_s())
            producers.current = None
            self._end_numbers(producer)

    def report_refusals(self) -> None:
        """Reports refusals counted after the last producer ended. Raises nothing."""
        try:
            self.guard.run(self._report_refusals)
        except Exception as error:  # noqa: BLE001 - as in `Emitter.accept`; retried at the next one
            self.guard.warn("what a closed client refuses could not be reported: %r", error)

    def _report_refusals(self, nested: bool) -> None:
        """Reports refusals by a farewell, unless the current producer's outbox reports them.

        If there is no producer, it makes one to send the farewell: at once at process exit,
        otherwise at a limited rate.
        """
        producers = self.producers
        producer, now_s = producers.current, self.clock.monotonic_s()
        unreported = producers.refusals.unreported(dict(producers.refusals.by_cause))
        if nested or not unreported or (producer and producer.outbox):
            return
        if now_s < self._report_due_s and not self.ending:
            return
        self._report_due_s = now_s + LOG_INTERVAL_S
        if producer is None:
            producer = producers.make()
            if not producer.mark[0]:
                raise Forked
            producers.refusals.report_all(producer)
        producers.former.add(producer, now_s)
        producers.current = None
        self._end_numbers(producer)
        producers.former.close_finished(now_s, None)
