"""The road of an event from a call into the outbox and to the daemon: what `Client` is built on.

Pack, guard, write the record to the outbox, store its sequence in the outbox's header (from then on
it is accepted), send the same bytes once, unless the daemon has said that it is awake and will look
by itself. Whatever the send says, nothing is sent again: the daemon reads from the outbox what it
missed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

from logd_client.durable import UNKNOWN_TYPE, DurableEvent, UnresolvedEvents
from logd_client.formers import Former, FormerProducers
from logd_client.growth import Growth, first_ring_bytes
from logd_client.guard import Door
from logd_client.payload import event_payload, plain_type
from logd_client.producer import Producer
from logd_client.refusals import ClientRefusals, described
from logd_client.socket_path import absolute
from logd_client.waiters import ConfirmationWaiters
from logd_wire.causes import why_full
from logd_wire.forks import Forked, Generation
from logd_wire.outbox.layout import (
    REFUSED_CLOSED,
    REFUSED_ERROR,
    REFUSED_FULL,
    REFUSED_MALFORMED,
    REFUSED_REENTERED,
    REFUSED_UNDELIVERED,
)
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.paths import check_socket_path
from logd_wire.schema import Malformed, check_ts_ns, check_user
from logd_wire.wire import encode_record

OUTBOX_BYTES = 8 * 1024 * 1024
# Of a process, before it goes on without any.
REFUSED_OUTBOXES_MAX = 3
# How often descriptors, names and user are compared while events are sent: two system calls.
COMPARE_INTERVAL_S = 0.005
# How long an outbox may be elsewhere than its path leads: a daemon that runs moves it back.
DISPLACED_S = 2.0


class Road(Door):
    """One process's way to the daemon: its producers, and what is written to them."""

    _internal_types: frozenset[str] = frozenset()  # that only logd writes, and this client as well
    _time_ns = staticmethod(time.time_ns)
    _monotonic_s = staticmethod(time.monotonic)
    _monotonic_ns = staticmethod(time.monotonic_ns)

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        outbox_bytes: int,
        outbox_directory: str | None,
        strict: bool,
    ) -> None:
        check_socket_path(socket_path)
        self._socket_path = absolute(os.fspath(socket_path))
        self._outbox_bytes = outbox_bytes
        self._outbox_directory = outbox_directory
        self._strict = strict
        super().__init__()

    def _start(self, generation: Generation) -> None:
        self._refusals = ClientRefusals()
        self._closed = False
        self._ending = False  # the process is at its end: reports come at once
        self._report_due_s = 0.0
        self._producer: Producer | None = None
        self._formers = self._new_formers()
        self._growth = Growth(self._outbox_bytes)
        self._waits: dict[Producer, ConfirmationWaiters] = {}
        # Weak, so that a call cut short by a signal handler leaves nothing behind.
        self._waiting: WeakSet[DurableEvent] = WeakSet()
        self._unsettled = UnresolvedEvents()
        self._unknown = 0
        self._refused_outboxes = 0
        self._rate_mark = (time.monotonic(), 0)
        # Whose number the caller's own event, or a note about an earlier one, is being given.
        self._attempt: Producer | None = None
        self._due: Callable[[], None] | None = None  # what follows once a note is written
        super()._start(generation)

    def _let_go_of_parents(self) -> None:
        """The parent's outboxes, lock and socket are not this process's own."""
        for waits in list(self._waits.values()):
            waits.end()
        if self._producer is not None:
            self._producer.close()
        for former in self._formers:
            former.producer.close()

    def _begin_again(self) -> None:
        closed, ending = self._closed, self._ending
        self._let_go_of_parents()
        self._start(self._generation)
        self._closed, self._ending = closed, ending

    def _look_first(self) -> None:
        """After a call cut short: whether its outbox is retired is seen before another event, so
        that one at most is in there unread.
        """
        if self._producer is not None:
            self._producer.sends = True

    # -- one event -------------------------------------------------------------------------------

    def _emit(
        self,
        event_type: str,
        user: str | int | None,
        props: Mapping[str, Any] | None,
        ts_ns: int | None,
        ticket: DurableEvent | None = None,
    ) -> int:
        """The accepted event's sequence, or 0 when it is refused. A durable one has a ticket."""
        # Before the guard: to look at the caller's values may take time, and run code of theirs.
        try:
            payload = event_payload(
                event_type,
                self._time_ns() if ts_ns is None else check_ts_ns(ts_ns),
                user,
                props,
                self._strict,
                self._internal_types,
            )
            if ticket is not None:
                ticket.names(plain_type(event_type, self._internal_types), check_user(user))
        except Malformed as error:
            self._refuse(REFUSED_MALFORMED, described(error))
            if self._strict:
                raise
            return 0
        except Exception as error:  # noqa: BLE001 - a request never sees an error of ours
            self._refuse(REFUSED_ERROR, described(error))
            return 0
        refused: str | None = None
        detail = ""
        again = own = False
        while self._inside and self._must_wait():
            pass
        mark = self._mark
        if not mark[0]:
            if not self._renew():
                self._refusals.count(REFUSED_REENTERED, None)
                return 0
            mark = self._mark
        try:
            with self._guard:
                if self._inside:
                    # A signal handler or __del__ of this very thread, in the middle of a call.
                    self._refusals.count(REFUSED_REENTERED, self._producer)
                    return 0
                self._inside = True
                try:
                    if self._unsettled.tickets or (
                        self._formers.any and self._formers.wants_look(self._monotonic_s())
                    ):
                        self._settle()
                    # From here on what is accepted is the caller's event, and no note.
                    self._attempt = None
                    own = True
                    if ticket is not None:
                        ticket.keep_room(self._producer)
                    producer = self._producer
                    if producer is None and not self._closed:
                        producer = self._new_producer()
                    if producer is not None:
                        sequence = self._write(producer, payload, ticket is not None)
                        if sequence:
                            if ticket is not None:
                                self._hand_out(ticket, sequence)
                            return sequence
                    refused, detail = self._why_not_accepted()
                except Forked:
                    again = True
                except Exception as error:  # noqa: BLE001 - a request never sees an error of ours
                    self._look_first()
                    if not mark[0]:
                        again = True
                    else:
                        # A signal handler may have raised after the event was accepted: then it is.
                        accepted = self._attempt_accepted() if own else 0
                        if accepted:
                            if ticket is not None:
                                self._hand_out(ticket, accepted)
                            return accepted
                        refused, detail = REFUSED_ERROR, described(error)
                except BaseException:
                    self._look_first()
                    raise
                finally:
                    # A signal handler may raise at any call: the way in must be open whatever.
                    try:
                        if refused:
                            self._refusals.count(refused, self._producer)
                    finally:
                        self._inside = False
        finally:
            if self._later:
                self._run_later()
        if again:
            # A signal handler forked in the middle: this is the child, and another producer.
            return self._emit(event_type, user, props, ts_ns, ticket)
        if refused:
            self._log_refusal(refused, detail)
        return 0

    def _refuse(self, cause: str, detail: str) -> None:
        """Counts and logs a refusal that is found before the guard is taken."""
        if self._within(partial(self._count_refusal, cause)):
            self._log_refusal(cause, detail)

    def _count_refusal(self, cause: str, nested: bool) -> bool:
        self._refusals.count(REFUSED_REENTERED if nested else cause, self._producer)
        return not nested

    def _log_refusal(self, cause: str, detail: str) -> None:
        self._refusals.log(cause, detail)
        if self._closed or self._ending:
            self._report_refusals()

    def _report_refusals(self) -> None:
        """Of what no producer reports any more."""
        raise NotImplementedError

    def _accept_note(
        self,
        event_type: str,
        user: str | None,
        props: dict[str, Any],
        producer: Producer | None = None,
    ) -> int:
        """Accepts an event of the client's own, of plain values; one about an event that is
        settled is only for the `producer` of the process that it came up in.
        """
        if producer is None:
            producer = self._producer
            if producer is None:
                if self._closed:
                    return 0
                producer = self._new_producer()
        payload = event_payload(event_type, self._time_ns(), user, props, strict=True)
        return self._write(producer, payload, awaited=False)

    def _write(self, producer: Producer, payload: bytes, awaited: bool) -> int:
        """Writes and sends a packed event; its sequence, or 0 when there is no room for it."""
        if producer.sends and not self._is_intact(producer):
            producer = self._replace(producer)
        outbox = producer.outbox
        if outbox is None:
            if self._monotonic_s() >= producer.retry_outbox_after_s:
                producer = self._heal(producer)
                outbox = producer.outbox
            if outbox is None:
                return self._send_only(producer, payload, awaited)
        writer = outbox.writer
        writer.attempted = 0
        self._attempt = producer
        record = writer.append(payload)
        if record is None:
            # Without a name nobody reads it any more, and it will never have room again.
            lost = not producer.intact or outbox.removed()
            successor = self._replace(producer) if lost else self._grow(producer, writer)
            return 0 if successor is None else self._write(successor, payload, awaited)
        sequence = writer.attempted
        if not awaited and writer.suppresses_wakeups(self._monotonic_ns()):
            producer.sends = False
            return sequence
        if not producer.sends:
            # It was not looked at while the daemon watched: that may have been long ago.
            producer.sends = True
            lost = not self._is_intact(producer)
        else:
            lost = writer.left_by_daemon  # since it was looked at
        if lost:
            # Not sent: the daemon reads this event in the outbox, or has retired it unread and it
            # is moved. A datagram of it could come behind that, and be stored as well.
            successor = self._replace(producer)
            former = self._formers.of(producer)
            if former is None or former.unread() is None:
                return sequence
            former.move()
            return self._write(successor, payload, awaited)
        producer.send((producer.head_awaited if awaited else producer.head) + record)
        return sequence

    def _is_intact(self, producer: Producer) -> bool:
        """Whether the producer can go on: by a look at its outbox, and seldom by the system's word.

        Its descriptor tells nothing that the daemon does not act on: it retires whoever's lock is
        gone, and reads all that was written until then.
        """
        outbox = producer.outbox
        if outbox is not None and outbox.writer.left_by_daemon:
            return False
        now_s = self._monotonic_s()
        if now_s < producer.compare_due_s:
            return True
        producer.compare_due_s = now_s + COMPARE_INTERVAL_S
        return producer.intact and not self._is_displaced(producer, now_s)

    def _is_displaced(self, producer: Producer, now_s: float) -> bool:
        """Whether its outbox has been elsewhere than its path leads for DISPLACED_S: a daemon that
        runs puts it back before that.
        """
        outbox = producer.outbox
        if outbox is None or not outbox.displaced():
            producer.displaced_since_s = None
            return False
        if producer.displaced_since_s is None:
            producer.displaced_since_s = now_s
        return now_s - producer.displaced_since_s >= DISPLACED_S

    def _send_only(self, producer: Producer, payload: bytes, awaited: bool) -> int:
        """Fire and forget: accepted is what the kernel took, and only that uses up a sequence."""
        # Used up before the send: should a signal handler raise behind it, the number must not
        # come twice, or the second event of it would be taken for a repetition.
        producer.sequence_tried = 0
        self._attempt = producer
        producer.sends = True
        producer.sequence_sent = producer.sequence_tried = sequence = producer.sequence_sent + 1
        head = producer.head_awaited if awaited else producer.head
        if not producer.send(head + encode_record(producer.seed, sequence, payload)):
            producer.sequence_sent = sequence - 1
            return 0
        return sequence

    def _attempt_accepted(self) -> int:
        """The sequence of the event that was being written, if it is accepted; else 0.

        Only that event's: another that was accepted in the same call, as a note about an earlier
        one or in another outbox, says nothing of it.
        """
        attempt = self._attempt
        if attempt is None:
            return 0
        former = self._formers.of(attempt)  # which may have it moved
        accepted = attempt.written if former is None else former.accepted
        return attempt.attempted if attempt.attempted <= accepted else 0

    def _why_not_accepted(self) -> tuple[str, str]:
        producer = self._producer
        if producer is None:
            return REFUSED_CLOSED, "the client is closed"
        if producer.outbox is None:
            why = producer.send_error or "this process was forked meanwhile"
            return REFUSED_UNDELIVERED, f"{why}; there is no outbox: {producer.no_outbox_reason}"
        why = why_full(producer.send_errno, self._socket_path)
        if self._growth.problem:
            why += f"; no memory for a larger one: {self._growth.problem}"
        return REFUSED_FULL, f"no room in the outbox: {why}"

    # -- producers -------------------------------------------------------------------------------

    def _make_producer(self, former: Producer | None = None, ring_bytes: int = 0) -> Producer:
        """One to follow `former`, with a ring of that size; by default as a process begins."""
        ring_bytes = ring_bytes or first_ring_bytes(self._outbox_bytes)
        follows = taken = 0
        if former is not None and former.outbox is not None:
            follows = former.id
            taken = 0 if former.outbox.removed() else former.outbox.writer.ring_bytes
        taken += self._formers.ring_bytes(former)
        return self._open_producer(ring_bytes, follows, self._growth.left_bytes(ring_bytes, taken))

    def _open_producer(self, ring_bytes: int, follows: int, growth_bytes: int) -> Producer:
        # The one place that reaches files and sockets, so that a simulation can be without.
        if self._refused_outboxes >= REFUSED_OUTBOXES_MAX:
            ring_bytes = 0  # logd refuses each one: memory would fill with them
        return Producer(
            self._socket_path, self._outbox_directory, ring_bytes, follows, growth_bytes
        )

    def _new_producer(self) -> Producer:
        producer = self._make_producer()
        if not producer.mark[0]:
            raise Forked
        self._producer = producer
        self._begin(producer)
        return producer

    def _begin(self, producer: Producer) -> None:
        if producer.no_outbox_reason:
            self._warn(
                "no outbox, so events are not kept while logd is away: %s",
                producer.no_outbox_reason,
            )
        self._refusals.tell_all(producer)

    def _heal(self, producer: Producer) -> Producer:
        """Asks again for an outbox, now and then: the daemon may have come up since."""
        successor = self._make_producer()
        if successor.outbox is None:
            successor.close()
            producer.postpone_outbox_retry(self._monotonic_s())
            return producer
        producer.send_farewell({})
        return self._succeed(producer, successor)

    def _replace(self, producer: Producer) -> Producer:
        """Continues with another producer: this one's outbox, descriptor or user is lost."""
        if not producer.mark[0]:
            raise Forked  # it is the parent's, and only looks lost
        outbox = producer.outbox
        if outbox is not None and outbox.writer.given_up and not outbox.writer.confirmed:
            self._refused_outboxes += 1
        successor = self._make_producer(producer)
        if producer.displaced_since_s is not None and outbox is not None:
            if successor.outbox is None and producer.intact and not outbox.writer.left_by_daemon:
                # Its path leads into another mount namespace, say: it goes on as it was.
                successor.close()
                producer.displaced_since_s = None
                producer.compare_due_s = self._monotonic_s() + DISPLACED_S
                return producer
            outbox.abandon()
        if producer.outbox is None:
            producer.send_farewell({})
        return self._succeed(producer, successor)

    def _grow(self, producer: Producer, full: OutboxWriter) -> Producer | None:
        """Continues with a larger ring, since this one is full; None if there is none to be had."""
        now_s = self._monotonic_s()
        formers_bytes = self._formers.ring_bytes(producer)
        ring_bytes = self._growth.ring_bytes(full.ring_bytes, formers_bytes, now_s)
        if not ring_bytes:
            return None
        if not producer.mark[0]:
            raise Forked
        successor = self._make_producer(producer, ring_bytes)
        if successor.outbox is None:
            self._growth.failed(successor.no_outbox_reason or "", now_s)
            full.no_growth()
            successor.close()
            return None
        self._growth.succeeded()
        return self._succeed(producer, successor, outgrown=True)

    def _succeed(
        self, producer: Producer, successor: Producer, *, outgrown: bool = False
    ) -> Producer:
        """The producer's numbers end; its counts stay this client's."""
        if not (producer.mark[0] and successor.mark[0]):
            raise Forked
        # In this order: counted once, wherever a signal handler raises.
        self._formers.add(producer, self._monotonic_s(), outgrown=outgrown)
        if not producer.mark[0]:
            raise Forked
        self._producer = successor
        for ticket in list(self._waiting):
            ticket.move_room(successor)
        producer.leave()
        # Formers are not looked at here: the event at hand may be in one that has ended by now.
        self._begin(successor)
        return successor

    def _new_formers(self) -> FormerProducers:
        return FormerProducers(self._end_former)

    def _end_former(self, producer: Producer) -> None:
        """Closes it: what it has confirmed by now is all that will be known of its events."""
        waits = self._waits.get(producer)
        if waits is not None:
            waits.end(followed=not self._closed)
        producer.close()
        self._waits.pop(producer, None)

    # -- durable ---------------------------------------------------------------------------------

    def _hand_out(self, ticket: DurableEvent, sequence: int) -> None:
        """The ticket's event has that sequence, of the producer that it was last written to."""
        producer, current = self._attempt, self._producer
        assert producer is not None
        assert current is not None
        ticket.accepted(self._waits_for(producer), sequence, current)
        self._waiting.add(ticket)

    def _say_unknown(self, ticket: DurableEvent) -> None:
        """Writes its `durable_unknown`."""
        ticket.let_go_of_room()
        refused: str | None = None
        detail = ""
        own = False
        try:
            self._settle()
            self._attempt = None
            own = True
            if not self._accept_note(UNKNOWN_TYPE, ticket.user, ticket.unknown_props()):
                refused, detail = self._why_not_accepted()
        except Exception as error:  # noqa: BLE001 - as in `_emit`
            self._look_first()
            if not (own and self._attempt_accepted()):
                refused, detail = REFUSED_ERROR, described(error)
        if refused:
            self._refusals.count(refused, self._producer)
            self._put_off(partial(self._refusals.log, refused, detail))
        else:
            ticket.said = True

    def _waits_for(self, producer: Producer) -> ConfirmationWaiters:
        waits = self._waits.get(producer)
        if waits is None:
            waits = self._waits[producer] = ConfirmationWaiters(producer)
        return waits

    def _settle(self) -> None:
        """Writes what is due of earlier events: the outcomes of durable ones, known by now, and
        what a former outbox still held when the daemon retired it.
        """
        self._catch_up()
        self._move_unread()
        while (producer := self._producer) is not None:
            due = self._unsettled.next()
            if due is None:
                break
            ticket, event_type, props = due
            self._begin_due(partial(self._unsettled.said, ticket, event_type))
            if not self._accept_note(event_type, ticket.user, props, producer):
                break  # not refused: tried again at the next event
            self._finish_due()
        self._due = None

    def _move_unread(self) -> None:
        """Writes again what a former outbox still held when the daemon retired it."""
        if not self._formers.any:
            return
        self._look_at_formers()
        for former in self._formers:
            producer = self._producer
            payload = former.unread()
            if payload is not None and producer is not None:
                self._begin_due(partial(self._moved, former))
                last = former.producer.written
                awaited = any(ticket.is_of(former.producer, last) for ticket in self._waiting)
                if not self._write(producer, payload, awaited):
                    break
                self._finish_due()

    def _moved(self, former: Former) -> None:
        """The former's last event counts where it is written now, and is waited for there.

        A ticket whose `durable_unknown` names it where it was keeps that name.
        """
        producer, current = self._attempt, self._producer
        assert producer is not None
        assert current is not None
        former.move()
        for ticket in list(self._waiting):
            if not ticket.said and ticket.is_of(former.producer, former.producer.written):
                ticket.accepted(self._waits_for(producer), producer.attempted, current)
        self._waits_for(former.producer).end(followed=True)

    def _catch_up(self) -> None:
        """Does what follows a note whose call was cut short right behind the writing."""
        if self._due is not None and self._attempt_accepted():
            self._due()
        self._due = None

    def _look_at_formers(self) -> None:
        self._catch_up()
        self._formers.look(self._monotonic_s(), self._producer)

    def _begin_due(self, then: Callable[[], None]) -> None:
        self._attempt = None
        self._due = then

    def _finish_due(self) -> None:
        if self._due is not None:
            self._due()
        self._due = None
