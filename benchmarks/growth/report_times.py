"""Measure every report that the site requests from logd.

The site's own code (`webapp.classroom.model.analytics`) requests them over the query socket. A
report that comes in several pages counts as one.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from flask import Flask

from benchmarks.growth.history import DAY_NS, History
from benchmarks.harness import table
from logd_wire.query import QueryClient
from webapp.classroom.model.accounts import Role, User
from webapp.classroom.model.analytics import Analytics, Page
from webapp.classroom.model.explorer import EventSearch, Explorer, Found
from webapp.classroom.model.reports import Reports, Unavailable

READER = User(3, "auditor", "an auditor", Role.AUDITOR)
DAYS = 60  # days, the default of a dashboard
EXPORT_ROWS = 200
STUDENTS_MAX = 1000  # students in one report
CASES = 50
READ_BYTES = 4 * 1024 * 1024

Request = Callable[[Analytics], object]


class Refused(Exception):
    """A report was refused; the text is what the page would show."""


@dataclass(frozen=True)
class Case:
    """A report as the site requests it."""

    report: str
    what: str
    ask: Request

    @property
    def label(self) -> str:
        """The name in the table."""
        return f"{self.report}: {self.what}" if self.what else self.report


@dataclass(frozen=True)
class ReportTimes:
    """The times of one report. `cold_ns` is the first, with the file out of the page cache."""

    label: str
    rows: int
    cold_ns: int
    warm_ns: list[int]
    refused: str = ""

    def warm(self, share: float) -> int:
        """Return a quantile of the later answers, in nanoseconds."""
        return table.quantile(self.warm_ns, share)


class Site:
    """The site's pages that request reports, for the users of a history."""

    def __init__(self, query_socket: Path, history: History, seed: int = 1) -> None:
        self._client = QueryClient(str(query_socket))
        self._app = Flask("site")
        self._app.logger.setLevel(logging.CRITICAL)  # refusals are in the table, not in the log
        self._history = history
        self._students = history.students[:STUDENTS_MAX]
        shuffled = random.Random(seed).sample(self._students, len(self._students))
        self._student = cycle(shuffled)

    def ask(self, case: Case) -> tuple[int, int]:
        """Request a report; return its number of rows and the time in ns. Raises Refused."""
        with self._app.app_context():
            analytics = Analytics(Reports(self._client, READER))
            start_ns = time.perf_counter_ns()
            answer = case.ask(analytics)
            took_ns = time.perf_counter_ns() - start_ns
        if isinstance(answer, Unavailable):
            raise Refused(answer.reason)
        return _rows(answer), took_ns

    def cases(self) -> list[Case]:
        """Return every report of a dashboard, and of the explorer with its filters."""
        return [*self._dashboards(), *self._explorer()]

    def _dashboards(self) -> Iterator[Case]:
        half_way, student = self._history.size // 2, self._student
        yield Case("summary", "", lambda site: site.summary())
        yield from self._of_group("a class", self._history.class_of(0))
        yield from self._of_group("all students", self._students)
        yield Case("timeline", "newest page", lambda site: site.timeline(next(student)))
        yield Case("timeline", "half-way", lambda site: site.timeline(next(student), half_way))
        yield Case("event_types", "", lambda site: site.event_types())
        yield Case("losses", "newest page", lambda site: site.losses())
        yield Case("losses_by_cause", "", lambda site: site.loss_totals())

    def _of_group(self, who: str, keys: Sequence[str]) -> Iterator[Case]:
        today = _date(self._history.now_ns)
        tasks = [task.id for task in self._history.courses[0].tasks]
        yield Case("daily_activity", who, lambda site: site.daily(DAYS, keys, today))
        yield Case("completions", who, lambda site: site.completions("task_completed", keys, tasks))
        yield Case("score_distribution", who, lambda site: site.score_distribution(keys))

    def _explorer(self) -> Iterator[Case]:
        history, student = self._history, self._student
        middle_ns = history.now_ns - history.span_ns // 2
        of_day = partial(EventSearch, since_ns=middle_ns, until_ns=middle_ns + DAY_NS)
        teacher = "1"  # a user who never does a task
        for what, ask in (
            ("newest page", lambda: EventSearch()),
            ("half-way back", lambda: EventSearch()),
            ("page views", lambda: EventSearch(("page_view",))),
            ("failed logins", lambda: EventSearch(("login_failed",))),
            ("a type never seen", lambda: EventSearch(("never_seen",))),
            ("a user", lambda: EventSearch(users=(next(student),))),
            ("a user without events", lambda: EventSearch(users=("nobody",))),
            ("a user's quizzes", lambda: EventSearch(("quiz_submitted",), (next(student),))),
            ("a teacher's tasks (none)", lambda: EventSearch(("task_completed",), (teacher,))),
            ("a day, half-way", lambda: of_day()),
            ("a day's page views", lambda: of_day(("page_view",))),
            ("a day's failed logins", lambda: of_day(("login_failed",))),
            ("a user's day", lambda: of_day(users=(next(student),))),
            (
                "a user until half-way",
                lambda: EventSearch(users=(next(student),), until_ns=middle_ns),
            ),
            ("before all of it (none)", lambda: EventSearch(until_ns=DAY_NS)),
        ):
            before = history.size // 2 if what == "half-way back" else None
            yield Case("events", what, partial(self._events, ask=ask, before=before))
        yield Case("events", f"export of {EXPORT_ROWS}", lambda _site: self._export())
        yield from self._searches()

    def _searches(self) -> Iterator[Case]:
        """The filters of the explorer, which may end a page early; and counts."""
        filters: list[tuple[str, dict[str, Any]]] = [
            ("two types", {"types": ["login", "logout"]}),
            ("a class", {"users": self._history.class_of(0)}),
            ("a common property", {"props": ["status=200"]}),
            ("a rare property", {"props": ["status=404"]}),
            ("a property never seen", {"props": ["status=403"]}),
            ("a route", {"props": ["route=/courses/<slug>/tasks/<task_id>"]}),
            ("a lesson", {"props": ["view_args.lesson_slug=chance"]}),
            ("about a student", {"about": self._students[0]}),
            ("who looked at a student", {"props": [f"view_args.user_id={self._students[0]}"]}),
            ("about a person without events", {"about": "nobody"}),
            ("a common text", {"text": "lesson"}),
            ("a rare text", {"text": "LOGIN_failed"}),
            ("a text never seen", {"text": "never seen"}),
            ("a text as in a random id", {"text": "beef"}),
            ("a user's rare property", {"user": self._students[0], "props": ["status=404"]}),
        ]
        for what, asked in filters:
            yield self._search("events", what, asked)
        yield self._search("events_export", "first page", {})
        for by in ("type", "day"):
            for what, asked in (("all", {}), filters[1], filters[3]):
                yield self._search("event_counts", f"{what}, by {by}", {**asked, "by": by})

    def _search(self, report: str, what: str, asked: dict[str, Any]) -> Case:
        def ask(_site: Analytics) -> object:
            return self._client.ask(report, asked_by=READER.key, **asked).rows

        return Case(report, what, ask)

    @staticmethod
    def _events(site: Analytics, ask: Callable[[], EventSearch], before: int | None) -> object:
        return Explorer(site.reports).page(ask(), before)

    def _export(self) -> object:
        """Request a page as large as a program would; the site's own pages are smaller."""
        return self._client.ask("events", asked_by=READER.key, limit=EXPORT_ROWS).rows


