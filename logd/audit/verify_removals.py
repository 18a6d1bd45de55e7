"""Checks the trail's records of events that were removed or redacted, for `logd verify`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from logd.audit import row_checks
from logd.audit.verify_rows import FINDINGS_MAX, BatchRow, RowCursor, Verdict, check_row
from logd.storage import batch_hash, hash_chain, merkle, removal_log
from logd.storage.database import Connection
from logd.storage.migrations import schema_version
from logd.storage.tree import NotKept, Tree
from logd.storage.tree_head import has_tree
from logd_wire.schema import INTERNAL_TYPES, Malformed
from logd_wire.wire import unpack_props

# The removals that are checked at a time, since the rows of all of them are read in one pass.
REMOVALS_PER_READ = 5000


@dataclass(frozen=True)
class Restored:
    """The hashes that a batch was stored with: of each event, or of a block of removed ones.

    `blocks` has (first event's place in the batch, level, hash) in any order.
    """

    events: int
    gone: set[int]
    none_left: bool
    blocks: list[tuple[int, int, bytes]]

    def root(self) -> bytes | None:
        """Returns the root of the batch's tree; None if `blocks` does not cover all events."""
        tree = merkle.Growing()
        if len(self.blocks) == self.events and not any(level for _, level, _ in self.blocks):
            return merkle.root([digest for _place, _level, digest in sorted(self.blocks)])
        for place, level, digest in sorted(self.blocks):
            if place != tree.size or place & ((1 << level) - 1):
                return None
            tree.append_block(level, digest)
        return tree.root() if tree.size == self.events else None

    def combined(self) -> bytes | None:
        """Returns the one hash over the events of a chained batch; None if one is missing."""
        blocks = sorted(self.blocks)
        if [block[:2] for block in blocks] != [(place, 0) for place in range(self.events)]:
            return None
        return hash_chain.combine(digest for _place, _level, digest in blocks)


class Removed:
    """Reads the records of removed and redacted events from `first_event` on, batch by batch."""

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
                f"SELECT event, {'level' if has_tree(connection) else 0}, hash FROM leaf"  # noqa: S608 - no data in it
                " WHERE event >= ? ORDER BY event",
                *(first_event, verdict, row_checks.LEAF, "leaf of event"),
            )
            self._redacted = RowCursor(
                connection,
                "SELECT event, removal, hash FROM redacted WHERE event >= ?"
                " ORDER BY event, removal",
                *(first_event, verdict, row_checks.REDACTED, "redaction of event"),
            )

    def restore(self, batch: BatchRow, present: Mapping[int, bytes]) -> Restored:
        """Returns the hashes that the batch was stored with, given leaves of the events present."""
        first, end = batch.first_event, batch.first_event + batch.events
        if not self._recorded:
            blocks = [(event_id - first, 0, leaf) for event_id, leaf in present.items()]
            return Restored(batch.events, set(), False, blocks)
        gone = self._gone(first, end)
        again = gone & present.keys()
        for event_id in sorted(again):
            self._verdict.add_finding(
                f"{batch}: event {event_id} is still there, though it was removed"
            )
        redacted: dict[int, bytes] = {}
        for event_id, _removal, leaf in self._redacted.below(end):
            redacted[event_id] = leaf  # the latest of several redactions counts
        for event_id, leaf in redacted.items():
            if event_id in present and present[event_id] != leaf:
                self._verdict.add_finding(
                    f"{batch}: event {event_id} was changed after its redaction"
                )
        kept = list(self._leaves.below(end))
        replaced = redacted.keys() | gone
        blocks = [
            (event_id - first, 0, leaf)
            for event_id, leaf in present.items()
            if event_id not in replaced
        ]
        blocks += [(event - first, level, digest) for event, level, digest in kept]
        none_left = 0 < len(gone) == batch.events and not again
        if none_left and kept:
            self._verdict.add_finding(f"{batch}: leaf of event {kept[0][0]}: no event needs it")
        return Restored(batch.events, gone, none_left, blocks)

    def _gone(self, first: int, end: int) -> set[int]:
        runs, gone = self._runs, set[int]()
        while runs.row is not None and runs.row[0] < end:
            run_first, run_last, _removal = runs.row
            gone.update(range(max(first, run_first), min(end - 1, run_last) + 1))
            if run_last >= end:
                break  # the rest of the run is in the next batch
            runs.advance()
        return gone


