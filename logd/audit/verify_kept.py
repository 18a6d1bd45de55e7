"""Checks the tables that are kept beside the events: counters, roll-ups, blocks, counts by type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logd.audit.recomputed import Difference, Recomputed
from logd.audit.verify_rows import FINDINGS_MAX, Verdict
from logd.audit.verify_values import check_values
from logd.batch import LOST_CLAIMED
from logd.storage.database import Connection
from logd.storage.migrations import schema_version
from logd.storage.removal_log import ERASED, PRUNED
from logd.storage.rollups import SubjectRow
from logd_wire.schema import INT64_MAX

_SUBJECT_COLUMNS = (
    "events",
    "first_ts_ns",
    "last_ts_ns",
    "last_value",
    "best_value",
    "last_attempt",
)


class KeptCheck:
    """Compares the tables kept beside the events with recomputed ones, or with counted events."""

    def __init__(self, connection: Connection, recomputed: Recomputed, verdict: Verdict) -> None:
        self._connection, self._recomputed, self._verdict = connection, recomputed, verdict

    def check_counters(self, stored_events: int | None = None, batches: int | None = None) -> None:
        """Compares the counters with the rows that they count.

        Numbers of events ever stored and of batches that are known already save counting them.
        """
        query = self._connection.execute
        counters = dict(query("SELECT name, value FROM counter").fetchall())
        if stored_events is None:
            gone = counters.get(PRUNED, 0) + counters.get(ERASED, 0)
            stored_events = query("SELECT count(*) FROM event").fetchone()[0] + gone
        if batches is None:
            # The last number is taken, not the count:
            # rows of batches without any remaining event may be gone.
            (batches,) = query("SELECT coalesce(max(id), 0) FROM batch").fetchone()
        lost = "SELECT coalesce(sum(last - first + 1), 0) FROM loss WHERE cause"
        checks: list[tuple[str, int]] = [
            ("stored", stored_events),
            ("lost", query(f"{lost} <> '{LOST_CLAIMED}'").fetchone()[0]),
            ("lost_claimed", query(f"{lost} = '{LOST_CLAIMED}'").fetchone()[0]),
            ("commits", batches),
        ]
        if schema_version(self._connection) >= 3:
            by_kind = "SELECT coalesce(sum(events), 0) FROM removal WHERE kind = ?"
            checks += [(kind, query(by_kind, (kind,)).fetchone()[0]) for kind in (PRUNED, ERASED)]
        for name, counted in checks:
            if counted != counters.get(name, 0):
                self._verdict.add_finding(
                    f"counter {name}: {counters.get(name, 0)}, counted {counted}"
                )

    def check_days(self, where: str = "") -> None:
        """Compares the roll-ups by day; `where` restricts the rows `r`."""
        for row in self._differences("rollup_day", ("type", "day", "user"), ("events",), where):
            key = (self._type_name(row.key[0]), *row.key[1:])
            self._report(
                "rollup_day", key, row.stored and row.stored[0], row.counted and row.counted[0]
            )

    def check_subjects(self, where: str = "") -> None:
        """Compares the roll-ups by subject; `where` restricts the rows `r`."""
        keys = ("type", "subject", "user")
        columns = _SUBJECT_COLUMNS[: None if self._recomputed.by_time else -1]
        for row in self._differences("rollup_subject", keys, columns, where):
            key = (self._type_name(row.key[0]), *row.key[1:])
            stored, counted = (side and SubjectRow(*side) for side in (row.stored, row.counted))
            self._report("rollup_subject", key, stored, counted)

    def check_blocks(self, where: str = "") -> None:
        """Compares the blocks of events; `where` restricts the rows `r`."""
        if schema_version(self._connection) < 2:
            return  # schemas before 2 have no blocks
        columns = ("first_ts_ns", "last_ts_ns")
        for row in self._differences("event_block", ("block",), columns, where):
            self._report("event_block", row.key[0], row.stored, row.counted)

    def check_values(self, first: int = -INT64_MAX, last: int = INT64_MAX) -> None:
        """Compares the values of the blocks from `first` to `last`."""
        check_values(self._connection, self._verdict, first, last)

    def check_types(self, counted: Mapping[int, int], where: str = "true") -> None:
        """Compares the counts by type with `counted`, for the types for which `where` holds."""
        if schema_version(self._connection) < 2:
            return
        rows = self._connection.execute(
            f"SELECT id, name, events FROM event_type WHERE {where}"  # noqa: S608 - no data in it
        ).fetchall()
        # A type keeps its row even when all of its events are removed.
        for type_id, name, events in rows:
            if events != counted.get(type_id, 0):
                self._report("event_type", name, events, counted.get(type_id))
        for type_id in sorted(counted.keys() - {row[0] for row in rows}):
            self._report("event_type", type_id, None, counted[type_id])

    def _differences(
        self, table: str, keys: tuple[str, ...], columns: tuple[str, ...], where: str
    ) -> list[Difference]:
        rows = self._recomputed.differences(table, keys, columns, FINDINGS_MAX + 1, where)
        return sorted(rows, key=lambda row: str(row.key))

    def _report(self, table: str, key: object, stored: object, counted: object) -> None:
        self._verdict.add_finding(f"{table} {key}: {stored} stored, {counted} by the events")

    def _type_name(self, type_id: Any) -> Any:
        row = self._connection.execute(
            "SELECT name FROM event_type WHERE id = ?", (type_id,)
        ).fetchone()
        return row[0] if row else type_id
