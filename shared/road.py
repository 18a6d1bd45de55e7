"""The road of an event from a call into the outbox and to the daemon: what `Client` is built on.

Guard, pack, write the record to the outbox, store its sequence in the outbox's header (from then on
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

from shared.door import Door
from shared.durable import UNKNOWN_TYPE, Ticket, Unsettled
from shared.forks import Forked, Generation
from shared.formers import Former, FormerProducers
from shared.outbox import (
    REFUSED_CLOSED,
    REFUSED_ERROR,
    REFUSED_FULL,
    REFUSED_MALFORMED,
    REFUSED_REENTERED,
    REFUSED_UNDELIVERED,
)
from shared.paths import check_socket_path
from shared.producer import Producer
from shared.refusals import Refusals
from shared.schema import Malformed, check_event_type, check_props, check_ts_ns, check_user
from shared.waiting import Waits
from shared.wire import encode_record, pack_payload

OUTBOX_BYTES = 8 * 1024 * 1024
KNOWN_TYPES_MAX = 1000
# How often descriptors, names and user are compared while events are sent: two system calls.
COMPARE_INTERVAL_S = 0.005


class Road(Door):
    """One process's way to the daemon: its producers, and what is written to them."""

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
        self._socket_path = os.fspath(socket_path)
        self._outbox_bytes = outbox_bytes
        self._outbox_directory = outbox_directory
        self._strict = strict
        super().__init__()

    def _start(self, generation: Generation) -> None:
        self._refusals = Refusals()
        self._closed = False
        self._producer: Producer | None = None
        self._formers = self._new_formers()
        self._known_types: set[str] = set()
        self._waits: dict[Producer, Waits] = {}
        # Weak, so that a call cut short by a signal handler leaves nothing behind.
        self._waiting: WeakSet[Ticket] = WeakSet()
        self._unsettled = Unsettled()
        self._unknown = 0
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
        ticket: Ticket | None = None,
    ) -> int:
        """The accepted event's sequence, or 0 when it is refused. A durable one has a ticket."""
        refused: str | None = None
        detail: object = ""
        again = own = False
        while self._inside and self._must_wait():
            pass
        if not self._mark[0] and not self._renew():
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
                    if self._unsettled.tickets or self._formers.any:
                        self._settle()
                    # From here on what is accepted is the caller's event, and no note.
                    self._attempt = None
                    own = True
                    if ticket is not None:
                        ticket.keep_room(self._producer)
                    sequence = self._accept(event_type, user, props, ts_ns, ticket is not None)
                    if sequence:
                        if ticket is not None:
                            self._hand_out(ticket, sequence)
                        return sequence
                    refused, detail = self._why_not_accepted()
                except Malformed as error:
                    refused, detail = REFUSED_MALFORMED, error
                    if self._strict:
                        raise
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
                        refused, detail = REFUSED_ERROR, repr(error)
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
            self._refusals.log(refused, detail)
        return 0

    def _accept(
        self,
        event_type: str,
        user: str | int | None,
        props: Mapping[str, Any] | None,
        ts_ns: int | None,
        awaited: bool = False,
        producer: Producer | None = None,
    ) -> int:
        """Accepts an event; a note is only for the `producer` of the process that it came up in."""
        if producer is None:
            producer = self._producer
            if producer is None:
                if self._closed:
                    return 0
                producer = self._new_producer()
        if type(event_type) is not str or event_type not in self._known_types:
            self._remember_type(check_event_type(event_type))
        if props is not None:
            if not isinstance(props, dict) and isinstance(props, Mapping):
                props = dict(props)
            check_props(props)
        payload = pack_payload(
            producer.packer,
            event_type,
            self._time_ns() if ts_ns is None else check_ts_ns(ts_ns),
            None if user is None else check_user(user),
            props,
        )
        return self._write(producer, payload, awaited)

    def _write(self, producer: Producer, payload: bytes, awaited: bool) -> int:
        """Writes and sends a packed event; its sequence, or 0 when there is no room for it."""
        if producer.sends and not self._is_intact(producer):
            producer = self._replace(producer)
        if producer.outbox is None and self._monotonic_s() >= producer.heal_after_s:
            producer = self._heal(producer)
        if producer.outbox is None:
            return self._send_only(producer, payload)
        writer = producer.outbox.writer
        writer.attempted = 0
        self._attempt = producer
        record = writer.append(payload)
        if record is None:
            if producer.intact and not producer.outbox.removed():
                return 0
            # Without a name nobody reads it any more, and it will never have room again.
            return self._write(self._replace(producer), payload, awaited)
        sequence = writer.attempted
        head = producer.head
        if awaited and writer.daemon_watches:
            head = producer.head_awaited
        elif writer.watched(self._monotonic_ns()):
            producer.sends = False
            return sequence
        if not producer.sends:
            # It was not looked at while the daemon watched: that may have been long ago.
            producer.sends = True
            lost = not self._is_intact(producer)
        else:
            lost = writer.retired  # since it was looked at
        if lost:
            # Not sent: the daemon reads this event in the outbox, or has retired it unread and it
            # is moved. A datagram of it could come behind that, and be stored as well.
            successor = self._replace(producer)
            former = self._formers.of(producer)
            if former is None or former.unread() is None:
                return sequence
            former.move()
            return self._write(successor, payload, awaited)
        producer.send(head + record)
        return sequence

    def _is_intact(self, producer: Producer) -> bool:
        """Whether the producer can go on: by a look at its outbox, and seldom by the system's word.

        Its descriptor tells nothing that the daemon does not act on: it retires whoever's lock is
        gone, and reads all that was written until then.
        """
        outbox = producer.outbox
        if outbox is not None and outbox.writer.retired:
            return False
        now_s = self._monotonic_s()
        if now_s < producer.compare_due_s:
            return True
        producer.compare_due_s = now_s + COMPARE_INTERVAL_S
        return producer.intact

    def _remember_type(self, event_type: str) -> None:
        if len(self._known_types) < KNOWN_TYPES_MAX:
            self._known_types.add(event_type)

    def _send_only(self, producer: Producer, payload: bytes) -> int:
        """Fire and forget: accepted is what the kernel took, and only that uses up a sequence."""
        # Used up before the send: should a signal handler raise behind it, the number must not
        # come twice, or the second event of it would be taken for a repetition.
        producer.sequence_tried = 0
        self._attempt = producer
        producer.sends = True
        producer.sequence_sent = producer.sequence_tried = sequence = producer.sequence_sent + 1
        if not producer.send(producer.head + encode_record(producer.seed, sequence, payload)):
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
            return REFUSED_UNDELIVERED, "logd is away or its queue full, and there is no outbox"
        return REFUSED_FULL, "logd is away or behind, and the outbox has no room"

    # -- producers -------------------------------------------------------------------------------

    def _make_producer(self) -> Producer:
        # The one place that reaches files and sockets, so that a simulation can be without.
        return Producer(self._socket_path, self._outbox_directory, self._outbox_bytes)

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
            producer.heal_later(self._monotonic_s())
            return producer
        producer.say_farewell({})
        return self._succeed(producer, successor)

    def _replace(self, producer: Producer) -> Producer:
        """Continues with another producer: this one's outbox, descriptor or user is lost."""
        if not producer.mark[0]:
            raise Forked  # it is the parent's, and only looks lost
        successor = self._make_producer()
        if producer.outbox is None:
            producer.say_farewell({})
        return self._succeed(producer, successor)

    def _succeed(self, producer: Producer, successor: Producer) -> Producer:
        """The producer's numbers end; its counts stay this client's."""
        if not (producer.mark[0] and successor.mark[0]):
            raise Forked
        # In this order: counted once, wherever a signal handler raises.
        self._formers.add(producer, self._monotonic_s())
        if not producer.mark[0]:
            raise Forked
        self._producer = successor
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

    def _hand_out(self, ticket: Ticket, sequence: int) -> None:
        """The ticket's event has that sequence, of the producer that it was last written to."""
        producer, current = self._attempt, self._producer
        assert producer is not None
        assert current is not None
        ticket.accepted(self._waits_for(producer), sequence, current)
        self._waiting.add(ticket)

    def _say_unknown(self, ticket: Ticket) -> None:
        """Writes its `durable_unknown`."""
        ticket.let_go_of_room()
        refused: str | None = None
        detail: object = ""
        own = False
        try:
            self._settle()
            self._attempt = None
            own = True
            if not self._accept(UNKNOWN_TYPE, ticket.user, ticket.unknown_props(), None):
                refused, detail = self._why_not_accepted()
        except Exception as error:  # noqa: BLE001 - as in `_emit`
            self._look_first()
            if not (own and self._attempt_accepted()):
                refused, detail = REFUSED_ERROR, repr(error)
        if refused:
            self._refusals.count(refused, self._producer)
            self._put_off(partial(self._refusals.log, refused, detail))
        else:
            ticket.said = True

    def _waits_for(self, producer: Producer) -> Waits:
        waits = self._waits.get(producer)
        if waits is None:
            waits = self._waits[producer] = Waits(producer)
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
            if not self._accept(event_type, ticket.user, props, None, producer=producer):
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
                if not self._write(producer, payload, awaited=False):
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
        self._formers.look(self._monotonic_s())

    def _begin_due(self, then: Callable[[], None]) -> None:
        self._attempt = None
        self._due = then

    def _finish_due(self) -> None:
        if self._due is not None:
            self._due()
        self._due = None