def check_removals(connection: Connection, verdict: Verdict, after: int, upto: int) -> None:
    """Checks the removals after `after` up to `upto`, each against its rows and its internal event.

    Raises DatabaseError.
    """
    if schema_version(connection) < 3:
        return
    collapsed = "collapsed_events" if has_tree(connection) else "0"
    waiting = "waiting_events" if removal_log.keeps_runs(connection) else "0"
    while True:
        rows = connection.execute(
            f"SELECT id, event, kind, events, hash, {collapsed}, {waiting} FROM removal"  # noqa: S608 - names only
            " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
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
    hashes: dict[int, batch_hash.Removal] = {row[0]: batch_hash.Removal() for row in rows}
    unknown: set[int] = set()

    def hashed_in(removal: int) -> batch_hash.Removal:
        if removal not in hashes and len(unknown) <= FINDINGS_MAX:
            unknown.add(removal)
        return hashes.get(removal) or batch_hash.Removal()

    # Invalid rows are skipped here, and are reported with their batch.
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
        removal, event_id, kind, events, stored, gone, waiting = row
        hashed = hashes[removal]
        if not check_row(row, row_checks.REMOVAL, f"removal {removal}", verdict):
            continue
        verdict.removed += hashed.events + gone
        # Once the runs of a removal are kept only as a number, its hash cannot be computed. Either
        # none of them is left, or schema 11 has collapsed a part: how many such removals there are
        # is recorded (`check_collapses`). No removal has redactions as well.
        if gone:
            changed = waiting > 0 or hashed.redactions > 0
        else:
            changed = waiting > events or hashed.hash(removal, kind) != stored
        if hashed.events + gone != events or changed:
            verdict.add_finding(f"removal {removal}: what it took out was changed")
        elif not _is_recorded(
            connection,
            event_id,
            {
                "removal": removal,
                "events": events,
                "hash": stored.hex(),
                "redacted": hashed.redactions,
            },
        ):
            verdict.add_finding(f"removal {removal}: event {event_id} does not record it")
    for removal in sorted(unknown):
        verdict.add_finding(f"removal {removal}: is missing, though events were removed by it")


def check_removed_in_batches(connection: Connection, verdict: Verdict, end: int) -> None:
    """Reports removed events, and leaves of them, whose id is not from 1 to before `end`."""
    if schema_version(connection) < 3:
        return
    row = connection.execute(
        "SELECT first FROM removed WHERE last >= ? ORDER BY first LIMIT 1", (end,)
    ).fetchone()
    if row is not None:
        verdict.add_finding(f"removal of event {row[0]}: no batch contains it")
    row = connection.execute(
        "SELECT event FROM leaf WHERE (event < 1 OR event >= ?) LIMIT 1", (end,)
    ).fetchone()
    if row is not None:
        verdict.add_finding(f"leaf of event {row[0]}: no batch contains it")


def check_collapses(connection: Connection, verdict: Verdict, next_event: int) -> None:
    """Reports missing batches that were not collapsed, and collapses that no event records."""
    batches = events = 0
    latest: Any = None
    ranges = set[tuple[int, int]]()
    for row in connection.execute(
        "SELECT id, event, first, last, batches, events FROM collapse ORDER BY id"
    ):
        number, event_id, *numbers = row
        if not check_row(row, row_checks.COLLAPSE, f"collapse {ascii(number)[:40]}", verdict):
            continue
        batches, events = batches + row[4], events + row[5]
        latest = row
        ranges.add((row[2], row[3]))
        props = dict(zip(("first", "last", "batches", "events"), numbers, strict=True))
        if not _is_recorded(connection, event_id, {"collapse": number, **props}):
            verdict.add_finding(f"collapse {number}: event {event_id} does not record it")
    if latest is not None:
        _check_latest(connection, verdict, *latest[:2])
    last, rows, present = connection.execute(
        "SELECT coalesce(max(id), 0), count(*), coalesce(sum(events), 0) FROM batch WHERE id > 0"
    ).fetchone()
    waiting = "waiting_events" if removal_log.keeps_runs(connection) else "0"
    (removed,) = connection.execute(
        f"SELECT coalesce(sum(collapsed_events + {waiting}), 0) FROM removal"  # noqa: S608 - a name
        f" WHERE typeof(collapsed_events) = 'integer' AND typeof({waiting}) = 'integer'"
    ).fetchone()
    if removed != events:
        verdict.add_finding(
            f"{events} events are of batches that were collapsed, removals record that of {removed}"
        )
    missing = last - rows, next_event - 1 - present
    if missing != (batches, events):
        verdict.add_finding(
            f"{missing[0]} batches with {missing[1]} events are not there any more, the trail"
            f" records that of {batches} with {events}{_first_missing(connection, ranges)}"
        )


def _check_latest(connection: Connection, verdict: Verdict, collapse: int, event_id: int) -> None:
    """Whether the tree still has the root that a collapse has recorded, and as many removals have
    lost a part of their runs. Of an earlier collapse, neither may be known any more.
    """
    props = _internal_props(connection, event_id)
    former = props.get("former")
    if former is not None:  # schema 11 did not record it
        (found,) = connection.execute(removal_log.COUNT_FORMER).fetchone()
        if found != former:
            verdict.add_finding(
                f"{found} removals lack a part of their runs, collapse {collapse} recorded {former}"
            )
    size, root = props.get("size"), props.get("root")
    if type(size) is not int:
        return  # that it does not record the collapse is reported
    try:
        if Tree(connection).root_at(size).hex() == root:
            return
    except NotKept:
        pass
    verdict.add_finding(
        f"the tree's hash over batches 1 to {size} is not the one that collapse {collapse} recorded"
    )


def _first_missing(connection: Connection, collapsed: Iterable[tuple[int, int]]) -> str:
    """Names the first batches without a row that are in no range of collapsed batches."""
    ranges, covered = iter(sorted(collapsed)), 0
    following = next(ranges, None)
    for first, last in connection.execute(
        "SELECT before + 1, id - 1 FROM (SELECT id, lag(id, 1, 0) OVER (ORDER BY id) AS before"
        " FROM batch WHERE id > 0) WHERE id > before + 1"
    ):
        start = max(first, covered + 1)
        while start <= last and following is not None and following[0] <= start:
            covered = max(covered, following[1])
            start, following = max(start, covered + 1), next(ranges, None)
        if start <= last:
            return f": batch {start} to {last} is recorded nowhere"
    return ""


def _is_recorded(connection: Connection, event_id: int, expected: Mapping[str, object]) -> bool:
    """Whether the event is internal and has all of the expected properties."""
    props = _internal_props(connection, event_id)
    return all(
        type(props.get(key)) is type(value) and props.get(key) == value
        for key, value in expected.items()
    )


def _internal_props(connection: Connection, event_id: int) -> Mapping[str, Any]:
    """The properties of that event; none if it is not an internal one."""
    row = connection.execute(
        "SELECT t.name, e.props FROM event e JOIN event_type t ON t.id = e.type WHERE e.id = ?",
        (event_id,),
    ).fetchone()
    if row is None or row[0] not in INTERNAL_TYPES:
        return {}
    try:
        props = unpack_props(row[1])
    except Malformed:
        return {}
    return props if isinstance(props, dict) else {}
