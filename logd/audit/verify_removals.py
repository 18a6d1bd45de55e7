"""Checks the trail's records of events that were removed or redacted, for `verify`."""

from __future__ import annotations

from logd.audit import row_checks
from logd.audit.verify_rows import BatchRow, RowCursor, Verdict, check_row
from logd.storage import hash_chain
from logd.storage.database import Connection
from logd.storage.migrations import schema_version
from logd_wire.schema import INTERNAL_TYPES, Malformed
from logd_wire.wire import unpack_props


class RemovalCheck:
    """Checks the records of removed and redacted events, batch by batch."""

    def __init__(self, connection: Connection, verdict: Verdict) -> None:
        self._connection = connection
        self._verdict = verdict
        self._hashes: dict[int, hash_chain.Removal] = {}
        self._recorded = schema_version(connection) >= 3
        if self._recorded:
            self._runs = RowCursor(
                connection,
                "SELECT first, last, removal FROM removed ORDER BY first",
                *(verdict, row_checks.REMOVED, "removal of event"),
            )
            self._leaves = RowCursor(
                connection,
                "SELECT event, hash FROM leaf ORDER BY event",
                *(verdict, row_checks.LEAF, "leaf of event"),
            )
            self._redacted = RowCursor(
                connection,
                "SELECT event, removal, hash FROM redacted ORDER BY event, removal",
                *(verdict, row_checks.REDACTED, "redaction of event"),
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
        for event_id, removal, leaf in self._redacted.below(end):
            self._hash(removal).add_redaction(event_id, leaf)
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
            run_first, run_last, removal = runs.row
            gone.update(range(max(first, run_first), min(end - 1, run_last) + 1))
            if run_last >= end:
                break  # the rest of it is in the next batch
            self._hash(removal).add_run(run_first, run_last)
            runs.advance()
        return gone

    def _hash(self, removal: int) -> hash_chain.Removal:
        return self._hashes.setdefault(removal, hash_chain.Removal())

    def check(self) -> None:
        """Checks each removal against the event that records it; called after the last batch."""
        if not self._recorded:
            return
        if self._runs.row is not None:
            self._verdict.add_finding(f"removal of event {self._runs.row[0]}: no batch contains it")
        for row in self._connection.execute(
            "SELECT id, event, kind, events, hash FROM removal ORDER BY id"
        ):
            removal, event_id, kind, events, stored = row
            hashed = self._hashes.pop(removal, hash_chain.Removal())
            self._verdict.removed += hashed.events
            if not check_row(row, row_checks.REMOVAL, f"removal {removal}", self._verdict):
                continue
            if hashed.events != events or hashed.hash(removal, kind) != stored:
                self._verdict.add_finding(f"removal {removal}: what it took out was changed")
            elif not self._is_recorded(removal, event_id, stored):
                self._verdict.add_finding(f"removal {removal}: event {event_id} does not record it")
        for removal in self._hashes:
            self._verdict.add_finding(
                f"removal {removal}: is missing, though events were removed by it"
            )

    def _is_recorded(self, removal: int, event_id: int, digest: bytes) -> bool:
        row = self._connection.execute(
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
