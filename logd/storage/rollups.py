"""Roll-ups: totals that dashboards query often, updated in the batch's own transaction.

The latest event is the latest in time, then by attempt, then by storing: outboxes are read in any
order. The first is the earliest in time. A roll-up is of stored events only: when events are
removed, it is recounted. `verify` recomputes roll-ups by subject with the same functions, and those
by day with one statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from logd.batch import Producer
from logd.storage.database import Connection
from logd_wire.schema import INT64_MAX, SUBJECTS
from logd_wire.wire import Event, unpack_props

DAY_NS = 86_400 * 10**9

# SQL that adds the sum over more events to a row; the latest event is the latest in time.
DAY_CONFLICT = "events = events + excluded.events"
_LATER = "(excluded.last_ts_ns, excluded.last_attempt) >= (last_ts_ns, last_attempt)"
_BEST = (
    "best_value = CASE WHEN best_value IS NULL THEN excluded.best_value"
    " WHEN excluded.best_value IS NULL THEN best_value"
    " ELSE max(best_value, excluded.best_value) END"
)
SUBJECT_CONFLICT = (
    "events = events + excluded.events, first_ts_ns = min(first_ts_ns, excluded.first_ts_ns),"
    f" last_value = iif({_LATER}, excluded.last_value, last_value),"
    f" last_attempt = iif({_LATER}, excluded.last_attempt, last_attempt),"
    f" last_ts_ns = max(last_ts_ns, excluded.last_ts_ns), {_BEST}"
)
# SQL that does so in schemas before the migration "latest in time": the latest stored event counts.
SUBJECT_CONFLICT_BY_STORING = (
    "events = events + excluded.events, last_ts_ns = excluded.last_ts_ns,"
    f" last_value = excluded.last_value, {_BEST}"
)

DayKey = tuple[str, int, str]
SubjectKey = tuple[str, str, str]


class SubjectEvent(NamedTuple):
    """What a roll-up by subject takes from one event; `attempt` is 0 if the event has none."""

    subject: str
    value: float | None
    attempt: int


@dataclass(slots=True)
class SubjectRow:
    """A user's state in one subject: attempts, first and last time, latest and best value."""

    events: int
    first_ts_ns: int
    last_ts_ns: int
    last_value: float | None
    best_value: float | None
    last_attempt: int = 0

    def add(self, ts_ns: int, value: float | None, attempt: int) -> None:
        """Adds an event that was stored after the others."""
        self.events += 1
        self.first_ts_ns = min(self.first_ts_ns, ts_ns)
        if (ts_ns, attempt) >= (self.last_ts_ns, self.last_attempt):
            self.last_ts_ns, self.last_value, self.last_attempt = ts_ns, value, attempt
        self._add_best(value)

    def add_by_storing(self, ts_ns: int, value: float | None) -> None:
        """Adds an event as schemas did before the migration "latest in time"."""
        self.events += 1
        self.last_ts_ns, self.last_value = ts_ns, value
        self._add_best(value)

    def _add_best(self, value: float | None) -> None:
        if value is not None:
            self.best_value = value if self.best_value is None else max(self.best_value, value)


class Rollups:
    """Sums up events in the order of storing; with `by_time` false, as older schemas did."""

    def __init__(self, *, by_time: bool = True) -> None:
        self.days: Counter[DayKey] = Counter()
        self.subjects: dict[SubjectKey, SubjectRow] = {}
        self._by_time = by_time

    def add_subject(self, event_type: str, ts_ns: int, user: str, props: Mapping[str, Any]) -> None:
        """Counts one event of a type that is summed up by subject."""
        event = subject_of(event_type, props)
        if event is None:
            return
        subject, value, attempt = event
        key = (event_type, subject, user)
        row = self.subjects.get(key)
        if row is None:
            attempt = attempt if self._by_time else 0
            self.subjects[key] = SubjectRow(1, ts_ns, ts_ns, value, value, attempt)
        elif self._by_time:
            row.add(ts_ns, value, attempt)
        else:
            row.add_by_storing(ts_ns, value)


def subject_of(event_type: str, props: Mapping[str, Any]) -> SubjectEvent | None:
    """Returns what a roll-up takes from an event of a type with subjects; None without one."""
    definition = SUBJECTS[event_type]
    subject = props.get(definition.key)
    if not isinstance(subject, str | int):
        return None
    value = _number(props.get(definition.value)) if definition.value else None
    attempt = props.get(definition.attempt) if definition.attempt else 0
    if type(attempt) is not int or not 0 <= attempt <= INT64_MAX:
        attempt = 0
    return SubjectEvent(str(subject), value, attempt)


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return float(value)
    return None


def by_time(connection: Connection) -> bool:
    """Returns whether the latest event is by time; in older schemas it is the last stored."""
    columns = connection.execute("PRAGMA table_info(rollup_subject)").fetchall()
    return any(column[1] == "last_attempt" for column in columns)


def add_functions(connection: Connection) -> None:
    """Adds the SQL functions with which the migration "latest in time" reads properties."""

    @lru_cache(maxsize=1)  # cached, since both functions are called for the same event
    def parts(event_type: str, props: bytes) -> tuple[str | None, float | None, int]:
        return subject_of(event_type, unpack_props(props)) or (None, None, 0)

    for at, name in enumerate(("subject_of", "value_of", "attempt_of")):
        connection.create_function(name, 2, lambda kind, props, at=at: parts(kind, props)[at])


def update(
    connection: Connection,
    events: Sequence[tuple[Producer, int, Event]],
    types: Mapping[str, int],
) -> None:
    """Adds the events to the roll-ups, inside the caller's transaction."""
    rollups = Rollups()
    # Counter counts a list faster than single events.
    rollups.days.update(
        [(kind, ts_ns // DAY_NS, user or "") for _, _, (kind, ts_ns, user, _) in events]
    )
    for _, _, (kind, ts_ns, user, props) in events:
        if kind in SUBJECTS and user is not None:
            rollups.add_subject(kind, ts_ns, user, unpack_props(props))
    connection.executemany(
        f"INSERT INTO rollup_day VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET {DAY_CONFLICT}",  # noqa: S608 - no data in it
        [(types[kind], day, user, count) for (kind, day, user), count in rollups.days.items()],
    )
    if not rollups.subjects:
        return
    connection.executemany(
        "INSERT INTO rollup_subject VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - no data in it
        f" ON CONFLICT DO UPDATE SET {SUBJECT_CONFLICT}",
        subject_rows(rollups, types),
    )


def subject_rows(rollups: Rollups, types: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """Returns the totals by subject that `rollups` holds, as rows of the table `rollup_subject`."""
    return [
        (types[kind], subject, user, row.events, row.first_ts_ns, row.last_ts_ns)
        + (row.last_value, row.best_value, row.last_attempt)
        for (kind, subject, user), row in rollups.subjects.items()
    ]
