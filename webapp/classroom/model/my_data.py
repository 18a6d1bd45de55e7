"""What logd's trail holds about one account, and who read it, for the account's own pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logd_wire.query import Row
from webapp.classroom.model.accounts import User
from webapp.classroom.model.analytics import PAGE_EVENTS, Event, Page, event_page
from webapp.classroom.model.reports import Reports, or_unavailable, record, reports_for

# logd searches a bounded part of the trail for a page, which may have nothing: how many such parts
# one page of the site asks for. Each is a reading of its own in the trail.
PARTS_MAX = 3
DOWNLOAD_ROWS = 200
# The reports of a download: those paged by `before_id`, then those paged by `after`.
_BY_ID = ("person_events", "person_mentions", "person_readings", "copies")
_BY_KEY = ("person_totals", "person_rollups")


@dataclass(frozen=True)
class Total:
    """How many events of one type a person has, from which day to which, and how long they stay.

    Days are days since 1970. `kept_ns` is None if they are kept for ever.
    """

    type: str
    events: int
    first_day: int
    last_day: int
    kept_ns: int | None


@dataclass(frozen=True)
class Reading:
    """A reading of data of a person, or of data that may be about anyone (`named` is false).

    `reader` is the account on whose behalf it was read; None for a program on logd's machine.
    """

    id: int
    ts_ns: int
    type: str
    reader: str | None
    named: bool
    own: bool
    props: dict[str, Any]

    @property
    def report(self) -> str | None:
        found = self.props.get("report")
        return found if isinstance(found, str) else None


@dataclass(frozen=True)
class CopyOfTrail:
    """A backup or an export of the whole trail."""

    id: int
    kind: str
    made_ns: int
    expires_ns: int | None


class MyData:
    """The account's own data in the trail; a method returns an `Unavailable` without logd."""

    def __init__(self, reports: Reports, user: User) -> None:
        self.reports = reports
        self._user = user.key

    @or_unavailable
    def totals(self) -> list[Total]:
        rows = self.reports.pages("person_totals", user=self._user)
        return [record(Total, row) for row in rows]

    @or_unavailable
    def events(self, before_id: int | None) -> Page[Event]:
        answer = self.reports.ask(
            "person_events", user=self._user, before_id=before_id, limit=PAGE_EVENTS
        )
        return event_page(answer)

    @or_unavailable
    def mentions(self, before_id: int | None) -> Page[Event]:
        """Returns a page of entries of others; `next` may be set though the page is empty."""
        found: list[Event] = []
        for _ in range(PARTS_MAX):
            answer = self.reports.ask(
                "person_mentions",
                user=self._user,
                before_id=before_id,
                limit=PAGE_EVENTS - len(found),
            )
            found += event_page(answer).items
            before_id = answer.next
            if before_id is None or len(found) >= PAGE_EVENTS:
                break
        return Page(found, before_id)

    @or_unavailable
    def readings(
        self, by: str, before_id: int | None, limit: int, parts_max: int = PARTS_MAX
    ) -> Page[Reading]:
        """Returns a page of readings by "others", by "self" or by "anyone"."""
        found: list[Reading] = []
        for _ in range(parts_max):
            answer = self.reports.ask(
                "person_readings",
                user=self._user,
                by=by,
                before_id=before_id,
                limit=limit - len(found),
            )
            found += [record(Reading, row) for row in answer.rows]
            before_id = answer.next
            if before_id is None or len(found) >= limit:
                break
        return Page(found, before_id)

    @or_unavailable
    def copies(self) -> list[CopyOfTrail]:
        answer = self.reports.ask("copies", limit=DOWNLOAD_ROWS)
        return [record(CopyOfTrail, row) for row in answer.rows]

    def everything(self) -> Iterator[tuple[str, Row]]:
        """Yields all rows with their report's name. Raises QueryError where logd does not answer.

        It takes as many requests as the trail has parts, one after the other.
        """
        for report in (*_BY_ID, *_BY_KEY):
            key = "before_id" if report in _BY_ID else "after"
            params: dict[str, Any] = {} if report == "copies" else {"user": self._user}
            if report in _BY_ID:
                params["limit"] = DOWNLOAD_ROWS
            position: Any = None
            while True:
                answer = self.reports.ask(report, **params, **{key: position})
                yield from ((report, row) for row in answer.rows)
                position = answer.next
                if position is None:
                    break


def my_data_for(user: User) -> MyData:
    """Returns the data of `user`, read on behalf of `user`, with the current app's settings."""
    return MyData(reports_for(user), user)
