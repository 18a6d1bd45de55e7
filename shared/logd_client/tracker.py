"""Tracks durable events: the callers that wait for them, and the notes still to be written."""

from __future__ import annotations

from functools import partial

from logd_client.durable import UNKNOWN_TYPE, DurableEvent, Outcome, UnresolvedEvents
from logd_client.guard import Guard
from logd_client.refusals import describe
from logd_client.session import ProducerSession
from logd_client.succession import ProducerSuccession
from logd_wire.outbox.layout import REFUSED_ERROR


class DurableTracker:
    """Records the outcomes of durable events. Called under the client's guard.

    `unresolved` holds the events whose callers were given UNKNOWN; `unknown_count` counts them all,
    `skipped_count` those of them for which the breaker ended the wait.
    """

    def __init__(
        self, producers: ProducerSuccession, session: ProducerSession, guard: Guard
    ) -> None:
        self._producers = producers
        self._session = session
        self._guard = guard
        self.reset(forked=True)

    def reset(self, forked: bool) -> None:  # noqa: ARG002 - as in every part
        """Resets the tracker to no durable events."""
        self.unresolved = UnresolvedEvents()
        self.unknown_count = 0
        self.skipped_count = 0

    def track(self, event: DurableEvent, sequence: int) -> None:
        """Records that the event is accepted with that sequence.

        Its producer is the one that the session wrote to last.
        """
        producers = self._producers
        producer, current = self._session.attempt, producers.current
        assert producer is not None
        assert current is not None
        event.record_accepted(producers.waiters_of(producer), sequence, current)
        producers.awaited.add(event)

    def outcome_at_timeout(self, event: DurableEvent, nested: bool) -> Outcome:
        """Returns the outcome to give the caller, after recording an unknown one in the trail."""
        if not (event.unknown_recorded or nested):
            self._producers.replace_if_removed()
        if event.is_stored:
            return Outcome.STORED  # the event was stored while this thread waited for the guard
        if not (event.unknown_recorded or nested):
            self._record_unknown(event)
        self.unknown_count += 1
        self.skipped_count += event.skipped
        if not (event.belongs_to_parent or self._producers.closed):
            self.unresolved.add(event)
        return Outcome.UNKNOWN

    def release(self, event: DurableEvent, _nested: bool) -> None:
        """Records that the event's caller no longer waits."""
        self._producers.awaited.discard(event)
        event.release_note_space()

    def _record_unknown(self, event: DurableEvent) -> None:
        """Writes the `durable_unknown` of an event."""
        event.release_note_space()
        session = self._session
        refused: str | None = None
        detail = ""
        own = False
        try:
            self.record_resolved()
            session.attempt = None
            own = True
            if not session.write_note(UNKNOWN_TYPE, event.user, event.unknown_props()):
                refused, detail = session.why_not_accepted()
        except Exception as error:  # noqa: BLE001 - as in `Emitter.accept`
            if not (own and session.accepted_sequence()):
                refused, detail = REFUSED_ERROR, describe(error)
        if refused:
            refusals = self._producers.refusals
            refusals.count(refused, self._producers.current)
            self._guard.defer(partial(refusals.log, refused, detail))
        else:
            event.unknown_recorded = True

    def record_resolved(self) -> None:
        """Writes the notes due for earlier events, and what a retired outbox still held.

        A note is due when the outcome of an event reported as unknown is known.
        """
        session = self._session
        session.catch_up()
        session.rewrite_unread()
        while (producer := self._producers.current) is not None:
            note = self.unresolved.next_note()
            if note is None:
                break
            event, note_type, props = note
            session.begin_step(partial(self.unresolved.mark_recorded, event, note_type))
            if not session.write_note(note_type, event.user, props, producer):
                break  # the note is kept, and tried again at the next event
            session.finish_step()
        session.abandon_step()

    def record_pending_outcomes(self) -> None:
        """Writes the known outcomes of durable events at the client's end.

        For an event whose caller still waits, it writes a `durable_unknown`.
        """
        self.record_resolved_at_end()
        self._producers.end_waits()  # callers must get the outcome that is recorded below
        for event in sorted(self._producers.awaited, key=lambda event: event.sequence):
            if not (event.unknown_recorded or event.is_stored):
                self._record_unknown(event)

    def record_resolved_at_end(self) -> None:
        """Runs `record_resolved`, and logs exceptions, since the farewell must follow."""
        try:
            self.record_resolved()
        except Exception as error:  # noqa: BLE001 - whatever it is, the farewell follows
            self._guard.warn("not all outcomes could be recorded at the end: %r", error)
