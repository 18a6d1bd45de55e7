"""The path of each `emit`: accepts or refuses an event, without raising or blocking."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from threading import get_ident
from typing import Any

from logd_client.clock import Clock
from logd_client.durable import DurableEvent
from logd_client.guard import Guard
from logd_client.payload import event_payload, plain_type
from logd_client.refusals import describe
from logd_client.session import ProducerSession
from logd_client.shutdown import Shutdown
from logd_client.succession import ProducerSuccession
from logd_client.tracker import DurableTracker
from logd_wire.forks import Forked
from logd_wire.outbox.layout import REFUSED_ERROR, REFUSED_MALFORMED, REFUSED_REENTERED
from logd_wire.schema import Malformed, check_ts_ns, check_user


class Emitter:
    """Packs an event, takes the guard, and writes the event to the current producer."""

    def __init__(
        self,
        guard: Guard,
        producers: ProducerSuccession,
        session: ProducerSession,
        tracker: DurableTracker,
        shutdown: Shutdown,
        clock: Clock,
        *,
        strict: bool,
    ) -> None:
        self._guard = guard
        self._producers = producers
        self._session = session
        self._tracker = tracker
        self._shutdown = shutdown
        self._time_ns = clock.time_ns
        self._monotonic_s = clock.monotonic_s
        self._strict = strict

    def accept(
        self,
        event_type: str,
        user: str | int | None,
        props: Mapping[str, Any] | None,
        ts_ns: int | None,
        event: DurableEvent | None = None,
    ) -> int:
        """Accepts an event; returns its sequence, or 0 if refused.

        `event` is given for a durable event only.
        """
        # The event is packed outside the guard:
        # reading the caller's values may take time, and run the caller's code.
        try:
            payload = event_payload(
                event_type,
                self._time_ns() if ts_ns is None else check_ts_ns(ts_ns),
                user,
                props,
                self._strict,
            )
            if event is not None:
                event.set_names(plain_type(event_type), check_user(user))
        except Malformed as error:
            self._refuse(REFUSED_MALFORMED, describe(error))
            if self._strict:
                raise
            return 0
        except Exception as error:  # noqa: BLE001 - a request never sees an error of ours
            self._refuse(REFUSED_ERROR, describe(error))
            return 0
        guard, producers = self._guard, self._producers
        session, tracker = self._session, self._tracker
        thread = get_ident()
        while True:
            if not (guard.free and guard.mark[0]) and guard.is_nested(thread):
                # The caller is a signal handler or __del__ that
                # interrupted this thread inside the client.
                producers.refusals.count(REFUSED_REENTERED, producers.current)
                return 0
            mark = guard.mark
            refused: str | None = None
            detail = ""
            entered = own = False
            try:
                # This does the same as `Guard.run`, and saves its call.
                entered, guard.free = guard.free, False
                if not entered:
                    continue
                guard.owner = thread
                if tracker.unresolved.events or (
                    producers.former.any and producers.former.is_check_due(self._monotonic_s())
                ):
                    tracker.record_resolved()
                # After this line, an accepted event is the caller's;
                # before it, an earlier event or a note.
                session.attempt = None
                own = True
                if event is not None:
                    event.reserve_note_space(producers.current)
                producer = producers.current
                if producer is None and not producers.closed:
                    producer = producers.open_first()
                if producer is not None:
                    sequence = session.write(producer, payload, event is not None)
                    if sequence:
                        if event is not None:
                            tracker.track(event, sequence)
                        return sequence
                refused, detail = session.why_not_accepted()
            except Forked:
                continue  # A signal handler forked, and this is the child: it repeats the emit.
            except Exception as error:  # noqa: BLE001 - a request never sees an error of ours
                if not mark[0]:
                    continue
                # An event that was accepted before a signal handler raised counts as accepted.
                accepted = session.accepted_sequence() if own else 0
                if accepted:
                    if event is not None:
                        tracker.track(event, accepted)
                    return accepted
                refused, detail = REFUSED_ERROR, describe(error)
            finally:
                # A signal handler may raise at any call, so the guard is released in a `finally`.
                try:
                    if refused:
                        producers.refusals.count(refused, producers.current)
                finally:
                    if entered and (guard.owner == thread or not guard.owner):
                        guard.owner = 0
                        guard.free = True
                    if guard.deferred:
                        guard.run_deferred()
            self._log_refusal(refused, detail)
            return 0

    def _refuse(self, cause: str, detail: str) -> None:
        """Counts and logs a refusal decided before the guard is taken."""
        if self._guard.run(partial(self._count_refusal, cause)):
            self._log_refusal(cause, detail)

    def _count_refusal(self, cause: str, nested: bool) -> bool:
        producers = self._producers
        producers.refusals.count(REFUSED_REENTERED if nested else cause, producers.current)
        return not nested

    def _log_refusal(self, cause: str, detail: str) -> None:
        self._producers.refusals.log(cause, detail)
        if self._producers.closed or self._shutdown.ending:
            self._shutdown.report_refusals()
