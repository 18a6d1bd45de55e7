"""The client: hands events to the daemon for the price of a memory write, and at times a datagram.

    client = Client("DIR/logd.sock")
    client.emit("quiz_submitted", user="7", props={"quiz": 3, "score": 0.8})

What a process may ask of it is here; the road that an event takes is in `logd_client.session`.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import time
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

from logd_client.durable import DurableEvent, Outcome
from logd_client.formers import REMOVED_WAIT_S, FormerProducers
from logd_client.producer import Producer
from logd_client.refusals import LOG_INTERVAL_S
from logd_client.session import OUTBOX_BYTES, Road
from logd_client.waiters import ConfirmationWaiters, deadline_after
from logd_wire.forks import Forked

__all__ = ["OUTBOX_BYTES", "Client", "Outcome"]

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client(Road):
    """Emits events to the daemon at `socket_path`. Safe to share by threads; a fork is noticed.

    `outbox_bytes` is the room for events that are not yet on the daemon's disk, in bytes of memory:
    64 KiB of it are taken at the first event, more when that is full.
    `outbox_directory` overrides where the daemon says outboxes are. With `strict`, a malformed
    event raises as well as being counted, and so does a value that would be marked: for tests and
    development.

    Raises PathTooLong for a socket path of over 107 bytes. Nothing else: the outbox is made at the
    first event, and without the daemon events wait in it.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        *,
        outbox_bytes: int = OUTBOX_BYTES,
        outbox_directory: str | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(socket_path, outbox_bytes, outbox_directory, strict)
        _clients.add(self)

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
        schema, or a value that has no form in an event; without, such a value is marked and the
        event kept: PROTOCOL.md, "Other values of a program"). `ts_ns` is nanoseconds since 1970
        UTC, now if not given. With `durable` it waits up
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
        deadline_s = deadline_after(timeout_s)
        ticket = DurableEvent(tell_user)
        try:
            if not self._emit(event_type, user, props, ts_ns, ticket):
                return Outcome.REFUSED
            if ticket.wait(deadline_s):
                return Outcome.STORED
            return self._within(partial(self._unknown_outcome, ticket))
        finally:
            self._within(partial(self._forget, ticket))

    def _unknown_outcome(self, ticket: DurableEvent, nested: bool) -> Outcome:
        """Has the trail say that it is unknown, before the caller hears of it."""
        if not (ticket.said or nested):
            self._leave_removed_outbox()
        if ticket.is_stored:
            return Outcome.STORED  # while this thread came in
        if not (ticket.said or nested):
            self._say_unknown(ticket)
        self._unknown += 1
        if not (ticket.is_the_parents or self._closed):
            self._unsettled.add(ticket)
        return Outcome.UNKNOWN

    def _forget(self, ticket: DurableEvent, _nested: bool) -> None:
        self._waiting.discard(ticket)
        ticket.let_go_of_room()

    def _leave_removed_outbox(self) -> None:
        """Goes on with another producer if nobody reads this one's outbox any more."""
        try:
            producer = self._producer
            if producer is not None and not producer.intact:
                self._replace(producer)
        except Exception as error:  # noqa: BLE001 - as in `_emit`; goes on as it was
            self._warn("the outbox is removed, and no other could be made: %r", error)

    # -- waiting and counting --------------------------------------------------------------------

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Waits up to `timeout_s` seconds; True when all accepted so far is on the daemon's disk.

        All of it: also what went into an outbox that this client had before. False without an
        outbox, unless nothing was emitted: nothing tells what became of it then.
        """
        deadline_s = deadline_after(timeout_s)
        formers, producer, waited = self._within(self._what_to_wait_for)
        for waits, sequence, known_by_s in waited:
            outbox = waits.producer.outbox
            hopeless = outbox is not None and waits.producer is not producer and outbox.removed()
            until_s = min(deadline_s, known_by_s) if hopeless else deadline_s
            if not waits.wait(sequence, until_s):
                return False
        return formers.unconfirmed == 0

    def _what_to_wait_for(
        self, nested: bool
    ) -> tuple[FormerProducers, Producer | None, list[tuple[ConfirmationWaiters, int, float]]]:
        """Of each producer, up to which event, and by when that is known if its file is removed."""
        if not nested:
            try:
                self._move_unread()
            except Exception as error:  # noqa: BLE001 - as in `_emit`; the next event tries again
                self._warn("what a former outbox held could not be written again: %r", error)
        waited = [
            (self._waits_for(former.producer), former.accepted, former.left_s + REMOVED_WAIT_S)
            for former in self._formers
        ]
        producer = self._producer
        if producer is not None:
            waited.append((self._waits_for(producer), producer.written, math.inf))
        return self._formers, producer, waited

    def stats(self) -> dict[str, Any]:
        """Counts of this process: attempted = accepted + refused, accepted = confirmed + pending +
        unconfirmable (what no outbox held).

        Times in seconds, sizes in bytes. `used_bytes` is what waits in all rings, `room_bytes` what
        the present one still takes and the larger ones that may follow it, unless there was no
        memory for one at the last attempt. `room_s` is how long that takes events at the rate seen
        since the last call, if nothing were confirmed any more; None without events.
        `send_error` is why the kernel did not take the last datagram; None where it did.
        """
        return self._within(self._stats)

    def _stats(self, nested: bool) -> dict[str, Any]:
        if not nested:
            self._look_at_formers()
        producer = self._producer
        refused = self._refusals.total
        accepted, confirmed, unconfirmable = self._formers.counts(producer)
        mark_s, mark_accepted = self._rate_mark
        now_s = time.monotonic()
        self._rate_mark = (now_s, accepted)
        outbox: dict[str, Any] = {"reason": producer.no_outbox_reason if producer else None}
        if producer is not None and producer.outbox is not None:
            writer = producer.outbox.writer
            rate = (accepted - mark_accepted) / max(now_s - mark_s, 1e-9)
            # Of this outbox: another one may have been given up, with all that was in it.
            event_bytes = writer.bytes_written / max(writer.written, 1)
            formers_bytes = self._formers.ring_bytes(producer)
            room_bytes = writer.room_bytes + self._growth.room_bytes(
                writer.ring_bytes, formers_bytes
            )
            outbox |= {
                "used_bytes": writer.used_bytes + self._formers.used_bytes(producer),
                "room_bytes": room_bytes,
                "room_s": room_bytes / event_bytes / rate if rate and event_bytes else None,
            }
        return {
            "producer": f"{producer.id:016x}" if producer else None,
            "attempted": accepted + refused,
            "accepted": accepted,
            "refused": refused,
            "refused_by_cause": dict(self._refusals.by_cause),
            "confirmed": confirmed,
            "pending": accepted - confirmed - unconfirmable,
            "unconfirmable": unconfirmable,
            "durable_unknown": self._unknown,
            "unsettled": len(self._unsettled.tickets),
            "outbox": outbox,
            "send_error": producer.send_error if producer else None,
        }

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Says farewell and lets go. What is accepted stays in the outbox until it is stored.

        Later events are refused. Does nothing in a forked child that has not emitted. In a signal
        handler in the middle of another call it takes effect behind that.
        """
        self._within(self._close)

    def _close(self, nested: bool) -> None:
        if nested:
            self._put_off(self.close)
            return
        if self._producer is not None:
            try:
                self._last_words()
            finally:
                self._closed = True
        self._closed = True
        self._catch_up()
        producer, formers, now_s = self._producer, self._formers, time.monotonic()
        if producer is not None:
            formers.add(producer, now_s)
            self._producer = None
            self._send_farewell(producer)
        formers.close_all(now_s)

    def _send_farewell(self, producer: Producer) -> None:
        """Ends its numbers in order, and reports what is refused."""
        counted = dict(self._refusals.by_cause)  # a signal handler may add to it
        unreported = self._refusals.unreported(counted)
        if producer.outbox is not None:
            producer.outbox.writer.farewell()
        elif not ((producer.sequence_sent or unreported) and producer.send_farewell(unreported)):
            return
        self._refusals.end_report(counted)

    def _end_process(self) -> None:
        """At the process's end: says farewell, and stays open, since exit handlers that were
        registered before, destructors and threads may still emit.
        """
        self._within(self._end_in_order)

    def _end_in_order(self, nested: bool) -> None:
        if nested:
            self._put_off(self._end_process)
            return
        self._ending = True
        if self._closed:
            self._put_off(self._report_refusals)
            return
        try:
            self._settle()
        except Exception as error:  # noqa: BLE001 - whatever it is, the farewell comes
            self._warn("not all could be settled at the end: %r", error)
        producer = self._producer
        if producer is None:
            return
        if producer.outbox is not None:
            # Its word stays true until this process's lock is gone: see "Ending" in PROTOCOL.md.
            producer.outbox.writer.farewell()
        else:
            # A farewell ends the numbers: what follows is another producer's.
            self._formers.add(producer, time.monotonic())
            self._producer = None
            self._send_farewell(producer)

    def _report_refusals(self) -> None:
        try:
            self._within(self._report)
        except Exception as error:  # noqa: BLE001 - as in `_emit`; the next refusal tries again
            self._warn("what a closed client refuses could not be reported: %r", error)

    def _report(self, nested: bool) -> None:
        """Reports refusals that no producer can any more, by one that does nothing else: at the
        process's end at once, before that at a bounded rate.
        """
        producer, now_s = self._producer, self._monotonic_s()
        unreported = self._refusals.unreported(dict(self._refusals.by_cause))
        if nested or not unreported or (producer and producer.outbox):
            return
        if now_s < self._report_due_s and not self._ending:
            return
        self._report_due_s = now_s + LOG_INTERVAL_S
        if producer is None:
            producer = self._make_producer()
            if not producer.mark[0]:
                raise Forked
            self._refusals.tell_all(producer)
        self._formers.add(producer, now_s)
        self._producer = None
        self._send_farewell(producer)
        self._formers.look(now_s, None)

    def _last_words(self) -> None:
        """What is known by now, and what the threads that wait will be told."""
        try:
            self._settle()
        except Exception as error:  # noqa: BLE001 - whatever it is, the farewell comes
            self._warn("not all could be settled at the end: %r", error)
        for waits in list(self._waits.values()):
            waits.end()  # so that they are told what is said here
        for ticket in sorted(self._waiting, key=lambda ticket: ticket.sequence):
            if not (ticket.said or ticket.is_stored):
                self._say_unknown(ticket)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A constructor that raised has nothing to close.
        if getattr(self, "_producer", None) is not None or getattr(
            getattr(self, "_formers", None), "any", False
        ):
            with contextlib.suppress(Exception):
                # At the end all finalizers run before anything is gone: another may still emit.
                if self._ending or sys.is_finalizing():
                    self._end_process()
                else:
                    self.close()


def _reset_clients_in_child() -> None:
    """At once where Python forks; a child that it is not told of does so at its first call."""
    for client in list(_clients):
        client._renew()


@atexit.register
def _end_clients() -> None:
    # An atexit handler registered in a parent runs in its forked children too: that is checked.
    for client in list(_clients):
        client._end_process()


os.register_at_fork(after_in_child=_reset_clients_in_child)
