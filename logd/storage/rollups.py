"""Roll-ups: what dashboards query often, updated in the batch's own transaction.

`verify` recomputes those by subject with the same functions, those by day with one statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logd.batch import Producer
from logd.storage.database import Connection
from logd_wire.schema import SUBJECTS
from logd_wire.wire import Event, unpack_props

DAY_NS = 86_400 * 10**9

# How the sum over later events is added to a row.
DAY_CONFLICT = "events = events + excluded.events"
SUBJECT_CONFLICT = (
    "events = events + excluded.events, last_ts_ns = excluded.last_ts_ns,"
    " last_value = excluded.last_value, best_value = CASE"
    " WHEN best_value IS NULL THEN excluded.best_value"
    " WHEN excluded.best_value IS NULL THEN best_value"
    " ELSE max(best_value, excluded.best_value) END"
)

DayKey = tuple[str, int, str]
SubjectKey = tuple[str, str, str]


@dataclass(slots=True)
class SubjectRow:
    """One user's state in one subject: attempts, first and last time, latest and best value."""

    events: int
    first_ts_ns: int
    last_ts_ns: int
    last_value: float | None
    best_value: float | None


class Rollups:
    """Sums up events in the order of storing."""

    def __init__(self) -> None:
        self.days: Counter[DayKey] = Counter()
        self.subjects: dict[SubjectKey, SubjectRow] = {}

    def add_subject(self, event_type: str, ts_ns: int, user: str, props: Mapping[str, Any]) -> None:
        """Counts one event of a type that is summed up by subject."""
        subject, value = subject_of(event_type, props)
        if subject is None:
            return
        key = (event_type, subject, user)
        row = self.subjects.get(key)
        if row is None:
            self.subjects[key] = SubjectRow(1, ts_ns, ts_ns, value, value)
            return
        row.events += 1
        row.last_ts_ns = ts_ns
        row.last_value = value
        row.best_value = max((v for v in (row.best_value, value) if v is not None), default=None)


def subject_of(event_type: str, props: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """The subject of an event of a type with subjects, or None; and its value."""
    definition = SUBJECTS[event_type]
    subject = props.get(definition.key)
    if not isinstance(subject, str | int):
        return None, None
    return str(subject), _number(props.get(definition.value)) if definition.value else None


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return float(value)
    return None


def update(
    connection: Connection,
    events: Sequence[tuple[Producer, int, Event]],
    types: Mapping[str, int],
) -> None:
    """Adds the events to the roll-ups, inside the caller's transaction."""
    rollups = Rollups()
    # The same as `Rollups.add` for each, but Counter counts a list faster.
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
    connection.executemany(
        "INSERT INTO rollup_subject VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - no data in it
        f" ON CONFLICT DO UPDATE SET {SUBJECT_CONFLICT}",
        subject_rows(rollups, types),
    )


def subject_rows(rollups: Rollups, types: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """The rows of `rollup_subject` that the sums give."""
    return [
        (types[kind], subject, user, row.events, row.first_ts_ns, row.last_ts_ns)
        + (row.last_value, row.best_value)
        for (kind, subject, user), row in rollups.subjects.items()
    ]
