"""Recomputes roll-ups by subject when some of a user's events are removed.

The roll-ups have the latest and the best value, which cannot be computed by subtraction. So all
events of one user and type are read, a part at a time: those to remove are kept one by one, the
others as a sum for each subject.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from logd.storage.database import Connection
from logd.storage.rollups import subject_of
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.wire import unpack_props

# The most events of one user and type that one recount removes, which bounds its memory.
REMOVED_MAX = 20_000

# Returns whether an event, given by id and time (ns), is to be removed.
Goes = Callable[[int, int], bool]

_Event = tuple[int, int, float | None, int]  # an event: id, time (ns), value, attempt


@dataclass
class _Sum:
    """The roll-up of one subject's events, which may be added in any order."""

    events: int = 0
    first_ts_ns: int = 0
    last: tuple[int, int, int] = (0, 0, 0)  # the latest event: time, attempt, id
    last_value: float | None = None
    best: float | None = None

    def add(self, event_id: int, ts_ns: int, value: float | None, attempt: int) -> None:
        self.first_ts_ns = min(self.first_ts_ns, ts_ns) if self.events else ts_ns
        if not self.events or (ts_ns, attempt, event_id) > self.last:
            self.last, self.last_value = (ts_ns, attempt, event_id), value
        if value is not None:
            self.best = value if self.best is None else max(self.best, value)
        self.events += 1


class SubjectRecount:
    """The events of one user and type: those to remove, and by subject the sum of the others."""

    def __init__(self, event_type: str, type_id: int, user: str, goes: Goes) -> None:
        self._event_type, self._type_id, self._user, self._goes = event_type, type_id, user, goes
        self._read_to = 0
        self._stays: defaultdict[str, _Sum] = defaultdict(_Sum)
        self._subjects: defaultdict[str, list[_Event]] = defaultdict(list)
        self._subject_of: dict[int, str | None] = {}  # the subject of each event to remove, by id

    @property
    def ids(self) -> list[int]:
        """The ids of the events to remove, ascending."""
        return list(self._subject_of)

    def read(self, connection: Connection, rows_max: int) -> bool:
        """Reads up to `rows_max` more events; returns whether all have been read."""
        rows = connection.execute(
            # The plus removes the column's affinity, which would keep SQLite from using the index.
            "SELECT e.id, e.ts_ns, e.props FROM event_block b CROSS JOIN event e"  # noqa: S608 - no data in it
            f" INDEXED BY event_user ON (e.id >> {BLOCK_BITS}) = +b.block"
            f" WHERE b.block >= ? >> {BLOCK_BITS} AND e.user = ? AND e.type = ? AND e.id > ?"
            " ORDER BY b.block, e.id LIMIT ?",
            (self._read_to, self._user, self._type_id, self._read_to, rows_max),
        ).fetchall()
        for event_id, ts_ns, props in rows:
            event = subject_of(self._event_type, unpack_props(props))
            if self._goes(event_id, ts_ns) and len(self._subject_of) < REMOVED_MAX:
                self._subject_of[event_id] = event and event.subject
                if event:
                    self._subjects[event.subject].append((event_id, ts_ns, *event[1:]))
            elif event:
                self._stays[event.subject].add(event_id, ts_ns, *event[1:])
            self._read_to = event_id
        return len(rows) < rows_max

    def write(self, connection: Connection, gone: Collection[int]) -> None:
        """Updates the roll-ups for the removal of the events `gone`, and drops them from `ids`.

        Called inside the transaction that removes them.
        """
        while not self.read(connection, 1000):
            pass  # read what was stored since the last read
        for subject in {self._subject_of.pop(event_id) for event_id in gone} - {None}:
            assert subject is not None
            left = [event for event in self._subjects[subject] if event[0] not in gone]
            self._subjects[subject] = left
            total = replace(self._stays.get(subject, _Sum()))
            for event in left:
                total.add(*event)
            key = (self._type_id, subject, self._user)
            if total.events:
                connection.execute(
                    "UPDATE rollup_subject SET events = ?, first_ts_ns = ?, last_ts_ns = ?,"
                    " last_value = ?, best_value = ?, last_attempt = ?"
                    " WHERE type = ? AND subject = ? AND user = ?",
                    (total.events, total.first_ts_ns, total.last[0], total.last_value, total.best)
                    + (total.last[1], *key),
                )
            else:
                connection.execute(
                    "DELETE FROM rollup_subject WHERE type = ? AND subject = ? AND user = ?", key
                )
