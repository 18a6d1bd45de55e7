"""The road of an event from a call into the outbox and to the daemon: what `Client` is built on.

Guard, pack, write the record to the outbox, store its sequence in the outbox's header (from then on
it is accepted), send the same bytes once, unless the daemon has said that it is awake and will look
by itself. Whatever the send says, nothing is sent again: the daemon reads from the outbox what it
missed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from shared import forks
from shared.durable import Ticket, Unsettled
from shared.forks import Forked
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

_log = logging.getLogger("logd.client")


class Road:
    """One process's way to the daemon: its producer, and the one door that lets one thread in."""

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
        self._start()

    def _start(self) -> None:
        # Reentrant, so that a signal handler that emits gets in and is refused by `_inside`,
        # where a plain lock would stand still for ever.
        self._guard = threading.RLock()
        self._inside = False
        self._closed = False
        self._producer: Producer | None = None
        self._known_types: set[str] = set()
        self._refusals = Refusals()
        self._waits: Waits | None = None
        self._waiting: dict[Ticket, None] = {}
        self._unsettled = Unsettled()
        self._unknown = 0
        self._rate_mark = (time.monotonic(), 0)
        self._has_outbox = False
        self._accepted_before = 0  # by producers that had to be given up
        self._confirmed_before = 0
        self._last_sequence = 0
        self._last_confirmed = 0

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
        again = False
        forked_at = forks.count
        with self._guard:
            if self._inside:
                # A signal handler or __del__ of this very thread, in the middle of an emit.
                self._refusals.count(REFUSED_REENTERED, self._producer)
                return 0
            self._inside = True
            try:
                if self._unsettled.tickets:
                    self._settle()
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
                if forked_at != forks.count:
                    again = True
                else:
                    # A signal handler may have raised after the event was accepted: then it is.
                    accepted = self._accepted_after(self._last_sequence)
                    if accepted:
                        if ticket is not None:
                            self._hand_out(ticket, accepted)
                        return accepted
                    refused, detail = REFUSED_ERROR, repr(error)
            except BaseException:
                # Not ours to hold back. What was accepted by then is not the next call's doing.
                self._accepted_after(self._last_sequence)
                raise
            finally:
                # A signal handler may raise at any call: the way in must be open again whatever.
                try:
                    if refused:
                        self._refusals.count(refused, self._producer)
                finally:
                    self._inside = False
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
    ) -> int:
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
        if producer.outbox is None and self._monotonic_s() >= producer.heal_after_s:
            producer = self._heal(producer)
        if producer.outbox is None:
            return self._send_only(producer, payload)
        writer = producer.outbox.writer
        record = writer.append(payload)
        if record is None:
            if not producer.outbox.removed():
                return 0
            # Without a name nobody reads it any more, and it will never have room again.
            self._succeed(producer, self._new_producer())
            return self._accept(event_type, user, props, ts_ns, awaited)
        if awaited and writer.daemon_watches:
            producer.send(producer.head_awaited + record)
        elif not writer.watched(self._monotonic_ns()):
            producer.send(producer.head + record)
        self._last_sequence = sequence = writer.written
        return sequence

    def _remember_type(self, event_type: str) -> None:
        if len(self._known_types) < KNOWN_TYPES_MAX:
            self._known_types.add(event_type)

    def _send_only(self, producer: Producer, payload: bytes) -> int:
        """Fire and forget: accepted is what the kernel took, and only that uses up a sequence."""
        # Used up before the send: should a signal handler raise behind it, the number must not
        # come twice, or the second event of it would be taken for a repetition.
        producer.sequence_sent = sequence = producer.sequence_sent + 1
        if not producer.send(producer.head + encode_record(producer.seed, sequence, payload)):
            producer.sequence_sent = sequence - 1
            return 0
        self._last_sequence = sequence
        return sequence

    def _accepted_after(self, sequence: int) -> int:
        """The last accepted sequence if it is past `sequence`, else 0."""
        written = 0
        with contextlib.suppress(ValueError):  # in a forked child the outbox is let go
            written = self._producer.written if self._producer else 0
        self._last_sequence = max(written, sequence)
        return written if written > sequence else 0

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
        if producer.forks != forks.count:
            raise Forked
        self._producer = producer
        self._has_outbox = producer.outbox is not None
        if producer.no_outbox_reason:
            _log.warning(
                "no outbox, so events are not kept while logd is away: %s",
                producer.no_outbox_reason,
            )
        self._refusals.tell_all(producer)
        return producer

    def _heal(self, producer: Producer) -> Producer:
        """Asks again for an outbox, now and then: the daemon may have come up since."""
        successor = self._make_producer()
        if successor.forks != forks.count:
            raise Forked
        if successor.outbox is None:
            successor.close()
            producer.heal_after_s = successor.heal_after_s
            return producer
        producer.say_farewell({})
        return self._succeed(producer, successor)

    def _succeed(self, producer: Producer, successor: Producer) -> Producer:
        """The producer's numbers end; its counts stay this client's."""
        self._accepted_before += producer.written
        self._confirmed_before += producer.confirmed
        self._producer = successor
        self._has_outbox = successor.outbox is not None
        self._last_sequence = 0
        self._end(producer, followed=True)
        self._refusals.tell_all(successor)
        return successor

    def _end(self, producer: Producer, *, followed: bool) -> None:
        """Closes it: what it has confirmed by now is all that will be known of its events."""
        if self._waits is not None and self._waits.producer is producer:
            self._waits.end(followed=followed)
        producer.close()

    # -- durable ---------------------------------------------------------------------------------

    def _hand_out(self, ticket: Ticket, sequence: int) -> None:
        assert self._producer is not None
        ticket.accepted(self._waits_for(self._producer), sequence)
        self._waiting[ticket] = None

    def _waits_for(self, producer: Producer) -> Waits:
        waits = self._waits
        if waits is None or waits.producer is not producer:
            waits = self._waits = Waits(producer)
        return waits

    def _settle(self) -> None:
        """Says of events whose durability was unknown what is known of them now."""
        while self._producer is not None:
            due = self._unsettled.next()
            if due is None:
                return
            ticket, event_type, props = due
            if not self._accept(event_type, ticket.user, props, None):
                return  # not refused: tried again at the next event
            self._unsettled.said(ticket)
