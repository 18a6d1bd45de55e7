"""Recomputes hashes, counters and roll-ups of one database, and reports what differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from logd.audit.page_check import damaged_pages
from logd.audit.proven import Proven, begin_cycle
from logd.audit.recomputed import Recomputed
from logd.audit.verify_batches import BatchesCheck, BatchRange, Progress, RangeResult
from logd.audit.verify_kept import KeptCheck
from logd.audit.verify_processes import Helpers
from logd.audit.verify_removals import (
    check_collapses,
    check_removals,
    check_removed_in_batches,
)
from logd.audit.verify_rows import Verdict
from logd.audit.verify_sequences import Sequences
from logd.audit.verify_tree import TreeCheck
from logd.errors import NotChecked
from logd.storage.database import Connection, DatabaseError, damage
from logd.storage.migrations import MIGRATIONS, schema_version
from logd.storage.tree_head import has_tree
from logd_wire.schema import INT64_MAX


class Checks:
    """The checks that every verification consists of.

    The tables of `logd.audit.recomputed` must be attached to the connection.
    """

    def __init__(self, connection: Connection, progress: Progress) -> None:
        self._connection, self._progress = connection, progress
        self._verdict = Verdict()
        self._recomputed = Recomputed(connection)
        self._sequences = Sequences(connection)
        self._kept = KeptCheck(connection, self._recomputed, self._verdict)
        self._losses = 0
        self._summed = True  # whether all events of the ranges are in the recomputed tables

    def _attempt(self, check: Callable[[], None]) -> bool:
        """Runs a check; damage becomes a finding.

        Raises NotChecked if the file cannot be read now.
        """
        try:
            check()
        except DatabaseError as error:
            self._verdict.add_finding(f"file: cannot be read further: {damage(error)}")
            return False
        except OSError as error:
            raise NotChecked(f"not checked: {error}. This says nothing about the trail.") from error
        return True

    def _add(self, result: RangeResult) -> None:
        """Adds the result of the next range of batches to the verdict."""
        for finding in result.verdict.findings:
            self._verdict.add_finding(finding)
        self._verdict.batches += result.verdict.batches
        self._verdict.events += result.verdict.events
        self._verdict.head = result.verdict.head
        self._losses += result.losses
        self._summed = self._summed and result.summed

    def _check_tree(self, ranges: Sequence[BatchRange], next_event: int) -> None:
        """Checks the tree over ranges of batches, and that batches without a row were collapsed."""
        if has_tree(self._connection):
            check = TreeCheck(self._connection, self._verdict)
            check.check(ranges)
            check_collapses(self._connection, self._verdict, next_event)
            if self._verdict.whole:
                self._verdict.head = check.head().hex()

    def _check_stray_rows(self, next_event: int) -> None:
        """Reports rows whose number belongs to no batch."""
        query = self._connection.execute
        (stray,) = query(
            "SELECT count(*) FROM event WHERE id >= ? OR id < 1", (next_event,)
        ).fetchone()
        if stray:
            self._verdict.add_finding(f"{stray} events belong to no batch")
        (below,) = query("SELECT count(*) FROM batch WHERE id < 1").fetchone()
        if below:
            self._verdict.add_finding(f"{below} batches have numbers below 1")


class Verifier(Checks):
    """Verifies a whole database as of one moment, also while a daemon writes to it.

    `helpers` are processes that share the batches.
    """

    def __init__(
        self, connection: Connection, progress: Progress, helpers: Helpers | None = None
    ) -> None:
        super().__init__(connection, progress)
        self._helpers, self._now_ns = helpers, time.time_ns()
        # The number of the event after the last batch; None if not known.
        self._next_event: int | None = None
        # The state to keep for the next run, if nothing was found.
        self.proven: Proven | None = None

    def run(self) -> Verdict:
        """Runs all checks; damage becomes a finding, and the next check follows.

        Raises NotChecked if the database cannot be read now.
        """
        begin = in_one_moment if self._helpers is None else self._helpers.in_one_moment
        with begin(self._connection):
            started = self._helpers is None or self._attempt(self._start_helpers)
            self._attempt(self._check_pages)
            complete = started and self._attempt(self._check_batches)
            self._attempt(self._check_removals)
            self._attempt(self._check_counters)
            self._attempt(self._check_sequences)
            if complete and self._summed:
                for check in (self._kept.check_days, self._kept.check_subjects):
                    self._attempt(check)
                self._attempt(self._kept.check_blocks)
                self._attempt(self._kept.check_values)
                self._attempt(lambda: self._kept.check_types(self._recomputed.types()))
            if self._verdict.whole and schema_version(self._connection) == len(MIGRATIONS):
                self.proven = begin_cycle(self._connection, self._now_ns)
        return self._verdict

    def _check_pages(self) -> None:
        for problem in damaged_pages(self._connection):
            self._verdict.add_finding(f"file: {problem}")

    def _start_helpers(self) -> None:
        assert self._helpers is not None
        self._helpers.start(self._connection, last_batch(self._connection))

    def _check_batches(self) -> None:
        if self._helpers is None:
            check = BatchesCheck(
                self._connection, self._sequences, self._recomputed.add, self._progress
            )
            try:
                check.check(BatchRange(0, last_batch(self._connection)))
            finally:
                self._add(check.result)
            next_event = check.result.next_event
        else:
            next_event = 1
            for result in self._helpers.results(self._connection, self._progress):
                self._add(result.checked)
                if result.failure is not None:
                    raise DatabaseError(result.failure)
                self._recomputed.merge(result.schema)
                self._sequences.merge(result.schema, result.disorder)
                next_event = result.checked.next_event
        self._next_event = next_event
        self._check_tree([BatchRange(0, last_batch(self._connection))], next_event)
        self._check_stray_rows(next_event)
        (losses,) = self._connection.execute("SELECT count(*) FROM loss").fetchone()
        if losses != self._losses:
            self._verdict.add_finding(
                f"loss ledger: {losses} entries, {self._losses} belong to batches"
            )

    def _check_removals(self) -> None:
        check_removals(self._connection, self._verdict, -INT64_MAX - 1, INT64_MAX)
        if self._next_event is not None:
            check_removed_in_batches(self._connection, self._verdict, self._next_event)

    def _check_counters(self) -> None:
        self._kept.check_counters()
        if self._verdict.whole and self._next_event is not None:
            # The events that are there and removed may be as many as counted, and yet too few.
            self._kept.check_counters(self._next_event - 1)

    def _check_sequences(self) -> None:
        if self._next_event is not None:
            self._sequences.check(self._verdict, 1, self._next_event)


@contextmanager
def in_one_moment(connection: Connection) -> Iterator[None]:
    """Reads the database as it is now in a `with` block, while the daemon continues to write."""
    connection.execute("BEGIN")
    try:
        # The first read begins the transaction's view of the database.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield
    finally:
        if connection.in_transaction:  # some errors end the transaction
            connection.execute("ROLLBACK")


def last_batch(connection: Connection) -> int:
    """Returns the number of the last batch; 0 if there is none."""
    (number,) = connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()
    return max(0, int(number))
