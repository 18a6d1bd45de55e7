"""Checks the trail's records of events that were removed or redacted, for `verify`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from logd.audit import row_checks
from logd.audit.verify_rows import FINDINGS_MAX, BatchRow, RowCursor, Verdict, check_row
from logd.storage import hash_chain
from logd.storage.database import Connection
from logd.storage.migrations import schema_version
from logd_wire.schema import INTERNAL_TYPES, Malformed
from logd_wire.wire import unpack_props

# Removals that are checked at a time: the rows of all of them are read in one pass.
REMOVALS_PER_READ = 5000


class Removed:
    """What is recorded about removed and redacted events from `first_event` on, batch by batch."""

    def __init__(self, connection: Connection, verdict: Verdict, first_event: int) -> None:
        self._verdict = verdict
        self._recorded = schema_version(connection) >= 3
        if self._recorded:
            self._runs = RowCursor(
                connection,
                "SELECT first, last, removal FROM removed WHERE first >= coalesce("
                "(SELECT max(first) FROM removed WHERE first <= ?1), ?1) ORDER BY first",
                *(first_event, verdict, row_checks.REMOVED, "removal of event"),
            )
            self._leaves = RowCursor(
                connection,
                "SELECT event, hash FROM leaf WHERE event >= ? ORDER BY event",
                *(first_event, verdict, row_checks.LEAF, "leaf of event"),
            )
            self._redacted = RowCursor(
                connection,
                "SELECT event, removal, hash FROM redacted WHERE event >= ?"
                " ORDER BY event, removal",
                *(first_event, verdict, row_checks.REDACTED, "redaction of event"),
            )

    def restore_leaves(self, batch: BatchRow, present: dict[int, bytes]) -> tuple[set[int], bool]:
        """Adds the leaves that the batch was stored with to those `present`; returns the ids of the
        removed events, and whether no leaf is left to compare.
        """
        if not self._recorded:
            return set(), False
        end = batch.first_event + batch.events
        gone = self._gone(batch.first_event, end)
        again = gone & present.keys()
        for event_id in sorted(again):
            self._verdict.add_finding(
                f"{batch}: event {event_id} is still there, though it was removed"
            )
        redacted: dict[int, bytes] = {}
        for event_id, _removal, leaf in self._redacted.below(end):
            redacted[event_id] = leaf  # the latest counts
        for event_id, leaf in redacted.items():
            if event_id in present and present[event_id] != leaf:
                self._verdict.add_finding(
                    f"{batch}: event {event_id} was changed after its redaction"
                )
        kept = dict(self._leaves.below(end))
        for event_id in redacted.keys() | gone:
            present[event_id] = kept.get(event_id, b"")
        return gone, 0 < len(gone) == batch.events and not again

    def _gone(self, first: int, end: int) -> set[int]:
        runs, gone = self._runs, set[int]()
        while runs.row is not None and runs.row[0] < end:
            run_first, run_last, _removal = runs.row
            gone.update(range(max(first, run_first), min(end - 1, run_last) + 1))
            if run_last >= end:
                break  # the rest of it is in the next batch
            runs.advance()
        return gone


def check_removals(connection: Connection, verdict: Verdict, after: int, upto: int) -> None:
    """Checks each removal after `after` up to `upto` against its rows, and against the event that
    records it. Raises DatabaseError.
    """
    if schema_version(connection) < 3:
        return
    while True:
        rows = connection.execute(
            "SELECT id, event, kind, events, hash FROM removal WHERE id > ? AND id <= ?"
            " ORDER BY id LIMIT ?",
            (after, upto, REMOVALS_PER_READ),
        ).fetchall()
        last = upto if len(rows) < REMOVALS_PER_READ else rows[-1][0]
        _check_removals(connection, verdict, after, last, rows)
        if last == upto:
            return
        after = last


def _check_removals(
    connection: Connection, verdict: Verdict, after: int, upto: int, rows: Iterable[Any]
) -> None:
    hashes: dict[int, hash_chain.Removal] = {row[0]: hash_chain.Removal() for row in rows}
    unknown: set[int] = set()

    def hashed_in(removal: int) -> hash_chain.Removal:
        if removal not in hashes and len(unknown) <= FINDINGS_MAX:
            unknown.add(removal)
        return hashes.get(removal) or hash_chain.Removal()

    # Invalid rows are reported with their batch.
    for row in connection.execute(
        "SELECT first, last, removal FROM removed WHERE removal > ? AND removal <= ?"
        " ORDER BY first",
        (after, upto),
    ):
        if row_checks.problem(row, row_checks.REMOVED) is None:
            hashed_in(row[2]).add_run(*row[:2])
    for row in connection.execute(
        "SELECT event, removal, hash FROM redacted WHERE removal > ? AND removal <= ?"
        " ORDER BY event, removal",
        (after, upto),
    ):
        if row_checks.problem(row, row_checks.REDACTED) is None:
            hashed_in(row[1]).add_redaction(row[0], row[2])
    for row in rows:
        removal, event_id, kind, events, stored = row
        hashed = hashes[removal]
        verdict.removed += hashed.events
        if not check_row(row, row_checks.REMOVAL, f"removal {removal}", verdict):
            continue
        if hashed.events != events or hashed.hash(removal, kind) != stored:
            verdict.add_finding(f"removal {removal}: what it took out was changed")
        elif not _is_recorded(connection, removal, event_id, stored):
            verdict.add_finding(f"removal {removal}: event {event_id} does not record it")
    for removal in sorted(unknown):
        verdict.add_finding(f"removal {removal}: is missing, though events were removed by it")


def check_removed_in_batches(connection: Connection, verdict: Verdict, end: int) -> None:
    """Whether all removed events have ids before `end`, the first after the last batch."""
    if schema_version(connection) < 3:
        return
    row = connection.execute(
        "SELECT first FROM removed WHERE last >= ? ORDER BY first LIMIT 1", (end,)
    ).fetchone()
    if row is not None:
        verdict.add_finding(f"removal of event {row[0]}: no batch contains it")


def _is_recorded(connection: Connection, removal: int, event_id: int, digest: bytes) -> bool:
    row = connection.execute(
        "SELECT t.name, e.props FROM event e JOIN event_type t ON t.id = e.type WHERE e.id = ?",
        (event_id,),
    ).fetchone()
    if row is None or row[0] not in INTERNAL_TYPES:
        return False
    try:
        props = unpack_props(row[1])
    except Malformed:
        return False
    return (
        isinstance(props, dict)
        and props.get("removal") == removal
        and props.get("hash") == digest.hex()
    )
