"""`logd verify`: recomputes chain, sums and roll-ups from what is stored, and says what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from logd.audit import row_checks
from logd.audit.verify_rows import Ahead, BatchRow, Verdict, batches, in_order
from logd.batch import LOST_CLAIMED
from logd.storage import hash_chain
from logd.storage.database import Connection, DatabaseError
from logd.storage.migrations import schema_version
from logd.storage.removal_log import ERASED, PRUNED
from logd.storage.rollups import Rollups, SubjectRow
from logd.storage.time_blocks import Blocks
from logd_wire.schema import INTERNAL_TYPES, Malformed
from logd_wire.wire import unpack_props

Progress = Callable[[int], None]


def verify(connection: Connection, progress: Progress = lambda _events: None) -> Verdict:
    """Reads everything as of one moment. `progress` is told of events as they are checked."""
    verdict = Verdict()
    connection.execute("BEGIN")  # one moment: the daemon goes on writing behind it
    try:
        rollups, blocks = Rollups(), Blocks()
        for check in (
            partial(_check_pages, connection, verdict),
            partial(_check_chain, connection, verdict, rollups, blocks, progress),
            partial(_check_sums, connection, verdict),
            partial(_check_rollups, connection, verdict, rollups),
            partial(_check_blocks, connection, verdict, rollups, blocks),
        ):
            try:
                check()
            except DatabaseError as error:
                verdict.found(f"file: cannot be read on: {error}")
    finally:
        connection.execute("ROLLBACK")
    return verdict


def _check_pages(connection: Connection, verdict: Verdict) -> None:
    """SQLCipher's own check: every page against the keyed hash stored with it."""
    for (problem,) in connection.execute("PRAGMA cipher_integrity_check"):
        verdict.found(f"file: {problem}")


class _Removals:
    """What is noted of events that are gone or say less, batch by batch."""

    def __init__(self, connection: Connection, verdict: Verdict) -> None:
        self._connection = connection
        self._verdict = verdict
        self._hashes: dict[int, hash_chain.Removal] = {}
        self.there = schema_version(connection) >= 3
        if self.there:
            self._runs = Ahead(
                connection,
                "SELECT first, last, removal FROM removed ORDER BY first",
                *(verdict, row_checks.REMOVED, "removal of event"),
            )
            self._leaves = Ahead(
                connection,
                "SELECT event, hash FROM leaf ORDER BY event",
                *(verdict, row_checks.LEAF, "leaf of event"),
            )
            self._redacted = Ahead(
                connection,
                "SELECT event, removal, hash FROM redacted ORDER BY event, removal",
                *(verdict, row_checks.REDACTED, "redaction of event"),
            )

    def of(self, batch: BatchRow, present: dict[int, bytes]) -> tuple[set[int], bool]:
        """Puts the leaves that the batch was stored with among those `present`; the ids of events
        that are gone, and whether no leaf is left to compare.
        """
        if not self.there:
            return set(), False
        end = batch.first_event + batch.events
        gone = self._gone(batch.first_event, end)
        again = gone & present.keys()
        for event_id in sorted(again):
            self._verdict.found(f"{batch}: event {event_id} is there, though it was removed")
        said: dict[int, bytes] = {}
        for event_id, removal, leaf in self._redacted.below(end):
            self._hash(removal).add_redaction(event_id, leaf)
            said[event_id] = leaf  # the latest counts
        for event_id, leaf in said.items():
            if event_id in present and present[event_id] != leaf:
                self._verdict.found(f"{batch}: event {event_id} was changed after its redaction")
        kept = dict(self._leaves.below(end))
        for event_id in said.keys() | gone:
            present[event_id] = kept.get(event_id, b"")
        return gone, 0 < len(gone) == batch.events and not again

    def _gone(self, first: int, end: int) -> set[int]:
        runs, gone = self._runs, set[int]()
        while runs.row is not None and runs.row[0] < end:
            run_first, run_last, removal = runs.row
            gone.update(range(max(first, run_first), min(end - 1, run_last) + 1))
            if run_last >= end:
                break  # the next batch has the rest of it
            self._hash(removal).add_run(run_first, run_last)
            runs.advance()
        return gone

    def _hash(self, removal: int) -> hash_chain.Removal:
        return self._hashes.setdefault(removal, hash_chain.Removal())

    def check(self) -> None:
        """Behind the last batch: whether each removal is the one that the chain tells of."""
        if not self.there:
            return
        if self._runs.row is not None:
            self._verdict.found(f"removal of event {self._runs.row[0]}: no batch has it")
        for row in self._connection.execute(
            "SELECT id, event, kind, events, hash FROM removal ORDER BY id"
        ):
            removal, event_id, kind, events, stored = row
            hashed = self._hashes.pop(removal, hash_chain.Removal())
            self._verdict.removed += hashed.events
            if not in_order(row, row_checks.REMOVAL, f"removal {removal}", self._verdict):
                continue
            if hashed.events != events or hashed.hash(removal, kind) != stored:
                self._verdict.found(f"removal {removal}: what it took out was changed")
            elif not self._is_said(removal, event_id, stored):
                self._verdict.found(f"removal {removal}: event {event_id} does not say so")
        for removal in self._hashes:
            self._verdict.found(f"removal {removal}: is not there, though events are gone by it")

    def _is_said(self, removal: int, event_id: int, digest: bytes) -> bool:
        row = self._connection.execute(
            "SELECT t.name, e.props FROM event e JOIN event_type t ON t.id = e.type WHERE e.id = ?",
            (event_id,),
        ).fetchone()
        if row is None or row[0] not in INTERNAL_TYPES:
            return False
        try:
            said = unpack_props(row[1])
        except Malformed:
            return False
        return (
            isinstance(said, dict)
            and said.get("removal") == removal
            and said.get("hash") == digest.hex()
        )