def measure(
    site: Site, database: Path, times: int, advance: Callable[[Case], None]
) -> list[ReportTimes]:
    """Request every report once with the file out of the page cache, then `times` times from it.

    A report refused from the cache is not repeated: it takes the whole time-out each time.
    """
    cases = site.cases()
    cold = []
    for case in cases:
        drop_from_page_cache(database)
        cold.append(_timed(site, case))
    read_into_page_cache(database)
    measured = []
    for case, (rows, _, cold_ns) in zip(cases, cold, strict=True):
        advance(case)
        refused = ""
        warm_ns: list[int] = []
        while len(warm_ns) < times and not refused:
            came, refused, took_ns = _timed(site, case)
            rows = max(rows, came)
            warm_ns.append(took_ns)
        measured.append(ReportTimes(case.label, rows, cold_ns, warm_ns, refused))
    return measured


def _timed(site: Site, case: Case) -> tuple[int, str, int]:
    """Return the number of rows, the reason of a refusal, and the time in ns."""
    start_ns = time.perf_counter_ns()
    try:
        rows, took_ns = site.ask(case)
    except Refused as error:
        return 0, str(error), time.perf_counter_ns() - start_ns
    return rows, "", took_ns


def drop_from_page_cache(path: Path) -> None:
    """Make the kernel drop the file from its page cache, except pages not written yet."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def read_into_page_cache(path: Path) -> None:
    """Read the whole file, so that the kernel caches what it has room for."""
    with open(path, "rb", buffering=0) as file:
        while file.read(READ_BYTES):
            pass


def _rows(answer: object) -> int:
    if isinstance(answer, Page | Found):
        return len(answer.items)
    return len(answer) if isinstance(answer, list | dict) else 1


def _date(ts_ns: int) -> date:
    return datetime.fromtimestamp(ts_ns // 10**9, UTC).date()
