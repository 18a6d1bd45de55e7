"""`logd verify`: recomputes the chain, counters and roll-ups, and reports what differs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from typing import Any

from logd.audit import row_checks
from logd.audit.anchors import Anchor
from logd.audit.answer import Anchored, Answer, compare_anchors
from logd.audit.page_check import damaged_pages
from logd.audit.verify_removals import RemovalCheck
from logd.audit.verify_rows import BatchRow, Verdict, batches, check_row
from logd.batch import LOST_CLAIMED
from logd.config.settings import Config
from logd.errors import DatabaseCorrupt, LogdError
from logd.storage import hash_chain, opening, rollups
from logd.storage.database import Connection, DatabaseError, damage, translate
from logd.storage.last_verification import NOT_WHOLE, Integrity, record_verification
from logd.storage.migrations import schema_version
from logd.storage.removal_log import ERASED, PRUNED
from logd.storage.rollups import Rollups, SubjectRow
from logd.storage.time_blocks import Blocks
from logd_wire.schema import Malformed

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Verification:
    """What `logd verify` found in the trail, and by comparing it with anchors.

    `unrecorded` says why the result is not kept for `logd status`.
    """

    trail: Verdict
    anchored: Anchored
    unrecorded: str | None = None

    @property
    def answer(self) -> Answer:
        """Whether it is whole, not whole or not proven."""
        return Answer(self.trail.whole, self.anchored)


def verify_instance(
    config: Config,
    logged: Iterable[Anchor] | None,
    bar: Callable[[int], AbstractContextManager[Progress]],
    since_ns: int | None = None,
) -> Verification:
    """Verifies an instance's trail, compares it with anchors (of `since_ns` or later) if there are
    any, and keeps the result for `logd status`.

    Raises LogdError kinds when it cannot be read.
    """
    anchored = Anchored()
    try:
        with closing(opening.open_for_reading(config)) as connection:
            # Not count(*): it reads a whole index: one damaged page of it would hide the rest.
            total = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
            with bar(total) as advance:
                trail = verify(connection, advance)
            if logged is not None:
                anchored = compare_anchors(connection, config, logged, since_ns)
    except (DatabaseCorrupt, DatabaseError) as error:
        problem = error if isinstance(error, LogdError) else translate(error, config.database)
        if not isinstance(problem, DatabaseCorrupt):
            raise problem from error
        trail = Verdict()
        trail.add_finding(f"file: {problem}")
    done = Verification(trail, anchored)
    findings = len(trail.findings) + len(anchored.mismatches)
    answer = done.answer.name
    result = Integrity(
        time.time_ns(),
        answer != NOT_WHOLE,
        trail.events,
        trail.batches,
        trail.head,
        findings,
        answer,
    )
    try:
        record_verification(config, result)
    except LogdError as error:  # the answer is still valid
        return replace(done, unrecorded=str(error))
    return done


def verify(connection: Connection, progress: Progress = lambda _events: None) -> Verdict:
    """Reads everything in one transaction. `progress` gets the number of events just checked."""
    return Verifier(connection, progress).run()


class Verifier:
    """Verifies one database, as of one moment, beside a running daemon too."""

    def __init__(self, connection: Connection, progress: Progress) -> None:
        self._connection = connection
        self._progress = progress
        self._verdict = Verdict()
        # Recomputed from the events, and compared with what is stored.
        self._by_time, self._rollups, self._blocks = True, Rollups(), Blocks()

    def run(self) -> Verdict:
        """Runs all checks; damage is a finding, and the next check follows.

        Raises NotChecked when the database cannot be read now.
        """
        self._connection.execute("BEGIN")  # the daemon continues to write meanwhile
        # The transaction begins with the first page that it reads.
        self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        self._by_time = rollups.by_time(self._connection)
        self._rollups = Rollups(by_time=self._by_time)
        try:
            for check in (
                self._check_pages,
                self._check_chain,
                self._check_counters,
                self._check_sequences,
                self._check_rollups,
                self._check_blocks,
            ):
                try:
                    check()
                except DatabaseError as error:
                    self._verdict.add_finding(f"file: cannot be read further: {damage(error)}")
        finally:
            self._connection.execute("ROLLBACK")
        return self._verdict

    def _check_pages(self) -> None:
        for problem in damaged_pages(self._connection):
            self._verdict.add_finding(f"file: {problem}")

    # -- the chain -------------------------------------------------------------------------------

    def _check_chain(self) -> None:
        verdict = self._verdict
        head, next_batch, next_event = hash_chain.GENESIS, 1, 1
        losses_hashed, follows = 0, True
        removals = RemovalCheck(self._connection, verdict)
        for number, batch in batches(self._connection, verdict):
            if number != next_batch:
                verdict.add_finding(f"batch {next_batch} to {number - 1}: removed")
            next_batch = number + 1
            verdict.batches += 1
            if batch is None:
                follows = False
                continue
            if follows and batch.first_event != next_event:
                verdict.add_finding(f"{batch}: does not follow event {next_event - 1}")
            self._check_events(batch, removals)
            losses = self._losses(batch)
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
                verdict.add_finding(f"{batch}: its hash does not follow from the batch before it")
            head = batch.hash
            next_event, follows = batch.first_event + batch.events, True
        verdict.head = head.hex()
        removals.check()
        self._check_outside_batches(next_event, losses_hashed)

    def _check_outside_batches(self, next_event: int, losses_hashed: int) -> None:
        """Reports rows that no batch has hashed."""
        query = self._connection.execute
        (stray,) = query(
            "SELECT count(*) FROM event WHERE id >= ? OR id < 1", (next_event,)
        ).fetchone()
        if stray:
            self._verdict.add_finding(f"{stray} events belong to no batch")
        below, losses = query(
            "SELECT (SELECT count(*) FROM batch WHERE id < 1), (SELECT count(*) FROM loss)"
        ).fetchone()
        if below:
            self._verdict.add_finding(f"{below} batches have numbers below 1")
        if losses != losses_hashed:
            self._verdict.add_finding(
                f"loss ledger: {losses} entries, {losses_hashed} belong to batches"
            )

    def _losses(self, batch: BatchRow) -> list[bytes]:
        """Returns the leaves of the batch's entries in the loss ledger."""
        rows = self._connection.execute(
            "SELECT p.uid, p.key, l.first, l.last, l.cause FROM loss l"
            " LEFT JOIN producer p ON p.id = l.producer WHERE l.batch = ? ORDER BY l.id",
            (batch.id,),
        ).fetchall()
        return [
            hash_chain.loss_leaf(f"{uid}-{key}", *rest)
            if check_row((uid, key, *rest), row_checks.LOSS, f"{batch}: a loss", self._verdict)
            else b""
            for uid, key, *rest in rows
        ]

    def _check_events(self, batch: BatchRow, removals: RemovalCheck) -> None:
        verdict = self._verdict
        try:
            leaves = dict(self._leaves(batch))
        except DatabaseError as error:
            problem = damage(error)
            verdict.add_finding(f"{batch}: an event was changed and cannot be read: {problem}")
            removals.restore_leaves(batch, {})
            return
        present = len(leaves)
        gone, none_left = removals.restore_leaves(batch, leaves)
        verdict.events += present
        self._progress(batch.events)
        if none_left:
            return  # verified by the stored hash of its leaves alone
        if len(leaves) != batch.events:
            verdict.add_finding(
                f"{batch}: {present} events are there, {batch.events - len(gone)} should be:"
                " some were removed or added"
            )
            return
        hashed = hash_chain.combine(leaves[event_id] for event_id in sorted(leaves))
        if hashed != batch.leaves_hash:
            verdict.add_finding(f"{batch}: an event was changed")

    def _leaves(self, batch: BatchRow) -> Iterator[tuple[int, bytes]]:
        """Yields id and leaf of each existing event; an empty leaf for one that was changed."""
        cursor = self._connection.execute(
            "SELECT e.salt, e.id, p.uid, p.key, e.sequence, e.ts_ns, t.name, e.user, e.props"
            " FROM event e LEFT JOIN producer p ON p.id = e.producer"
            " LEFT JOIN event_type t ON t.id = e.type"
            " WHERE e.id >= ? AND e.id < ? ORDER BY e.id",
            (batch.first_event, batch.first_event + batch.events),
        )
        sums, blocks, leaf = self._rollups, self._blocks, hash_chain.leaf
        for row in cursor:
            salt, event_id, uid, key, sequence, ts_ns, kind, user, props = row
            problem = row_checks.event_problem(row)
            if problem is not None:
                self._verdict.add_finding(f"{batch}: event {event_id} was changed: {problem}")
                yield event_id, b""
                continue
            try:
                sums.add(kind, ts_ns, user, props)
                blocks.add(event_id, ts_ns)
                label = f"{uid}-{key}"
                yield event_id, leaf(salt, event_id, label, sequence, ts_ns, kind, user, props)
            except (Malformed, TypeError, ValueError, AttributeError) as error:
                # Values that the daemon never writes: of another type, or no longer msgpack.
                self._verdict.add_finding(
                    f"{batch}: event {event_id} was changed and cannot be read: {error}"
                )
                yield event_id, b""

    # -- what is kept beside the events ----------------------------------------------------------

    def _check_counters(self) -> None:
        query = self._connection.execute
        counters = dict(query("SELECT name, value FROM counter").fetchall())
        gone = counters.get(PRUNED, 0) + counters.get(ERASED, 0)
        lost = "SELECT coalesce(sum(last - first + 1), 0) FROM loss WHERE cause"
        checks: list[tuple[str, str, int]] = [
            ("stored", "SELECT count(*) FROM event", gone),
            ("lost", f"{lost} <> '{LOST_CLAIMED}'", 0),
            ("lost_claimed", f"{lost} = '{LOST_CLAIMED}'", 0),
            ("commits", "SELECT count(*) FROM batch", 0),
        ]
        if schema_version(self._connection) >= 3:
            by_kind = "SELECT coalesce(sum(events), 0) FROM removal WHERE kind = "
            checks += [(kind, f"{by_kind}'{kind}'", 0) for kind in (PRUNED, ERASED)]
        for name, sql, more in checks:
            counted = query(sql).fetchone()[0] + more
            if counted != counters.get(name, 0):
                self._verdict.add_finding(
                    f"counter {name}: {counters.get(name, 0)}, counted {counted}"
                )

    def _check_sequences(self) -> None:
        """Checks that each producer's events are stored once, in order, up to its watermark."""
        query = self._connection.execute
        for producer, more, past in query(
            "SELECT p.uid || '-' || p.key, count(*) - count(DISTINCT e.sequence) AS more,"
            " max(e.sequence) > p.watermark FROM event e JOIN producer p ON p.id = e.producer"
            " GROUP BY e.producer HAVING more OR max(e.sequence) > p.watermark"
        ).fetchall():
            if more:
                self._verdict.add_finding(f"producer {producer}: {more} sequences are stored twice")
            if past:
                self._verdict.add_finding(
                    f"producer {producer}: events are stored past its watermark"
                )
        (disorder,) = query(
            "SELECT count(*) FROM (SELECT sequence < lag(sequence) OVER"
            " (PARTITION BY producer ORDER BY id) AS back FROM event) WHERE back"
        ).fetchone()
        if disorder:
            self._verdict.add_finding(f"{disorder} events are out of their producer's order")

    def _check_rollups(self) -> None:
        query = self._connection.execute
        days = {
            (kind, day, user): events
            for kind, day, user, events in query(
                "SELECT t.name, r.day, r.user, r.events FROM rollup_day r"
                " JOIN event_type t ON t.id = r.type"
            )
        }
        self._compare("rollup_day", days, dict(self._rollups.days))
        subjects = {
            (kind, subject, user): SubjectRow(*values)
            for kind, subject, user, *values in query(
                "SELECT t.name, r.subject, r.user, r.events, r.first_ts_ns, r.last_ts_ns,"  # noqa: S608 - no data in it
                f" r.last_value, r.best_value{', r.last_attempt' if self._by_time else ''}"
                " FROM rollup_subject r JOIN event_type t ON t.id = r.type"
            )
        }
        self._compare("rollup_subject", subjects, self._rollups.subjects)

    def _check_blocks(self) -> None:
        if schema_version(self._connection) < 2:
            return  # without blocks
        query = self._connection.execute
        times = {
            block: (first_ts_ns, last_ts_ns)
            for block, first_ts_ns, last_ts_ns in query("SELECT * FROM event_block")
        }
        self._compare("event_block", times, self._blocks.times)
        types: Counter[str] = Counter()
        for (kind, _day, _user), events in self._rollups.days.items():
            types[kind] += events
        # A type whose events are all removed keeps its row.
        stored = dict(query("SELECT name, events FROM event_type WHERE events <> 0"))
        self._compare("event_type", stored, dict(types))

    def _compare(
        self, table: str, stored: Mapping[Any, object], counted: Mapping[Any, object]
    ) -> None:
        if stored == counted:
            return
        for key in sorted(stored.keys() | counted.keys(), key=str):
            if stored.get(key) != counted.get(key):
                self._verdict.add_finding(
                    f"{table} {key}: {stored.get(key)} stored, {counted.get(key)} by the events"
                )
