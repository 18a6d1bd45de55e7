"""The client: hands events to the daemon for the price of a memory write and one system call.

    client = Client("DIR/logd.sock")
    client.emit("quiz_submitted", user="7", props={"quiz": 3, "score": 0.8})

The road of an event, in `Client._accept`: guard, pack, write the record to the outbox, store its
sequence in the outbox's header (from then on it is accepted), send the same bytes once. Whatever
the send says, nothing is sent again: the daemon reads from the outbox what it missed.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

from shared import forks
from shared.durable import UNKNOWN_TYPE, Outcome, Ticket, Unsettled
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

__all__ = ["Client", "Outcome"]

OUTBOX_BYTES = 8 * 1024 * 1024
KNOWN_TYPES_MAX = 1000

_log = logging.getLogger("logd.client")
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """Emits events to the daemon at `socket_path`. Safe to share by threads; a fork is noticed.

    `outbox_bytes` is the room for events that are not yet on the daemon's disk, in bytes of memory.
    `outbox_directory` overrides where the daemon says outboxes are. With `strict`, a malformed
    event raises instead of being counted: for tests and development.

    Raises PathTooLong for a socket path of over 107 bytes. Nothing else: the outbox is made at the
    first event, and without the daemon events wait in it.
    """

    _time_ns = staticmethod(time.time_ns)
    _monotonic_s = staticmethod(time.monotonic)

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        *,
        outbox_bytes: int = OUTBOX_BYTES,
        outbox_directory: str | None = None,
        strict: bool = False,
    ) -> None:
        check_socket_path(socket_path)
        self._socket_path = os.fspath(socket_path)
        self._outbox_bytes = outbox_bytes
        self._outbox_directory = outbox_directory
        self._strict = strict
        self._start()
        _clients.add(self)

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

    # -- emitting --------------------------------------------------------------------------------

    def emit(
        self,
        event_type: str,
        *,
        user: str | int | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        durable: bool = False,
        timeout_s: float = 5.0,
    ) -> bool:
        """Logs one event; True when it is accepted, and then it is not dropped.

        Never blocks and never raises (with `strict`: Malformed for an event that breaks the
        schema). `ts_ns` is nanoseconds since 1970 UTC, now if not given. With `durable` it waits up
        to `timeout_s` seconds for the disk and is True only when the event is there;
        `emit_durable` tells refused from unknown.
        """
        if durable:
            return bool(
                self.emit_durable(
                    event_type, user=user, props=props, ts_ns=ts_ns, timeout_s=timeout_s
                )
            )
        return self._emit(event_type, user, props, ts_ns) > 0

    def emit_durable(
        self,
        event_type: str,
        *,
        user: str | int | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        timeout_s: float = 5.0,
        tell_user: bool = False,
    ) -> Outcome:
        """Logs one event and waits up to `timeout_s` seconds until it is on the daemon's disk.

        UNKNOWN after the timeout, at once without an outbox: it is accepted, but nobody can say
        when it will be stored. An event `durable_unknown` then stands behind it in the trail, with
        `user_told` if `tell_user` says that the user will hear of it; and a later event
        `durable_settled` names it, once more is known.
        """
        deadline_s = time.monotonic() + timeout_s
        ticket = Ticket(event_type, user, tell_user)
        try:
            if not self._emit(event_type, user, props, ts_ns, ticket):
                return Outcome.REFUSED
            if ticket.wait(deadline_s):
                return Outcome.STORED
            with self._guard:
                return self._unknown_outcome(ticket)
        finally:
            with self._guard:
                self._waiting.pop(ticket, None)
                ticket.let_go_of_room()

    def _unknown_outcome(self, ticket: Ticket) -> Outcome:
        """Has the trail say that it is unknown, before the caller hears of it."""
        if not ticket.said:
            self._leave_removed_outbox()
        if ticket.is_stored:
            return Outcome.STORED  # while this thread came in
        self._unknown += 1
        if not ticket.said:
            self._say_unknown(ticket)
        if not (ticket.is_the_parents or self._closed):
            self._unsettled.add(ticket)
        return Outcome.UNKNOWN

    def _say_unknown(self, ticket: Ticket) -> None:
        ticket.let_go_of_room()
        props = ticket.unknown_props()
        ticket.said = self._emit(UNKNOWN_TYPE, ticket.user, props, None) > 0

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
                sequence = self._accept(event_type, user, props, ts_ns)
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
            return self._accept(event_type, user, props, ts_ns)
        producer.send(producer.head + record)
        self._last_sequence = sequence = writer.written
        return sequence

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

    def _remember_type(self, event_type: str) -> None:
        if len(self._known_types) < KNOWN_TYPES_MAX:
            self._known_types.add(event_type)

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

    def _leave_removed_outbox(self) -> None:
        """Goes on with another producer if nobody reads this one's outbox any more."""
        if self._inside:
            return
        self._inside = True
        try:
            producer = self._producer
            if producer is not None and producer.outbox is not None and producer.outbox.removed():
                self._succeed(producer, self._new_producer())
        except (Exception, Forked) as error:  # noqa: BLE001 - as in `_emit`; goes on as it was
            _log.warning("the outbox is removed, and no other could be made: %r", error)
        finally:
            self._inside = False

    def _end(self, producer: Producer, *, followed: bool) -> None:
        """Closes it: what it has confirmed by now is all that will be known of its events."""
        if self._waits is not None and self._waits.producer is producer:
            self._waits.end(followed=followed)
        producer.close()

    # -- refusals --------------------------------------------------------------------------------

    def _why_not_accepted(self) -> tuple[str, str]:
        producer = self._producer
        if producer is None:
            return REFUSED_CLOSED, "the client is closed"
        if producer.outbox is None:
            return REFUSED_UNDELIVERED, "logd is away or its queue full, and there is no outbox"
        return REFUSED_FULL, "logd is away or behind, and the outbox has no room"

    # -- waiting and counting --------------------------------------------------------------------

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Waits up to `timeout_s` seconds; True when all accepted so far is on the daemon's disk.

        False without an outbox, unless nothing was emitted: nobody tells what became of it then.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._guard:
            producer = self._producer
            if producer is None:
                return self._last_sequence == self._last_confirmed
            waits, sequence = self._waits_for(producer), producer.written
        return waits.wait(sequence, deadline_s)

    def stats(self) -> dict[str, Any]:
        """Counts of this process: attempted = accepted + refused, and what waits for the disk.

        Times in seconds, sizes in bytes. `room_s` is how long the outbox takes events at the rate
        seen since the last call, if nothing were confirmed any more; None without events.
        """
        with self._guard:
            producer = self._producer
            refused = self._refusals.total
            accepted = producer.written if producer else self._last_sequence
            accepted += self._accepted_before
            mark_s, mark_accepted = self._rate_mark
            now_s = time.monotonic()
            self._rate_mark = (now_s, accepted)
            outbox: dict[str, Any] = {"reason": producer.no_outbox_reason if producer else None}
            if producer is not None and producer.outbox is not None:
                writer = producer.outbox.writer
                rate = (accepted - mark_accepted) / max(now_s - mark_s, 1e-9)
                # Of this outbox: another one may have been given up, with all that was in it.
                event_bytes = writer.bytes_written / max(writer.written, 1)
                outbox |= {
                    "used_bytes": writer.used_bytes,
                    "room_bytes": writer.room_bytes,
                    "room_s": writer.room_bytes / event_bytes / rate
                    if rate and event_bytes
                    else None,
                }
            confirmed = producer.confirmed if producer else self._last_confirmed
            written = producer.written if producer else self._last_sequence
            return {
                "producer": f"{producer.id:016x}" if producer else None,
                "attempted": accepted + refused,
                "accepted": accepted,
                "refused": refused,
                "refused_by_cause": dict(self._refusals.by_cause),
                "confirmed": confirmed + self._confirmed_before,
                "pending": written - confirmed if self._has_outbox else 0,
                "durable_unknown": self._unknown,
                "unsettled": len(self._unsettled.tickets),
                "outbox": outbox,
            }

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Says farewell and lets go. What is accepted stays in the outbox until it is stored.

        Later events are refused. Does nothing in a forked child that has not emitted.
        """
        with self._guard:
            ours = self._producer is not None and self._producer.pid == os.getpid()
            if ours and not self._inside:
                self._last_words()
            producer, self._producer = self._producer, None
            self._closed = True
            if producer is None or not ours:
                return
            if producer.outbox is not None:
                self._last_sequence = producer.written
                self._last_confirmed = producer.confirmed
                producer.outbox.writer.farewell()
            elif producer.sequence_sent or self._refusals.total:
                producer.say_farewell(self._refusals.by_cause)
            self._end(producer, followed=False)

    def _last_words(self) -> None:
        """What is known by now, and what the threads that wait will be told."""
        self._inside = True
        try:
            self._settle()
        except Exception as error:  # noqa: BLE001 - whatever it is, the farewell comes
            _log.warning("not all could be settled at the end: %r", error)
        finally:
            self._inside = False
        if self._waits is not None:
            self._waits.end()  # so that they are told what is said here
        for ticket in list(self._waiting):
            if not (ticket.said or ticket.is_stored):
                self._say_unknown(ticket)

    def _after_fork_in_child(self) -> None:
        """The child is another producer: the parent's outbox, lock and socket are not its own."""
        inherited = self._producer
        self._start()
        if inherited is not None:
            inherited.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A constructor that raised has nothing to close.
        if getattr(self, "_producer", None) is not None:
            with contextlib.suppress(Exception):
                self.close()


def _reset_clients_in_child() -> None:
    for client in list(_clients):
        client._after_fork_in_child()


@atexit.register
def _close_clients() -> None:
    # An atexit handler registered in a parent runs in its forked children too: close() checks.
    for client in list(_clients):
        client.close()


os.register_at_fork(after_in_child=_reset_clients_in_child)
