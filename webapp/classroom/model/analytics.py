"""logd's reports, in the form in which the pages use them.

Every method returns its figures or an `Unavailable` with the reason, so that no view can overlook
that logd may not answer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Generic, TypeVar

from logd_wire.query import Answer, Row, text_parts
from webapp.classroom.model.accounts import User
from webapp.classroom.model.reports import Reports, or_unavailable, record, reports_for

T = TypeVar("T")

PAGE_EVENTS = 50
CLAIMED = "claimed"  # the cause of losses that only an outbox's header reports
BUCKETS = 10

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Summary:
    """Totals of the whole trail."""

    stored: int
    lost: int
    quarantined: int
    duplicates_ignored: int
    commits: int
    producers: int
    batches: int
    schema: int
    last_stored_ns: int | None
    pruned: int = 0  # included in `stored`, like `erased`; older versions of logd report neither
    erased: int = 0


@dataclass(frozen=True)
class Verification:
    """What the last `logd verify` answered; None if there was none."""

    answer: str | None
    verified_ns: int | None


@dataclass(frozen=True)
class Day:
    date: date
    events: int
    users: int


@dataclass(frozen=True)
class Cell:
    """One student's events of one task or quiz."""

    events: int
    first_ns: int
    last_ns: int
    best: float | None
    last: float | None


@dataclass(frozen=True)
class Event:
    id: int
    ts_ns: int
    stored_ns: int
    type: str
    user: str | None
    producer: str
    sequence: int
    props: dict[str, Any]
    time_in_doubt: bool = False  # `ts_ns` is not plausible for `stored_ns`


@dataclass(frozen=True)
class Loss:
    id: int
    producer: str
    first: int | None
    last: int | None
    events: int | None
    cause: str
    detected_ns: int


@dataclass(frozen=True)
class CauseTotal:
    """Totals of the loss ledger for one cause."""

    cause: str
    entries: int
    events: int
    unknown_extent: int
    last_detected_ns: int | None


@dataclass(frozen=True)
class LossTotals:
    """Totals of the loss ledger, by cause. If there are no entries, nothing is lost.

    Losses that are only claimed count in `claimed`, not in `events` and `unknown_extent`.
    """

    by_cause: list[CauseTotal]

    @property
    def claimed(self) -> int:
        return sum(total.entries for total in self.by_cause if total.cause == CLAIMED)

    @property
    def entries(self) -> int:
        return sum(total.entries for total in self.by_cause)

    @property
    def events(self) -> int:
        return sum(total.events for total in self.by_cause if total.cause != CLAIMED)

    @property
    def unknown_extent(self) -> int:
        return sum(total.unknown_extent for total in self.by_cause if total.cause != CLAIMED)


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, and the id of the last item, before which the next page starts.

    A list in order of time also has the last item's time, in case the item is removed meanwhile.
    """

    items: list[T] = field(default_factory=list)
    next: int | None = None
    next_ns: int | None = None


Matrix = dict[tuple[str, str], Cell]


class Analytics:
    """The figures of the pages, each from one of logd's reports or an `Unavailable`."""

    def __init__(self, reports: Reports) -> None:
        self.reports = reports

    @or_unavailable
    def summary(self) -> Summary:
        return record(Summary, self.reports.ask("summary").rows[0])

    @or_unavailable
    def verification(self) -> Verification:
        return record(Verification, self.reports.ask("verification").rows[0])

    @or_unavailable
    def daily(self, days: int, users: Sequence[str], today: date | None = None) -> list[Day]:
        """Returns page views and active users of each of the last `days` days.

        Each user is in one part of the request, so that the figures of the parts add up.
        """
        last = today or datetime.fromtimestamp(time.time(), UTC).date()
        first = last - timedelta(days=days - 1)
        events: Counter[int] = Counter()
        active: Counter[int] = Counter()
        for row in self.reports.rows(
            "daily_activity",
            users,
            since_day=(first - EPOCH).days,
            until_day=(last - EPOCH).days,
            type="page_view",
        ):
            events[row["day"]] += row["events"]
            active[row["day"]] += row["users"]
        dates = [first + timedelta(days=at) for at in range(days)]
        numbers = [(day - EPOCH).days for day in dates]
        return [Day(d, events[n], active[n]) for d, n in zip(dates, numbers, strict=True)]

    @or_unavailable
    def completions(self, event_type: str, users: Sequence[str], subjects: Sequence[str]) -> Matrix:
        """Returns which user has done which task (or quiz), by user and subject."""
        return {
            (row["user"], row["subject"]): Cell(
                row["events"],
                row["first_ts_ns"],
                row["last_ts_ns"],
                row.get("best_value"),
                row.get("last_value"),
            )
            for part in text_parts(subjects)
            for row in self.reports.rows("completions", users, type=event_type, subjects=part)
        }

    @or_unavailable
    def score_distribution(self, users: Sequence[str]) -> dict[str, list[int]]:
        """Returns for each quiz how many students' latest scores are in each tenth of the scale."""
        found: dict[str, list[int]] = {}
        for row in self.reports.rows(
            "score_distribution", users, type="quiz_submitted", buckets=BUCKETS
        ):
            counts = found.setdefault(row["subject"], [0] * BUCKETS)
            if 0 <= row["bucket"] < BUCKETS:
                counts[row["bucket"]] += row["users"]
        return found

    @or_unavailable
    def timeline(
        self, user: str, before_id: int | None = None, before_ns: int | None = None
    ) -> Page[Event]:
        answer = self.reports.ask(
            "timeline",
            user=user,
            before_id=before_id,
            before_ns=before_ns,
            limit=PAGE_EVENTS,
        )
        return event_page(answer)

    @or_unavailable
    def event_types(self) -> dict[str, int]:
        return {str(row["type"]): int(row["events"]) for row in self.reports.pages("event_types")}

    @or_unavailable
    def losses(self, before_id: int | None = None) -> Page[Loss]:
        answer = self.reports.ask("losses", before_id=before_id, limit=PAGE_EVENTS)
        return Page([record(Loss, row) for row in answer.rows], answer.next)

    @or_unavailable
    def loss_totals(self) -> LossTotals:
        """Returns the loss ledger's totals by cause, including causes without entries."""
        return LossTotals(
            [record(CauseTotal, row) for row in self.reports.pages("losses_by_cause")]
        )


def analytics_for(user: User) -> Analytics:
    """Returns the figures for `user`, with the current app's settings."""
    return Analytics(reports_for(user))


def event_page(answer: Answer) -> Page[Event]:
    events = [event_of(row) for row in answer.rows]
    return Page(events, answer.next, events[-1].ts_ns if events else None)


def event_of(row: Row) -> Event:
    """Returns the event of a report's row."""
    return Event(
        row["id"],
        row["ts_ns"],
        row["stored_ns"],
        row["type"],
        row["user"],
        str(row["producer"]),
        row["sequence"],
        dict(row["props"]),
        bool(row.get("time_in_doubt")),
    )
