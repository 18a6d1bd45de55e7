"""Writes packed events to a process's producer: into its outbox, and as a datagram.

The record is written to the outbox, then its sequence to the outbox's header: from then on the
event is accepted. The same bytes are sent once, unless the daemon polls the outbox already.
Nothing is sent again: the daemon reads from the outbox what it missed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from logd_client.clock import Clock
from logd_client.former_producers import Former
from logd_client.payload import event_payload
from logd_client.producer import Producer
from logd_client.succession import ProducerSuccession
from logd_wire.causes import why_full
from logd_wire.outbox.layout import REFUSED_CLOSED, REFUSED_FULL, REFUSED_UNDELIVERED
from logd_wire.wire import encode_record


class ProducerSession:
    """Writes events to the current producer, and rewrites those that a retired outbox still held.

    Called under the client's guard. `attempt` is the producer in which the caller's own event, or a
    note about an earlier one, is being given a sequence.
    """

    def __init__(self, producers: ProducerSuccession, clock: Clock) -> None:
        self._producers = producers
        self._time_ns = clock.time_ns
        self._monotonic_s = clock.monotonic_s
        self._monotonic_ns = clock.monotonic_ns
        self.reset(forked=True)

    def reset(self, forked: bool) -> None:  # noqa: ARG002 - as in every part
        """Resets the session to no write in progress."""
        self.attempt: Producer | None = None
        self._step: Callable[[], None] | None = None

    def write(self, producer: Producer, payload: bytes, awaited: bool) -> int:
        """Writes and sends a packed event; returns its sequence, or 0 if the ring is full."""
        producers = self._producers
        if producer.sends and not producers.is_intact(producer):
            producer = producers.replace_lost(producer)
        outbox = producer.outbox
        if outbox is None:
            if self._monotonic_s() >= producer.retry_outbox_after_s:
                producer = producers.retry_outbox(producer)
                outbox = producer.outbox
            if outbox is None:
                return self._send_only(producer, payload, awaited)
        writer = outbox.writer
        writer.attempted = 0
        self.attempt = producer
        # `sends` is set first: if this call is interrupted, the next write checks first
        # whether the outbox is retired, so that at most one event is left unread in it.
        sent, producer.sends = producer.sends, True
        record = writer.append(payload)
        if record is None:
            # If the outbox file was removed, no daemon reads it, and its ring stays full.
            lost = not producer.intact or outbox.removed()
            successor = (
                producers.replace_lost(producer) if lost else producers.grow(producer, writer)
            )
            return 0 if successor is None else self.write(successor, payload, awaited)
        sequence = writer.attempted
        if not awaited and writer.suppresses_wakeups(self._monotonic_ns()):
            producer.sends = False
            return sequence
        # If the last event was not sent, the outbox was
        # not checked before this write either: do it now.
        lost = writer.left_by_daemon if sent else not producers.is_intact(producer)
        if lost:
            # The event is not sent in either case: the daemon reads it in the outbox,
            # or has retired the outbox unread and the event is written again.
            # A datagram could arrive after that and be stored twice.
            successor = producers.replace_lost(producer)
            former = producers.former.of(producer)
            if former is None or former.unread() is None:
                return sequence
            former.mark_moved()
            return self.write(successor, payload, awaited)
        producer.send((producer.head_awaited if awaited else producer.head) + record)
        return sequence

    def _send_only(self, producer: Producer, payload: bytes, awaited: bool) -> int:
        """Sends an event of a producer without an outbox; returns its sequence, 0 if refused.

        It is accepted, and uses up a sequence, only if the kernel takes the datagram.
        """
        # The sequence is used up before the send. If a signal handler raises after the send,
        # no second event gets the same sequence, which the daemon would drop as a duplicate.
        producer.sequence_tried = 0
        self.attempt = producer
        producer.sends = True
        producer.sequence_sent = producer.sequence_tried = sequence = producer.sequence_sent + 1
        head = producer.head_awaited if awaited else producer.head
        if not producer.send(head + encode_record(producer.seed, sequence, payload)):
            producer.sequence_sent = sequence - 1
            return 0
        return sequence

    def accepted_sequence(self) -> int:
        """Returns the sequence of the event that was being written if it is accepted, else 0.

        Another event accepted in the same call, such as a note about an earlier event, does not
        count.
        """
        attempt = self.attempt
        if attempt is None:
            return 0
        # A former producer's last event may have been moved to a newer producer, where it counts.
        former = self._producers.former.of(attempt)
        accepted = attempt.written if former is None else former.accepted
        return attempt.attempted if attempt.attempted <= accepted else 0

    def why_not_accepted(self) -> tuple[str, str]:
        """Returns the cause of a refusal, and its details for the log."""
        producers = self._producers
        producer = producers.current
        if producer is None:
            return REFUSED_CLOSED, "the client is closed"
        if producer.outbox is None:
            why = producer.send_error or "this process was forked meanwhile"
            return REFUSED_UNDELIVERED, f"{why}; there is no outbox: {producer.no_outbox_reason}"
        why = why_full(producer.send_errno, producers.settings.socket_path)
        if producers.growth.problem:
            why += f"; no memory for a larger one: {producers.growth.problem}"
        return REFUSED_FULL, f"no room in the outbox: {why}"

    def write_note(
        self,
        event_type: str,
        user: str | None,
        props: dict[str, Any],
        producer: Producer | None = None,
    ) -> int:
        """Writes an event that the client itself makes; returns its sequence, or 0 if refused.

        A note about a resolved event names the `producer` to write to: that of the process that
        learned the outcome.
        """
        if producer is None:
            producer = self._producers.current
            if producer is None:
                if self._producers.closed:
                    return 0
                producer = self._producers.open_first()
        payload = event_payload(event_type, self._time_ns(), user, props, strict=True)
        return self.write(producer, payload, awaited=False)

    # -- steps that follow a write ---------------------------------------------------------------

    def begin_step(self, then: Callable[[], None]) -> None:
        """Registers the step to run when the next write is accepted, even if interrupted."""
        self.attempt = None
        self._step = then

    def finish_step(self) -> None:
        """Runs the registered step, after the write is accepted."""
        if self._step is not None:
            self._step()
        self._step = None

    def abandon_step(self) -> None:
        """Drops the step that `begin_step` has registered, after the write was refused."""
        self._step = None

    def catch_up(self) -> None:
        """Runs the registered step of a call that was interrupted after its write was accepted."""
        if self._step is not None and self.accepted_sequence():
            self._step()
        self._step = None

    # -- former producers ------------------------------------------------------------------------

    def close_former_producers(self) -> None:
        """Closes former producers whose counts cannot change any more."""
        self.catch_up()
        self._producers.former.close_finished(self._monotonic_s(), self._producers.current)

    def rewrite_unread(self) -> None:
        """Writes again the event that a former outbox still held when it was retired."""
        producers = self._producers
        if not producers.former.any:
            return
        self.close_former_producers()
        for former in producers.former:
            producer = producers.current
            payload = former.unread()
            if payload is not None and producer is not None:
                self.begin_step(partial(self._record_moved, former))
                last = former.producer.written
                awaited = any(event.is_at(former.producer, last) for event in producers.awaited)
                if not self.write(producer, payload, awaited):
                    break
                self.finish_step()

    def _record_moved(self, former: Former) -> None:
        """Makes the caller of a moved event wait for the new outbox, where the event now is.

        An event whose `durable_unknown` names its former producer and sequence keeps them.
        """
        producers = self._producers
        producer, current = self.attempt, producers.current
        assert producer is not None
        assert current is not None
        former.mark_moved()
        for event in list(producers.awaited):
            if not event.unknown_recorded and event.is_at(former.producer, former.producer.written):
                event.record_accepted(producers.waiters_of(producer), producer.attempted, current)
        producers.waiters_of(former.producer).end(has_successor=True)
