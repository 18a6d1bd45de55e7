"""Durable events: what their callers were told, and what the trail says of it.

A durable event whose outcome was not known in time is followed, in the same outbox and before its
caller hears of it, by an event `durable_unknown` that names it; and by `durable_settled` once that
is known. So the trail itself carries what somebody was told, whatever becomes of the process. In
order that there is room to say so when the outbox is full, the room is kept before the event is
accepted.
"""

from __future__ import annotations

import enum
from typing import Any

from logd_client.producer import Producer
from logd_client.waiters import ConfirmationWaiters
from logd_wire.forks import Mark
from logd_wire.outbox.writer import OutboxWriter

UNKNOWN_TYPE = "durable_unknown"
SETTLED_TYPE = "durable_settled"
UNRESOLVED_MAX = 1000


class Outcome(enum.Enum):
    """What is known of a durable event. Only STORED is true."""

    STORED = "stored"
    REFUSED = "refused"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        return self is Outcome.STORED


class DurableEvent:
    """A durable event, from before it is accepted until the last word about it.

    `said`: its `durable_unknown` is in the outbox.
    """

    def __init__(self, tell_user: bool) -> None:
        self.type = ""
        self.user: str | None = None
        self.said = False
        self._tell_user = tell_user
        # One assignment changes both: the thread that waits reads them outside the guard.
        self._place: tuple[ConfirmationWaiters, int] | None = None
        self._label = ""
        self._mark: Mark | None = None
        self._room: OutboxWriter | None = None

    def names(self, event_type: str, user: str | None) -> None:
        """Takes the event's type and user as notes about it carry them."""
        self.type = event_type
        self.user = user

    def keep_room(self, producer: Producer | None) -> None:
        """Before the event: it is accepted only with room behind it for its `durable_unknown`."""
        self.let_go_of_room()
        if producer is not None and producer.outbox is not None:
            # Known here before it is reserved there: an interrupted call can give it back.
            self._room = producer.outbox.writer
            self._room.reserve(self)

    def accepted(self, waits: ConfirmationWaiters, sequence: int, current: Producer) -> None:
        """The event is that producer's: not always the one there was before the call.

        What is to be said of it later goes to the client's `current` one.
        """
        producer = waits.producer
        self._place = (waits, sequence)
        self._label = producer.label
        self._mark = producer.mark
        if current.outbox is not None and current.outbox.writer is not self._room:
            self.keep_room(current)

    def let_go_of_room(self) -> None:
        """There is nothing more to keep it for, or it is used now."""
        writer, self._room = self._room, None
        if writer is not None:
            writer.release_reservation(self)

    def move_room(self, successor: Producer) -> None:
        """What is kept is kept there from now on: that is where its note will be written."""
        if self._room is not None:
            self.keep_room(successor)

    def wait(self, deadline_s: float) -> bool:
        """Whether it is on the disk by then."""
        place = None
        while self._place is not place:  # it is written again elsewhere, maybe
            place = self._place
            if place is not None and place[0].wait(place[1], deadline_s):
                return True
        return False

    def is_of(self, producer: Producer, sequence: int) -> bool:
        """Whether that is its event."""
        return self._place is not None and (
            self._place[0].producer is producer and self._place[1] == sequence
        )

    @property
    def sequence(self) -> int:
        """The event's number; 0 before it is accepted."""
        return self._place[1] if self._place is not None else 0

    @property
    def is_stored(self) -> bool:
        """Whether it is on the disk, as far as anybody can say."""
        place = self._place
        return place is not None and place[0].confirmed() >= place[1]

    @property
    def is_the_parents(self) -> bool:
        """Whether this is a child, forked since: the event is settled by the parent, if at all."""
        return self._mark is not None and not self._mark[0]

    @property
    def outcome(self) -> Outcome | None:
        """What is known of it for good; None while that may still change."""
        if self.is_stored:
            return Outcome.STORED
        place = self._place
        return Outcome.UNKNOWN if place is None or place[0].followed else None

    def unknown_props(self) -> dict[str, Any]:
        """The properties of its `durable_unknown`."""
        return {**self._name(), **({"user_told": True} if self._tell_user else {})}

    def settled_props(self, outcome: Outcome) -> dict[str, Any]:
        """The properties of its `durable_settled`."""
        return {**self._name(), "outcome": outcome.value}

    def _name(self) -> dict[str, Any]:
        # With its producer: that may have been followed by another before this is said.
        return {"producer": self._label, "sequence": self.sequence, "type": self.type}


class UnresolvedEvents:
    """The tickets of which somebody was told that their outcome is unknown; oldest first.

    Bounded: with the daemon away for long the oldest is forgotten first. What the trail says of it
    stays true, and enough: its `durable_unknown` stands behind the event.
    """

    def __init__(self) -> None:
        self.tickets: list[DurableEvent] = []
        # Those whose `durable_unknown` the kernel did not take at the time, for want of an outbox.
        self._unsaid: list[DurableEvent] = []

    def add(self, ticket: DurableEvent) -> None:
        """One more."""
        self.tickets.append(ticket)
        if not ticket.said:
            self._unsaid.append(ticket)
        for tickets in (self.tickets, self._unsaid):
            if len(tickets) > UNRESOLVED_MAX:
                del tickets[0]

    def next(self) -> tuple[DurableEvent, str, dict[str, Any]] | None:
        """What is to be said next: of which ticket, as which event, with which properties."""
        if self._unsaid:
            ticket = self._unsaid[0]
            return ticket, UNKNOWN_TYPE, ticket.unknown_props()
        outcome = self.tickets[0].outcome if self.tickets else None
        if outcome is None:
            return None
        return self.tickets[0], SETTLED_TYPE, self.tickets[0].settled_props(outcome)

    def said(self, ticket: DurableEvent, event_type: str) -> None:
        """What `next` gave is accepted. The same again changes nothing."""
        tickets = self._unsaid if event_type == UNKNOWN_TYPE else self.tickets
        if event_type == UNKNOWN_TYPE:
            ticket.said = True
        if ticket in tickets:
            tickets.remove(ticket)
