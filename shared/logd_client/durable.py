"""Durable events, and the notes about them that the trail carries.

If the outcome of a durable event is not known in time, an event `durable_unknown` that names it
follows in the same outbox, before the caller gets the answer; an event `durable_settled` follows
once the outcome is known. So the trail itself records what a caller was told, whatever becomes of
the process. Space for the note is reserved before the event is accepted, so that it can be written
even when the outbox is full.
"""

from __future__ import annotations

import enum
from typing import Any

from logd_client.producer import Producer
from logd_client.waiters import ConfirmationWaiters, durable_wait
from logd_wire.forks import Mark
from logd_wire.outbox.writer import OutboxWriter

UNKNOWN_TYPE = "durable_unknown"
SETTLED_TYPE = "durable_settled"
UNRESOLVED_MAX = 1000


class Outcome(enum.Enum):
    """The outcome of a durable event, as known so far. Only STORED is true."""

    STORED = "stored"
    REFUSED = "refused"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        return self is Outcome.STORED


class DurableEvent:
    """A durable event, from before it is accepted until its last note is written.

    `unknown_recorded` is true once its `durable_unknown` is in the outbox. `skipped`: its wait was
    not made, or ended before its timeout, since nothing was being confirmed.
    """

    def __init__(self, tell_user: bool) -> None:
        self.type = ""
        self.user: str | None = None
        self.unknown_recorded = False
        self.skipped = False
        self._tell_user = tell_user
        # The place is a pair, so that one assignment changes both:
        # a waiting thread reads them outside the guard.
        self._place: tuple[ConfirmationWaiters, int] | None = None
        self._label = ""
        self._mark: Mark | None = None
        self._reserved_in: OutboxWriter | None = None

    def set_names(self, event_type: str, user: str | None) -> None:
        """Sets the type and user that notes about the event name."""
        self.type = event_type
        self.user = user

    def reserve_note_space(self, producer: Producer | None) -> None:
        """Reserves outbox space for the `durable_unknown`; the event is refused without it."""
        self.release_note_space()
        if producer is not None and producer.outbox is not None:
            # The writer is set before the reservation,
            # so that an interrupted call can still release it.
            self._reserved_in = producer.outbox.writer
            self._reserved_in.reserve(self)

    def record_accepted(
        self, waiters: ConfirmationWaiters, sequence: int, current: Producer
    ) -> None:
        """Records the producer and sequence with which the event was accepted.

        The producer may be another one than before the call. Notes about the event go to the
        client's `current` producer.
        """
        producer = waiters.producer
        self._place = (waiters, sequence)
        self._label = producer.label
        self._mark = producer.mark
        if current.outbox is not None and current.outbox.writer is not self._reserved_in:
            self.reserve_note_space(current)

    def release_note_space(self) -> None:
        """Releases the space reserved for the note, when the note is written or none will be."""
        writer, self._reserved_in = self._reserved_in, None
        if writer is not None:
            writer.release_reservation(self)

    def move_note_space(self, successor: Producer) -> None:
        """Reserves the note's space in the successor's outbox, where the note will be written."""
        if self._reserved_in is not None:
            self.reserve_note_space(successor)

    def wait(self, deadline_s: float) -> bool:
        """Waits until the event is on disk; False if it is not by the deadline.

        While nothing is being confirmed, it may return False before that, or at once.
        """
        limit = durable_wait(deadline_s)
        place = None
        # The event of a retired outbox may be written again to another.
        while self._place is not place:
            place = self._place
            if place is not None and place[0].wait(place[1], deadline_s, limit):
                return True
        self.skipped = limit.skipped
        return False

    def is_at(self, producer: Producer, sequence: int) -> bool:
        """Whether this event has the given sequence of the given producer."""
        return self._place is not None and (
            self._place[0].producer is producer and self._place[1] == sequence
        )

    @property
    def sequence(self) -> int:
        """The event's sequence; 0 before it is accepted."""
        return self._place[1] if self._place is not None else 0

    @property
    def is_stored(self) -> bool:
        """Whether the event is known to be on disk."""
        place = self._place
        return place is not None and place[0].confirmed() >= place[1]

    @property
    def belongs_to_parent(self) -> bool:
        """Whether the event is a parent process's, which alone resolves it."""
        return self._mark is not None and not self._mark[0]

    @property
    def outcome(self) -> Outcome | None:
        """The final outcome; None while it may still change."""
        if self.is_stored:
            return Outcome.STORED
        place = self._place
        return Outcome.UNKNOWN if place is None or place[0].has_successor else None

    def unknown_props(self) -> dict[str, Any]:
        """Returns the properties of the event's `durable_unknown`."""
        return {**self._reference(), **({"user_told": True} if self._tell_user else {})}

    def settled_props(self, outcome: Outcome) -> dict[str, Any]:
        """Returns the properties of the event's `durable_settled`."""
        return {**self._reference(), "outcome": outcome.value}

    def _reference(self) -> dict[str, Any]:
        # The note names the event's producer, since another one may have replaced that by then.
        return {"producer": self._label, "sequence": self.sequence, "type": self.type}


class UnresolvedEvents:
    """Durable events that were reported as unknown to their callers; oldest first.

    Their number is bounded: when the daemon is away for long, the oldest are dropped, and get no
    `durable_settled`.
    """

    def __init__(self) -> None:
        self.events: list[DurableEvent] = []
        # Events without an outbox whose `durable_unknown` the kernel did not take when it was sent.
        self._unrecorded: list[DurableEvent] = []

    def add(self, event: DurableEvent) -> None:
        """Adds an event whose caller was given the outcome UNKNOWN."""
        self.events.append(event)
        if not event.unknown_recorded:
            self._unrecorded.append(event)
        for events in (self.events, self._unrecorded):
            if len(events) > UNRESOLVED_MAX:
                del events[0]

    def next_note(self) -> tuple[DurableEvent, str, dict[str, Any]] | None:
        """Returns the note due next as (the event it is about, type, properties), or None."""
        if self._unrecorded:
            event = self._unrecorded[0]
            return event, UNKNOWN_TYPE, event.unknown_props()
        outcome = self.events[0].outcome if self.events else None
        if outcome is None:
            return None
        return self.events[0], SETTLED_TYPE, self.events[0].settled_props(outcome)

    def mark_recorded(self, event: DurableEvent, note_type: str) -> None:
        """Removes a note that `next_note` returned, after it is accepted. May be called twice."""
        events = self._unrecorded if note_type == UNKNOWN_TYPE else self.events
        if note_type == UNKNOWN_TYPE:
            event.unknown_recorded = True
        if event in events:
            events.remove(event)
