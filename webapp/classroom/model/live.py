"""Events as they are stored, for the live view: those after the last one that was shown."""

from __future__ import annotations

from dataclasses import dataclass

from logd_wire.query import QueryError
from webapp.classroom.model.accounts import User
from webapp.classroom.model.analytics import Event, event_page
from webapp.classroom.model.reports import Reports, or_unavailable, reports_for

# The most events of one answer, and on the page when it is opened.
LIVE_EVENTS = 50


@dataclass(frozen=True)
class Position:
    """The last event that was shown, by which logd notices that the trail was replaced."""

    id: int
    ts_ns: int | None = None

    def __str__(self) -> str:
        return str(self.id) if self.ts_ns is None else f"{self.id}.{self.ts_ns}"


@dataclass(frozen=True)
class Stored:
    """Events in the order of storing, and whether there are more by now."""

    events: list[Event]
    more: bool = False
    replaced: bool = False  # the trail is another one, so that the position says nothing

    def position(self) -> Position:
        """Returns where the next answer continues; without events, that is the beginning."""
        if not self.events:
            return Position(0)
        return Position(self.events[-1].id, self.events[-1].ts_ns)


class LiveEvents:
    def __init__(self, reports: Reports) -> None:
        self.reports = reports

    @or_unavailable
    def after(self, position: Position | None, event_type: str | None) -> Stored:
        """Returns the events after a position, or without one the newest ones."""
        try:
            answer = self.reports.ask(
                "events_after",
                after_id=position and position.id,
                after_ns=position and position.ts_ns,
                type=event_type,
                limit=LIVE_EVENTS,
            )
        except QueryError as error:
            if error.code != "replaced":
                raise
            return Stored([], replaced=True)
        return Stored(event_page(answer).items, answer.next is not None)


def live_events_for(user: User) -> LiveEvents:
    """Returns the live events for `user`, with the current app's settings."""
    return LiveEvents(reports_for(user))