def _check_chain(
    connection: Connection, verdict: Verdict, rollups: Rollups, blocks: Blocks, progress: Progress
) -> None:
    head, next_batch, next_event = hash_chain.GENESIS, 1, 1
    losses_hashed, follows = 0, True
    removals = _Removals(connection, verdict)
    for number, batch in batches(connection, verdict):
        if number != next_batch:
            verdict.found(f"batch {next_batch} to {number - 1}: removed")
        next_batch = number + 1
        verdict.batches += 1
        if batch is None:
            follows = False
            continue
        if follows and batch.first_event != next_event:
            verdict.found(f"{batch}: does not follow event {next_event - 1}")
        _check_events(connection, batch, verdict, rollups, blocks, removals, progress)
        losses = _losses(connection, batch, verdict)
        losses_hashed += len(losses)
        expected = hash_chain.link(
            head,
            batch.id,
            batch.stored_ns,
            batch.first_event,
            batch.events,
            batch.leaves_hash,
            hash_chain.combine(losses),
        )
        if follows and expected != batch.hash:
            verdict.found(f"{batch}: its hash does not follow from the batch before it")
        head = batch.hash
        next_event, follows = batch.first_event + batch.events, True
    verdict.head = head.hex()
    removals.check()
    stray = connection.execute(
        "SELECT count(*) FROM event WHERE id >= ? OR id < 1", (next_event,)
    ).fetchone()[0]
    if stray:
        verdict.found(f"{stray} events belong to no batch")
    below, losses_there = connection.execute(
        "SELECT (SELECT count(*) FROM batch WHERE id < 1), (SELECT count(*) FROM loss)"
    ).fetchone()
    if below:
        verdict.found(f"{below} batches have numbers below 1")
    if losses_there != losses_hashed:
        verdict.found(f"loss ledger: {losses_there} entries, {losses_hashed} belong to batches")


def _losses(connection: Connection, batch: BatchRow, verdict: Verdict) -> list[bytes]:
    """The leaves of the batch's entries in the loss ledger."""
    rows = connection.execute(
        "SELECT p.uid, p.key, l.first, l.last, l.cause FROM loss l"
        " LEFT JOIN producer p ON p.id = l.producer WHERE l.batch = ? ORDER BY l.id",
        (batch.id,),
    ).fetchall()
    return [
        hash_chain.loss_leaf(f"{uid}-{key}", *rest)
        if in_order((uid, key, *rest), row_checks.LOSS, f"{batch}: a loss", verdict)
        else b""
        for uid, key, *rest in rows
    ]


def _check_events(
    connection: Connection,
    batch: BatchRow,
    verdict: Verdict,
    rollups: Rollups,
    blocks: Blocks,
    removals: _Removals,
    progress: Progress,
) -> None:
    try:
        leaves = dict(_leaves(connection, batch, verdict, rollups, blocks))
    except DatabaseError as error:
        verdict.found(f"{batch}: an event was changed and cannot be read: {error}")
        removals.of(batch, {})
        return
    there = len(leaves)
    gone, none_left = removals.of(batch, leaves)
    verdict.events += there
    progress(batch.events)
    if none_left:
        return  # its leaves' hash alone goes into the chain
    if len(leaves) != batch.events:
        verdict.found(
            f"{batch}: {there} events are there, {batch.events - len(gone)} should be:"
            " some were removed or added"
        )
    elif hash_chain.combine(leaves[event_id] for event_id in sorted(leaves)) != batch.leaves_hash:
        verdict.found(f"{batch}: an event was changed")


