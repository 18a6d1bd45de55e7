"""Searches in the trail: pages of events, their counts, one event, and all events for an export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from logd_wire.query import Answer, QueryError, Row
from webapp.classroom.model.accounts import User
from webapp.classroom.model.analytics import PAGE_EVENTS, Event, event_page
from webapp.classroom.model.reports import Reports, or_unavailable, reports_for

# logd accepts as many in one search.
PROPS_MAX = 16
TEXT_CHARS_MAX = 255
# A page of an export that logd does not answer is requested again, for as long as its restart
# takes; further tries would only keep the reader waiting.
EXPORT_TRIES = 5
EXPORT_RETRY_S = 1.0
# Refusals that pass by themselves.
_PASSING = frozenset({"unavailable", "busy", "too_slow", "database"})


@dataclass(frozen=True)
class EventSearch:
    """The filters of a search, which must all hold. An empty field selects all.

    `users` of None selects all too, while an empty tuple selects nobody.
    """

    types: tuple[str, ...] = ()
    users: tuple[str, ...] | None = None
    about: str | None = None
    props: tuple[str, ...] = ()
    text: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def params(self) -> dict[str, Any]:
        """Returns the parameters of logd's reports. A single type or user is a text, as ever."""
        users = None if self.users is None else list(self.users)
        found = {
            "type": self.types[0] if len(self.types) == 1 else None,
            "types": list(self.types) if len(self.types) > 1 else None,
            "user": users[0] if users and len(users) == 1 else None,
            "users": users if users is not None and len(users) != 1 else None,
            "about": self.about,
            "props": list(self.props) or None,
            "text": self.text,
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Found:
    """One page of a search. `next` and `next_ns` are the position of the next page, if any.

    A page may end before it is full: `searched_to_ns` is then the time back to which all events
    have been searched.
    """

    items: list[Event]
    next: int | None = None
    next_ns: int | None = None
    searched_to_ns: int | None = None


@dataclass(frozen=True)
class Counts:
    """Numbers of events by type or by day (days since 1970).

    If `since_ns` is not None, only events from then on are counted.
    """

    events: dict[Any, int]
    since_ns: int | None = None

    @property
    def total(self) -> int:
        return sum(self.events.values())


@dataclass(frozen=True)
class Removed:
    """There is no such event; `why` is "pruned", "erased", or None if that is not known."""

    why: str | None = None


class ExportStopped(Exception):
    """An export ended before its last event. The message says why, for its reader."""


class Explorer:
    """Searches on behalf of one account. logd records each of them that concerns persons."""

    def __init__(self, reports: Reports, sleep: Callable[[float], None] = time.sleep) -> None:
        self.reports = reports
        self._sleep = sleep

    @or_unavailable
    def page(
        self, search: EventSearch, before_id: int | None = None, before_ns: int | None = None
    ) -> Found:
        answer = self.reports.ask(
            "events",
            **search.params(),
            before_id=before_id,
            before_ns=before_ns,
            limit=PAGE_EVENTS,
        )
        page = event_page(answer)
        is_full = len(page.items) == PAGE_EVENTS
        searched_to_ns = None if answer.next is None else answer.searched_to_ns
        return Found(
            page.items,
            answer.next,
            page.next_ns if searched_to_ns is None else searched_to_ns,
            None if is_full else searched_to_ns,
        )

    @or_unavailable
    def counts(self, search: EventSearch, by: str) -> Counts:
        answer = self.reports.ask("event_counts", **search.params(), by=by)
        return Counts({row[by]: int(row["events"]) for row in answer.rows}, answer.searched_to_ns)

    @or_unavailable
    def event(self, event_id: int) -> Event | Removed:
        answer = self.reports.ask("event", id=event_id)
        items = event_page(answer).items
        return items[0] if items else Removed(answer.removed)

    @or_unavailable
    def event_types(self) -> list[str]:
        return [str(row["type"]) for row in self.reports.pages("event_types")]

    @or_unavailable
    def rows(self, search: EventSearch) -> Iterator[Row]:
        """Returns all rows of an export, of which one page at a time is in memory.

        logd records the export before it answers the first page, which is requested at once.
        Taking the rows raises ExportStopped if logd does not answer for longer than a restart.
        """
        return self._rows(search, self.reports.ask("events_export", **search.params()))

    def _rows(self, search: EventSearch, answer: Answer) -> Iterator[Row]:
        yield from answer.rows
        while answer.next is not None:
            answer = self._next(search, answer)
            yield from answer.rows

    def _next(self, search: EventSearch, answer: Answer) -> Answer:
        position = {"before_id": answer.next, "before_ns": answer.searched_to_ns}
        for attempt in range(1, EXPORT_TRIES + 1):
            try:
                return self.reports.ask("events_export", **search.params(), **position)
            except QueryError as error:
                if error.code not in _PASSING or attempt == EXPORT_TRIES:
                    raise ExportStopped(str(error)) from error
                self._sleep(EXPORT_RETRY_S)
        raise AssertionError("the last attempt returns or raises")


def explorer_for(user: User) -> Explorer:
    """Returns the searches for `user`, with the current app's settings."""
    return Explorer(reports_for(user))
