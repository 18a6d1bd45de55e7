"""Recomputes roll-ups, blocks and sequences from the events, in tables of an encrypted file.

The tables may need more than the memory. The file is among the system's temporary files, its random
key is kept nowhere, and it is removed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from logd.errors import NotChecked
from logd.storage.database import Connection
from logd.storage.rollups import (
    DAY_CONFLICT,
    DAY_NS,
    SUBJECT_CONFLICT,
    SUBJECT_CONFLICT_BY_STORING,
    Rollups,
    by_time,
    subject_rows,
)
from logd.storage.time_blocks import BLOCK_BITS, BLOCK_CONFLICT
from logd_wire.schema import SUBJECTS, Malformed
from logd_wire.wire import unpack_props

KEY_BYTES = 32
CACHE_KIB = 16 * 1024
# So many events are summed up at a time, while their pages are still in the cache.
EVENTS_PER_WINDOW = 20_000
# The directory of the file is not /tmp, which is often in memory.
DIRECTORY = "/var/tmp"  # noqa: S108 - only a directory with a random name is made here
FREE_BYTES_MIN = 1024 * 1024
NAME = "recomputed"

# The columns have the types of the database's own tables, since SQLite uses an index only then.
_TABLES = (
    "rollup_day (type INTEGER, day INTEGER, user TEXT, events INTEGER,"
    " PRIMARY KEY (type, day, user)) WITHOUT ROWID",
    "rollup_subject (type INTEGER, subject TEXT, user TEXT, events INTEGER, first_ts_ns INTEGER,"
    " last_ts_ns INTEGER, last_value REAL, best_value REAL, last_attempt INTEGER,"
    " PRIMARY KEY (type, subject, user)) WITHOUT ROWID",
    "event_block (block INTEGER PRIMARY KEY, first_ts_ns INTEGER, last_ts_ns INTEGER)",
    "sequence (producer INTEGER PRIMARY KEY, first INTEGER, last INTEGER, low INTEGER,"
    " high INTEGER)",
)


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """Makes a directory for the recomputed tables, and removes it at the end of the `with` block.

    Raises NotChecked if it cannot be made.
    """
    try:
        place = os.environ.get("TMPDIR") or (DIRECTORY if os.access(DIRECTORY, os.W_OK) else None)
        directory = tempfile.TemporaryDirectory(prefix="logd-verify-", dir=place)
    except OSError as error:
        raise NotChecked(
            f"not checked: no working file can be made ({error}). Free some space in {DIRECTORY},"
            " or name another directory in TMPDIR."
        ) from error
    with directory as name:
        try:
            yield Path(name)
        except NotChecked as error:
            if shutil.disk_usage(name).free < FREE_BYTES_MIN:
                raise NotChecked(
                    f"not checked: no space is left for a working file in {name}. Free some, or"
                    " name another directory in TMPDIR."
                ) from error
            raise


@contextlib.contextmanager
def attached(connection: Connection, path: Path, key: bytes, name: str = NAME) -> Iterator[None]:
    """Attaches a file of recomputed tables, outside a transaction.

    A database that was opened read-only stays read-only.
    """
    execute = connection.execute
    execute(f"ATTACH ? AS {name} KEY ?", (str(path), f"x'{key.hex()}'"))
    (query_only,) = execute("PRAGMA query_only").fetchone()
    execute("PRAGMA query_only = OFF")
    try:
        execute(f"PRAGMA {name}.journal_mode = OFF").fetchall()
        execute(f"PRAGMA {name}.synchronous = OFF")
        execute(f"PRAGMA {name}.cache_size = -{CACHE_KIB}")
        for table in _TABLES:
            execute(f"CREATE TABLE IF NOT EXISTS {name}.{table}")
        yield
    finally:
        execute(f"DETACH {name}")
        execute(f"PRAGMA query_only = {query_only}")


@contextlib.contextmanager
def temporary(connection: Connection) -> Iterator[None]:
    """Attaches empty tables in a file that only this process uses."""
    with (
        temporary_directory() as directory,
        attached(connection, directory / NAME, os.urandom(KEY_BYTES)),
    ):
        yield


@dataclass(frozen=True)
class Difference:
    """A row that differs from the events; `stored` or `counted` is None if it lacks the row."""

    key: tuple[Any, ...]
    stored: tuple[Any, ...] | None
    counted: tuple[Any, ...] | None


class Recomputed:
    """The recomputed tables of one connection; events are added in the order of their storing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def by_time(self) -> bool:
        """Whether the database sums up subjects by time; older schemas use the order of storing."""
        return by_time(self._connection)

    @property
    def _subject_conflict(self) -> str:
        return SUBJECT_CONFLICT if self.by_time else SUBJECT_CONFLICT_BY_STORING

    @cached_property
    def _types(self) -> dict[int, str]:
        """The names of the event types that are summed up by subject, by the type's number."""
        marks = ", ".join("?" * len(SUBJECTS))
        return dict(
            self._connection.execute(
                f"SELECT id, name FROM event_type WHERE name IN ({marks})",  # noqa: S608 - marks only
                list(SUBJECTS),
            )
        )

    def add(self, first: int, end: int) -> None:
        """Adds the events with ids from `first` to before `end` to all tables, a part at a time."""
        for start in range(first, end, EVENTS_PER_WINDOW):
            window = start, min(end, start + EVENTS_PER_WINDOW)
            self.add_days(*window)
            self.add_subjects(*window)
            self.add_blocks(*window)

    def add_days(
        self, first: int, end: int, where: str = "", values: Sequence[object] = ()
    ) -> None:
        """Adds the events from `first` to before `end`, if `where` holds, to the sums by day."""
        self._connection.execute(
            f"INSERT INTO {NAME}.rollup_day"  # noqa: S608 - no data in it
            f" SELECT type, ts_ns / {DAY_NS}, coalesce(user, ''), count(*) FROM event"
            f" WHERE id >= ? AND id < ? {where} GROUP BY 1, 2, 3"
            f" ON CONFLICT DO UPDATE SET {DAY_CONFLICT}",
            (first, end, *values),
        )

    def add_blocks(self, first: int, end: int) -> None:
        """Adds the events from `first` to before `end` to the times of their blocks."""
        self._connection.execute(
            f"INSERT INTO {NAME}.event_block"  # noqa: S608 - no data in it
            f" SELECT id >> {BLOCK_BITS}, min(ts_ns), max(ts_ns) FROM event"
            " WHERE id >= ? AND id < ? GROUP BY 1"
            f" ON CONFLICT DO UPDATE SET {BLOCK_CONFLICT}",
            (first, end),
        )

    def add_subjects(self, first: int, end: int) -> None:
        """Adds the events from `first` to before `end` to the sums by subject."""
        types = ", ".join(map(str, self._types))
        rows = self._connection.execute(
            "SELECT type, ts_ns, user, props FROM event WHERE id >= ? AND id < ?"  # noqa: S608 - numbers only
            f" AND type IN ({types}) AND user IS NOT NULL ORDER BY id",
            (first, end),
        )
        self.add_subject_rows(rows)

    def add_subject_rows(self, rows: Iterable[tuple[int, int, str, bytes]]) -> None:
        """Adds (type, time, user, properties) to the sums by subject, in the order of storing."""
        ids = {name: type_id for type_id, name in self._types.items()}
        sums = Rollups(by_time=self.by_time)
        for type_id, ts_ns, user, props in rows:
            try:
                sums.add_subject(self._types[type_id], ts_ns, user, unpack_props(props))
            except (Malformed, TypeError, ValueError, AttributeError):
                continue  # an invalid row is reported by the check of its batch
            if len(sums.subjects) >= EVENTS_PER_WINDOW:
                self._write_subjects(sums, ids)
                sums = Rollups(by_time=self.by_time)
        self._write_subjects(sums, ids)

    def _write_subjects(self, sums: Rollups, ids: dict[str, int]) -> None:
        self._connection.executemany(
            f"INSERT INTO {NAME}.rollup_subject VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - no data in it
            f" ON CONFLICT DO UPDATE SET {self._subject_conflict}",
            subject_rows(sums, ids),
        )

    def merge(self, source: str) -> None:
        """Adds tables of the schema `source`, whose events were stored after those added so far."""
        for table, conflict in (
            ("rollup_day", DAY_CONFLICT),
            ("rollup_subject", self._subject_conflict),
            ("event_block", BLOCK_CONFLICT),
        ):
            self._connection.execute(
                f"INSERT INTO {NAME}.{table} SELECT * FROM {source}.{table} WHERE true"  # noqa: S608 - no data in it
                f" ON CONFLICT DO UPDATE SET {conflict}"
            )

    def differences(
        self, table: str, keys: Sequence[str], columns: Sequence[str], limit: int, where: str = ""
    ) -> list[Difference]:
        """Returns the rows of a table that differ, of those (`r`) for which `where` holds."""
        join = " AND ".join(f"r.{key} = o.{key}" for key in keys)
        differ = " OR ".join(f"r.{column} IS NOT o.{column}" for column in columns)
        key_list = ", ".join(f"r.{key}" for key in keys)
        values = ", ".join(f"{side}.{column}" for side in "ro" for column in columns)
        present = f"o.{keys[-1]} IS NOT NULL"
        ends = len(keys), len(keys) + len(columns)
        found: list[Difference] = []
        for this, other, condition in (
            ("main", NAME, differ),
            (NAME, "main", f"NOT ({present})"),
        ):
            for row in self._connection.execute(
                f"SELECT {key_list}, {values}, {present} FROM {this}.{table} r"  # noqa: S608 - no data in it
                f" LEFT JOIN {other}.{table} o ON {join} WHERE ({condition}) {where} LIMIT ?",
                (limit,),
            ):
                key, mine = tuple(row[: ends[0]]), tuple(row[ends[0] : ends[1]])
                theirs = tuple(row[ends[1] : -1]) if row[-1] else None
                found.append(
                    Difference(key, mine, theirs)
                    if this == "main"
                    else Difference(key, theirs, mine)
                )
        return found

    def types(self) -> Counter[int]:
        """Returns the number of events of each type, by the type's number."""
        return Counter(
            dict(
                self._connection.execute(
                    f"SELECT type, sum(events) FROM {NAME}.rollup_day GROUP BY type"  # noqa: S608 - no data in it
                )
            )
        )