def _leaves(
    connection: Connection, batch: BatchRow, verdict: Verdict, rollups: Rollups, blocks: Blocks
) -> Iterator[tuple[int, bytes]]:
    cursor = connection.execute(
        "SELECT e.salt, e.id, p.uid, p.key, e.sequence, e.ts_ns, t.name, e.user, e.props"
        " FROM event e LEFT JOIN producer p ON p.id = e.producer"
        " LEFT JOIN event_type t ON t.id = e.type"
        " WHERE e.id >= ? AND e.id < ? ORDER BY e.id",
        (batch.first_event, batch.first_event + batch.events),
    )
    for row in cursor:
        salt, event_id, uid, key, sequence, ts_ns, kind, user, props = row
        problem = row_checks.event_problem(row)
        if problem is not None:
            verdict.found(f"{batch}: event {event_id} was changed: {problem}")
            yield event_id, b""
            continue
        try:
            rollups.add(kind, ts_ns, user, props)
            blocks.add(event_id, ts_ns)
            yield (
                event_id,
                hash_chain.leaf(salt, event_id, f"{uid}-{key}", sequence, ts_ns, kind, user, props),
            )
        except (Malformed, TypeError, ValueError, AttributeError) as error:
            # Values that the daemon never writes: of another type, or no longer msgpack.
            verdict.found(f"{batch}: event {event_id} was changed and cannot be read: {error}")
            yield event_id, b""


def _check_sums(connection: Connection, verdict: Verdict) -> None:
    counters = dict(connection.execute("SELECT name, value FROM counter").fetchall())
    gone = counters.get(PRUNED, 0) + counters.get(ERASED, 0)
    lost = "SELECT coalesce(sum(last - first + 1), 0) FROM loss WHERE cause"
    checks: list[tuple[str, str, int]] = [
        ("stored", "SELECT count(*) FROM event", gone),
        ("lost", f"{lost} <> '{LOST_CLAIMED}'", 0),
        ("lost_claimed", f"{lost} = '{LOST_CLAIMED}'", 0),
        ("commits", "SELECT count(*) FROM batch", 0),
    ]
    if schema_version(connection) >= 3:
        by_kind = "SELECT coalesce(sum(events), 0) FROM removal WHERE kind = "
        checks += [(kind, f"{by_kind}'{kind}'", 0) for kind in (PRUNED, ERASED)]
    for name, sql, more in checks:
        counted = connection.execute(sql).fetchone()[0] + more
        if counted != counters.get(name, 0):
            verdict.found(f"counter {name}: {counters.get(name, 0)}, counted {counted}")
    twice = connection.execute(
        "SELECT p.uid || '-' || p.key, count(*) - count(DISTINCT e.sequence) AS more,"
        " max(e.sequence) > p.watermark FROM event e JOIN producer p ON p.id = e.producer"
        " GROUP BY e.producer HAVING more OR max(e.sequence) > p.watermark"
    ).fetchall()
    for producer, more, past in twice:
        if more:
            verdict.found(f"producer {producer}: {more} sequences are stored twice")
        if past:
            verdict.found(f"producer {producer}: events are stored past its watermark")
    disorder = connection.execute(
        "SELECT count(*) FROM (SELECT sequence < lag(sequence) OVER"
        " (PARTITION BY producer ORDER BY id) AS back FROM event) WHERE back"
    ).fetchone()[0]
    if disorder:
        verdict.found(f"{disorder} events are out of their producer's order")


def _check_rollups(connection: Connection, verdict: Verdict, rollups: Rollups) -> None:
    days = {
        (kind, day, user): events
        for kind, day, user, events in connection.execute(
            "SELECT t.name, r.day, r.user, r.events FROM rollup_day r"
            " JOIN event_type t ON t.id = r.type"
        )
    }
    _compare("rollup_day", days, dict(rollups.days), verdict)
    subjects = {
        (kind, subject, user): SubjectRow(*values)
        for kind, subject, user, *values in connection.execute(
            "SELECT t.name, r.subject, r.user, r.events, r.first_ts_ns, r.last_ts_ns,"
            " r.last_value, r.best_value FROM rollup_subject r JOIN event_type t ON t.id = r.type"
        )
    }
    _compare("rollup_subject", subjects, rollups.subjects, verdict)


def _check_blocks(
    connection: Connection, verdict: Verdict, rollups: Rollups, blocks: Blocks
) -> None:
    if schema_version(connection) < 2:
        return  # of a daemon from before there were any
    times = {
        block: (first_ts_ns, last_ts_ns)
        for block, first_ts_ns, last_ts_ns in connection.execute("SELECT * FROM event_block")
    }
    _compare("event_block", times, blocks.times, verdict)
    types: Counter[str] = Counter()
    for (kind, _day, _user), events in rollups.days.items():
        types[kind] += events
    # One whose events are all gone keeps its number, and is not there by the events.
    stored = dict(connection.execute("SELECT name, events FROM event_type WHERE events <> 0"))
    _compare("event_type", stored, dict(types), verdict)


def _compare(
    table: str, stored: Mapping[Any, object], counted: Mapping[Any, object], verdict: Verdict
) -> None:
    if stored == counted:
        return
    for key in sorted(stored.keys() | counted.keys(), key=str):
        if stored.get(key) != counted.get(key):
            verdict.found(
                f"{table} {key}: {stored.get(key)} stored, {counted.get(key)} by the events"
            )
