"""Checks a range of batches: their hashes, their events and their losses.

A batch's row has the batch's hash, so that a range can be checked by itself.
`logd.audit.verify_tree` checks that the hashes make up the tree; in the former chain, each hash
must follow from the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from logd.audit import row_checks
from logd.audit.recomputed import EVENTS_PER_WINDOW
from logd.audit.verify_removals import Removed
from logd.audit.verify_rows import BatchRow, Verdict, batches, check_row
from logd.audit.verify_sequences import Sequences
from logd.storage import batch_hash, hash_chain, merkle
from logd.storage.database import Connection, DatabaseError, damage
from logd.storage.hash_chain import Chained, read_chained
from logd.storage.tree_head import has_tree
from logd_wire.schema import INT64_MAX

Progress = Callable[[int], None]
# The window function is called with the first and end of events
# that were just read, while their pages are still in the cache.
Window = Callable[[int, int], None]


@dataclass(frozen=True)
class BatchRange:
    """The range of the batches after number `after`, up to number `upto`."""

    after: int
    upto: int


@dataclass
class RangeResult:
    """The result of checking a range.

    `next_event` is the id after the range's last event; `summed` is False if the events of a window
    could not all be read.
    """

    verdict: Verdict = field(default_factory=Verdict)
    losses: int = 0
    next_event: int = 1
    summed: bool = True


class BatchesCheck:
    """Checks one range of batches."""

    def __init__(
        self, connection: Connection, sequences: Sequences, window: Window, progress: Progress
    ) -> None:
        self._connection = connection
        self._sequences, self._window, self._progress = sequences, window, progress
        self._tree = has_tree(connection)
        self._chained = read_chained(connection) if self._tree else Chained(INT64_MAX, INT64_MAX)
        self.result = RangeResult()
        self._verdict = self.result.verdict

    def check(self, part: BatchRange) -> RangeResult:
        """Checks the range; with a tree, missing batches are left to the check of the tree.

        Raises DatabaseError; `result` then has the findings until then.
        """
        verdict, result = self._verdict, self.result
        before = self._before(part.after)
        head = before.hash if before else hash_chain.GENESIS
        next_event = before.first_event + before.events if before else self._first_event(part)
        follows = before is not None or part.after == 0
        next_batch, summed = part.after + 1, next_event
        removed = Removed(self._connection, verdict, next_event)
        for number, batch in batches(self._connection, verdict, part.after, part.upto):
            if number != next_batch:
                follows = self._add_missing(next_batch, number - 1) and follows
            next_batch = number + 1
            verdict.batches += 1
            if batch is None:
                follows = False
                continue
            if follows and batch.first_event != next_event:
                verdict.add_finding(f"{batch}: does not follow event {next_event - 1}")
            self._check_events(batch, removed)
            losses = self._losses(batch)
            result.losses += len(losses)
            self._check_hash(batch, losses, head if follows else None)
            head = batch.hash
            next_event, follows = batch.first_event + batch.events, True
            if next_event - summed >= EVENTS_PER_WINDOW:
                self._sum_up(summed, next_event)
                summed = next_event
        if next_batch <= part.upto:
            self._add_missing(next_batch, part.upto)
        if next_event > summed:
            self._sum_up(summed, next_event)
        verdict.head, result.next_event = head.hex(), next_event
        return result

    def _add_missing(self, first: int, last: int) -> bool:
        """Reports missing batches; returns whether event numbers must continue across them."""
        if not self._tree:
            self._verdict.add_finding(f"batch {first} to {last}: removed")
        return not self._tree

    def _first_event(self, part: BatchRange) -> int:
        """Returns the first event of a range whose previous batch is not there."""
        row = self._connection.execute(
            "SELECT first_event FROM batch WHERE id > ? ORDER BY id LIMIT 1", (part.after,)
        ).fetchone()
        known = part.after > 0 and row is not None and type(row[0]) is int and row[0] > 0
        return int(row[0]) if known else 1

    def _check_hash(self, batch: BatchRow, losses: list[bytes], previous: bytes | None) -> None:
        """Checks the batch's hash; in the chain, that it follows from a known previous hash."""
        numbers = batch.id, batch.stored_ns, batch.first_event, batch.events
        if batch.id > self._chained.batches:
            entry = batch_hash.entry(*numbers, batch.leaves_hash, losses)
            if merkle.leaf_hash(entry) != batch.hash:
                self._verdict.add_finding(
                    f"{batch}: its hash is not that of its numbers, events and losses"
                )
        elif previous is not None:
            combined = hash_chain.combine(losses)
            if hash_chain.link(previous, *numbers, batch.leaves_hash, combined) != batch.hash:
                self._verdict.add_finding(
                    f"{batch}: its hash does not follow from the batch before it"
                )
        # A collapse leaves the batch before a chained batch with losses.
        elif losses and self._tree:
            self._verdict.add_finding(
                f"{batch}: its losses cannot be verified without batch {batch.id - 1}"
            )

    def _sum_up(self, first: int, end: int) -> None:
        if self.result.summed:
            try:
                self._window(first, end)
            except DatabaseError as error:
                self._verdict.add_finding(f"file: cannot be read further: {damage(error)}")
                self.result.summed = False

    def _before(self, number: int) -> BatchRow | None:
        """Returns the batch before a range; None if there is none, or it is not valid."""
        if number == 0:
            return None
        unreported = Verdict()  # the findings belong to the range of that batch
        found = list(batches(self._connection, unreported, number - 1, number))
        return found[0][1] if found else None

    def _losses(self, batch: BatchRow) -> list[bytes]:
        """Returns the hashes of the batch's entries in the loss ledger."""
        rows = self._connection.execute(
            "SELECT p.uid, p.key, l.first, l.last, l.cause FROM loss l"
            " LEFT JOIN producer p ON p.id = l.producer WHERE l.batch = ? ORDER BY l.id",
            (batch.id,),
        )
        hashed = hash_chain.plain if batch.id <= self._chained.batches else merkle.leaf_hash
        return [
            hashed(batch_hash.loss_data(f"{uid}-{key}", *rest))
            if check_row((uid, key, *rest), row_checks.LOSS, f"{batch}: a loss", self._verdict)
            else b""
            for uid, key, *rest in rows
        ]

    def _check_events(self, batch: BatchRow, removed: Removed) -> None:
        verdict = self._verdict
        try:
            leaves = dict(self._leaves(batch))
        except DatabaseError as error:
            problem = damage(error)
            verdict.add_finding(f"{batch}: an event was changed and cannot be read: {problem}")
            removed.restore(batch, {})
            return
        verdict.events += len(leaves)
        restored = removed.restore(batch, leaves)
        self._progress(batch.events)
        if restored.none_left:
            return  # the stored hash over the batch's events is all that can be verified
        gone = len(restored.gone)
        chained = batch.id <= self._chained.batches
        digest = restored.combined() if chained else restored.root()
        if digest is None or len(leaves) + gone != batch.events:
            verdict.add_finding(
                f"{batch}: {len(leaves)} events are there, {batch.events - gone} should be:"
                " some were removed or added"
            )
        elif digest != batch.leaves_hash:
            verdict.add_finding(f"{batch}: an event was changed")

    def _leaves(self, batch: BatchRow) -> Iterator[tuple[int, bytes]]:
        """Yields the id and leaf of each event that is there; an empty leaf for a changed event."""
        cursor = self._connection.execute(
            "SELECT e.producer, e.salt, e.id, p.uid, p.key, e.sequence, e.ts_ns, t.name, e.user,"
            " e.props FROM event e LEFT JOIN producer p ON p.id = e.producer"
            " LEFT JOIN event_type t ON t.id = e.type"
            " WHERE e.id >= ? AND e.id < ? ORDER BY e.id",
            (batch.first_event, batch.first_event + batch.events),
        )
        add_sequence, data = self._sequences.add, batch_hash.event_data
        hashed = hash_chain.plain if batch.id <= self._chained.batches else merkle.leaf_hash
        for producer, *row in cursor:
            salt, event_id, uid, key, sequence, ts_ns, kind, user, props = row
            problem = row_checks.event_problem(row)
            if problem is not None:
                self._verdict.add_finding(f"{batch}: event {event_id} was changed: {problem}")
                yield event_id, b""
                continue
            try:
                add_sequence(producer, sequence)
                label = f"{uid}-{key}"
                yield (
                    event_id,
                    hashed(data(salt, event_id, label, sequence, ts_ns, kind, user, props)),
                )
            except (TypeError, ValueError, OverflowError) as error:
                self._verdict.add_finding(
                    f"{batch}: event {event_id} was changed and cannot be read: {error}"
                )
                yield event_id, b""
