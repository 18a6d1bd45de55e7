"""What the site asks of logd, page by page, and how long each answer takes.

Asked by the site's own code (`webapp.classroom.model.analytics`) over the query socket: a report
that comes in pages counts as a whole, and what logd refuses is what a reader would be told.
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

from flask import Flask

from benchmarks.growth.history import DAY_NS, History
from benchmarks.harness import table
from logd_wire.query import QueryClient
from webapp.classroom.model.accounts import Role, User
from webapp.classroom.model.analytics import Analytics, EventFilter, Page, Unavailable

READER = User(3, "auditor", "an auditor", Role.AUDITOR)
DAYS = 60  # that a dashboard shows, unless told otherwise
EXPORT_ROWS = 200
STUDENTS_MAX = 1000  # that a report takes
CASES = 28
READ_BYTES = 4 * 1024 * 1024

Ask = Callable[[Analytics], object]


class Refused(Exception):
    """No figures came; the text is what a reader of the page is told."""


@dataclass(frozen=True)
class Case:
    """A question, as the site asks it."""

    report: str
    what: str
    ask: Ask

    @property
    def label(self) -> str:
        """How the table names it."""
        return f"{self.report}: {self.what}" if self.what else self.report


@dataclass(frozen=True)
class Asked:
    """One question, asked often. `cold_ns` is the first time, with the file out of memory."""

    label: str
    rows: int
    cold_ns: int
    warm_ns: list[int]
    refused: str = ""

    def warm(self, share: float) -> int:
        """A quantile of the later answers, in nanoseconds."""
        return table.quantile(self.warm_ns, share)


class Site:
    """The pages of the site that ask logd, for the people of a history."""

    def __init__(self, query_socket: Path, history: History, seed: int = 1) -> None:
        self._client = QueryClient(str(query_socket))
        self._app = Flask("site")
        self._app.logger.setLevel(logging.CRITICAL)  # what is refused is in the table
        self._history = history
        self._students = history.students[:STUDENTS_MAX]
        shuffled = random.Random(seed).sample(self._students, len(self._students))
        self._student = cycle(shuffled)

    def ask(self, case: Case) -> tuple[int, int]:
        """The rows that come, and the nanoseconds until then. Raises Refused."""
        with self._app.app_context():
            analytics = Analytics(self._client, READER)
            start_ns = time.perf_counter_ns()
            answer = case.ask(analytics)
            took_ns = time.perf_counter_ns() - start_ns
        if isinstance(answer, Unavailable):
            raise Refused(answer.reason)
        return _rows(answer), took_ns

    def cases(self) -> list[Case]:
        """Every report of a dashboard, and the explorer with its filters."""
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
        of_day = partial(EventFilter, since_ns=middle_ns, until_ns=middle_ns + DAY_NS)
        teacher = "1"  # who never does a task
        for what, ask in (
            ("newest page", lambda: EventFilter()),
            ("half-way back", lambda: EventFilter(before_id=history.size // 2)),
            ("page views", lambda: EventFilter(type="page_view")),
            ("failed logins", lambda: EventFilter(type="login_failed")),
            ("a type never seen", lambda: EventFilter(type="never_seen")),
            ("a user", lambda: EventFilter(user=next(student))),
            ("a user never seen", lambda: EventFilter(user="nobody")),
            ("a user's quizzes", lambda: EventFilter("quiz_submitted", next(student))),
            ("a teacher's tasks (none)", lambda: EventFilter("task_completed", teacher)),
            ("a day, half-way", lambda: of_day()),
            ("a day's page views", lambda: of_day("page_view")),
            ("a day's failed logins", lambda: of_day("login_failed")),
            ("a user's day", lambda: of_day(user=next(student))),
            ("a user until half-way", lambda: EventFilter(user=next(student), until_ns=middle_ns)),
            ("before all of it (none)", lambda: EventFilter(until_ns=DAY_NS)),
        ):
            yield Case("events", what, lambda site, ask=ask: site.events(ask()))  # type: ignore[misc]
        yield Case("events", f"export of {EXPORT_ROWS}", lambda _site: self._export())

    def _export(self) -> object:
        """A whole page as a program fetches it; the site's own pages are smaller."""
        return self._client.ask("events", asked_by=READER.key, limit=EXPORT_ROWS).rows


def measure(site: Site, database: Path, times: int, tell: Callable[[Case], None]) -> list[Asked]:
    """Asks everything once with the file out of memory, then everything `times` times out of it.

    What is refused out of memory is not asked again: it takes its time-out each time.
    """
    cases = site.cases()
    cold = []
    for case in cases:
        forget(database)
        cold.append(_timed(site, case))
    remember(database)
    asked = []
    for case, (rows, _, cold_ns) in zip(cases, cold, strict=True):
        tell(case)
        refused = ""
        warm_ns: list[int] = []
        while len(warm_ns) < times and not refused:
            came, refused, took_ns = _timed(site, case)
            rows = max(rows, came)
            warm_ns.append(took_ns)
        asked.append(Asked(case.label, rows, cold_ns, warm_ns, refused))
    return asked


def _timed(site: Site, case: Case) -> tuple[int, str, int]:
    """Rows, why none came, and the nanoseconds until then."""
    start_ns = time.perf_counter_ns()
    try:
        rows, took_ns = site.ask(case)
    except Refused as error:
        return 0, str(error), time.perf_counter_ns() - start_ns
    return rows, "", took_ns


def forget(path: Path) -> None:
    """Has the kernel drop what it holds of the file in memory, as far as that is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def remember(path: Path) -> None:
    """Has the kernel read all of the file into memory, as far as it has room."""
    with open(path, "rb", buffering=0) as file:
        while file.read(READ_BYTES):
            pass


def _rows(answer: object) -> int:
    if isinstance(answer, Page):
        return len(answer.items)
    return len(answer) if isinstance(answer, list | dict) else 1


def _date(ts_ns: int) -> date:
    return datetime.fromtimestamp(ts_ns // 10**9, UTC).date()
