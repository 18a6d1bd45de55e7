"""The client: writes events to memory that the daemon reads, and wakes it with a datagram.

    client = Client("DIR/logd.sock")
    client.emit("quiz_submitted", user="7", props={"quiz": 3, "score": 0.8})

The public interface. An event goes `emitter` -> `session` -> `succession` (which
producer) -> `producer` (outbox and socket), under the `guard`.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

from logd_client.durable import DurableEvent, Outcome
from logd_client.emitter import Emitter
from logd_client.environment import SYSTEM_ENVIRONMENT, Environment
from logd_client.former_producers import REMOVED_WAIT_S, FormerProducers
from logd_client.guard import Guard
from logd_client.producer import Producer
from logd_client.session import ProducerSession
from logd_client.shutdown import Shutdown
from logd_client.socket_path import absolute
from logd_client.stats import ClientStats
from logd_client.succession import OutboxSettings, ProducerSuccession
from logd_client.tracker import DurableTracker
from logd_client.waiters import DURABLE_WAITERS, ConfirmationWaiters, deadline_after
from logd_wire.paths import check_socket_path

__all__ = ["OUTBOX_BYTES", "Client", "Outcome"]

OUTBOX_BYTES = 8 * 1024 * 1024

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """Emits events to the daemon at `socket_path`. Threads may share it; a fork is detected.

    `outbox_bytes` is the room for events that are not yet on the daemon's disk, in bytes of memory:
    64 KiB of it are taken at the first event, more when that is full.
    `outbox_directory` overrides where the daemon says outboxes are. With `strict`, a malformed
    event raises as well as being counted, and so does a value that would be marked: for tests and
    development. `durable_waiters` is how many callers of durable events wait on while nothing is
    being confirmed: half of a server's threads, see `emit_durable`. `environment` replaces clocks
    and producers in tests.

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
        durable_waiters: int = DURABLE_WAITERS,
        environment: Environment = SYSTEM_ENVIRONMENT,
    ) -> None:
        check_socket_path(socket_path)
        settings = OutboxSettings(
            absolute(os.fspath(socket_path)), outbox_bytes, outbox_directory, durable_waiters
        )
        clock = environment.clock
        # None of these objects refers to the client,
        # so a client that is no longer used is closed at once.
        self._guard = guard = Guard(environment.current_generation)
        self._producers = producers = ProducerSuccession(settings, environment, guard)
        self._session = session = ProducerSession(producers, clock)
        self._durable = durable = DurableTracker(producers, session, guard)
        self._shutdown = shutdown = Shutdown(producers, session, durable, guard, clock)
        self._stats = ClientStats(producers, session, durable, clock)
        self._emitter = Emitter(
            guard, producers, session, durable, shutdown, clock, strict=strict
        )  # fmt: skip
        guard.protect(producers, (session, durable, shutdown, self._stats))
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
        """Logs one event; returns whether it was accepted. An accepted event is not dropped.

        Never blocks and never raises (with `strict`: Malformed for an event that breaks the
        schema, or a value that has no form in an event; without, such a value is marked and the
        event kept: PROTOCOL.md, "Other values of a program"). `ts_ns` is nanoseconds since 1970
        UTC, now if not given. With `durable` it waits up to `timeout_s` seconds for the disk and is
        True only when the event is there; `emit_durable` distinguishes refused from unknown.
        """
        if durable:
            return bool(
                self.emit_durable(
                    event_type, user=user, props=props, ts_ns=ts_ns, timeout_s=timeout_s
                )
            )
        return self._emitter.accept(event_type, user, props, ts_ns) > 0

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

        Returns UNKNOWN after the timeout, or at once without an outbox: the event is accepted, but
        its storage is not confirmed. An event `durable_unknown` then follows it in the trail, with
        `user_told` if `tell_user` says that the user will be told; and a later event
        `durable_settled` names it, once the outcome is known.

        While nothing at all is being confirmed, callers do not wait for that long: after an eighth
        of their timeout only the `durable_waiters` oldest ones do, and once one of these has timed
        out, UNKNOWN is returned at once, except to one caller now and then, until the daemon
        confirms something. So a daemon that hangs does not hold all threads of a server.
        """
        deadline_s = deadline_after(timeout_s)
        event = DurableEvent(tell_user)
        try:
            if not self._emitter.accept(event_type, user, props, ts_ns, event):
                return Outcome.REFUSED
            if event.wait(deadline_s):
                return Outcome.STORED
            return self._guard.run(partial(self._durable.outcome_at_timeout, event))
        finally:
            self._guard.run(partial(self._durable.release, event))

    # -- waiting and counting --------------------------------------------------------------------

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Waits up to `timeout_s` seconds; returns whether all events accepted so far are on disk.

        Events in earlier outboxes of this client count as well. Without an outbox it returns False,
        unless nothing was emitted, since nothing confirms the events.
        """
        deadline_s = deadline_after(timeout_s)
        former, producer, waits = self._guard.run(self._pending_waits)
        for waiters, sequence, known_by_s in waits:
            outbox = waiters.producer.outbox
            hopeless = outbox is not None and waiters.producer is not producer and outbox.removed()
            until_s = min(deadline_s, known_by_s) if hopeless else deadline_s
            if not waiters.wait(sequence, until_s):
                return False
        return former.unconfirmed == 0

    def _pending_waits(
        self, nested: bool
    ) -> tuple[FormerProducers, Producer | None, list[tuple[ConfirmationWaiters, int, float]]]:
        """Returns each producer's last sequence, and its deadline if its file is removed."""
        producers = self._producers
        if not nested:
            try:
                self._session.rewrite_unread()
            except Exception as error:  # noqa: BLE001 - as in `Emitter.accept`; retried later
                self._guard.warn("what a former outbox held could not be written again: %r", error)
        waits = [
            (
                producers.waiters_of(former.producer),
                former.accepted,
                former.left_s + REMOVED_WAIT_S,
            )
            for former in producers.former
        ]
        producer = producers.current
        if producer is not None:
            waits.append((producers.waiters_of(producer), producer.written, math.inf))
        return producers.former, producer, waits

    def stats(self) -> dict[str, Any]:
        """Returns the counts of this process's events and of its outbox.

        attempted = accepted + refused, accepted = confirmed + pending + unconfirmable (what no
        outbox held).

        Times are in seconds, sizes in bytes. `used_bytes` is the unconfirmed part of all rings.
        `room_bytes` is the free part of the present ring, plus the larger rings that may follow it
        unless there was no memory for one at the last attempt. `room_s` is how long that room lasts
        at the rate of events since the last call, if the daemon confirmed nothing more; None
        without events. `durable_breaker`: whether durable events are not waited for at present
        (`open`), and how many waits were ended early or not made (`skipped`). `send_error` is why
        the kernel did not take the last datagram; None where it did.
        """
        return self._guard.run(self._stats.read)

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Writes a farewell and releases the outbox, whose events stay in it until they are stored.

        Later events are refused. Does nothing in a forked child that has not emitted. Called by a
        signal handler in the middle of another call, it takes effect after that call.
        """
        self._shutdown.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # There is nothing to close if the constructor raised.
        shutdown: Shutdown | None = getattr(self, "_shutdown", None)
        if shutdown is not None and shutdown.is_needed:
            with contextlib.suppress(Exception):
                # At the interpreter's end, another object's
                # finalizer may still emit after this one.
                if shutdown.ending or sys.is_finalizing():
                    shutdown.end_process()
                else:
                    shutdown.close()


def _reset_clients_in_child() -> None:
    """Resets clients right after a fork by Python. After any other fork, their first call does."""
    for client in list(_clients):
        client._guard.renew()


@atexit.register
def _end_clients() -> None:
    # A forked child runs this handler of its parent too;
    # `end_process` checks which process it is in.
    for client in list(_clients):
        client._shutdown.end_process()


os.register_at_fork(after_in_child=_reset_clients_in_child)
