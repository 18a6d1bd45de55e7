"""A simulated database: commits that are visible, and those of them that are on the disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from logd.batch import LOST_OUTBOX_GONE, LOST_TAIL_UNKNOWN, Batch, Producer
from logd.errors import StorageBusy, StorageFailed
from logd_wire.wire import Event, producer_seed
from tests.simulation.truth import Key, Violation, label

if TYPE_CHECKING:
    from tests.simulation.world import Process


@dataclass(frozen=True)
class Row:
    """What is kept of a producer."""

    watermark: int
    ended: bool
    has_outbox: bool
    boot: int


@dataclass(frozen=True)
class LossRow:
    """A row of the loss ledger."""

    key: Key
    first: int
    last: int | None
    cause: str


@dataclass
class Commit:
    """One transaction."""

    events: list[tuple[Key, int, Event]]
    losses: list[LossRow]
    refused: list[tuple[Key | None, int | None]]
    rows: dict[Key, Row]


@dataclass
class View:
    """What a reader of the database sees."""

    events: dict[tuple[Key, int], Event] = field(default_factory=dict)
    last: dict[Key, int] = field(default_factory=dict)
    losses: list[LossRow] = field(default_factory=list)
    refused: list[tuple[Key | None, int | None]] = field(default_factory=list)
    rows: dict[Key, Row] = field(default_factory=dict)

    def add(self, commit: Commit) -> None:
        """Raises Violation for an event that is there already, or behind a later one of its own."""
        for key, sequence, event in commit.events:
            if (key, sequence) in self.events:
                raise Violation(f"{label(key)}: {sequence} stored twice")
            if sequence <= self.last.get(key, 0):
                raise Violation(f"{label(key)}: {sequence} stored behind {self.last[key]}")
            self.events[key, sequence] = event
            self.last[key] = sequence
        self.losses += commit.losses
        self.refused += commit.refused
        self.rows |= commit.rows


@dataclass
class Disk:
    """The database file. The faults are set by the schedule."""

    commits: list[Commit] = field(default_factory=list)
    durable: int = 0  # so many of the commits are flushed
    full: bool = False
    fails_midway: bool = False
    flush_fails: bool = False
    view: View = field(default_factory=View)
    flushed: dict[Key, Row] = field(default_factory=dict)
    backups: list[int] = field(default_factory=list)

    def append(self, commit: Commit) -> None:
        """From now on readers see it."""
        self.view.add(commit)
        self.commits.append(commit)

    def flush(self) -> None:
        """From now on it outlives the power. Raises StorageFailed."""
        if self.flush_fails:
            raise StorageFailed("a flush failed")
        for commit in self.commits[self.durable :]:
            self.flushed |= commit.rows
        self.durable = len(self.commits)

    def _keep(self, count: int) -> None:
        del self.commits[count:]
        self.durable = count
        self.view = View()
        for commit in self.commits:
            self.view.add(commit)
        self.flushed = dict(self.view.rows)

    def lose_power(self, rng: random.Random) -> None:
        """What was not flushed is gone, or some of it is there by luck."""
        self._keep(rng.randint(self.durable, len(self.commits)))

    def back_up(self) -> None:
        """A copy of what is flushed."""
        self.backups.append(self.durable)

    def restore(self, rng: random.Random) -> None:
        """One of the copies takes the database's place."""
        count = min(rng.choice(self.backups), len(self.commits))
        self._keep(count)
        self.backups = [backup for backup in self.backups if backup <= count]

    def durable_watermark(self, key: Key) -> int:
        """The highest sequence of that producer that is decided, whatever happens to the power."""
        row = self.flushed.get(key)
        return row.watermark if row else 0


class SimTrail:
    """`logd.storage.store.Store` as the delivery core knows it, opened by one daemon."""

    def __init__(self, disk: Disk, process: Process, boot: int) -> None:
        self._disk = disk
        self._process = process
        self._boot = boot
        process.step("database opened")
        # What a killed predecessor wrote is visible, and made durable before anything else.
        disk.flush()
        process.step("database made durable")

    def producer(self, uid: int, producer_id: int) -> Producer:
        made = Producer(uid=uid, id=producer_id, seed=producer_seed(producer_id))
        row = self._disk.view.rows.get((uid, producer_id))
        if row is not None:
            made.row, made.ended = 1, row.ended
            made.stored = made.taken = row.watermark
        return made

    def unfinished(self) -> Iterator[tuple[int, int, str]]:
        for (uid, producer_id), row in list(self._disk.view.rows.items()):
            if not row.ended and row.boot != self._boot:
                yield uid, producer_id, LOST_TAIL_UNKNOWN
            elif not row.ended and row.has_outbox:
                yield uid, producer_id, LOST_OUTBOX_GONE

    def commit(self, batch: Batch, now_ns: int) -> None:
        disk, step = self._disk, self._process.step
        step("transaction begun")
        if disk.full:
            raise StorageBusy("full")
        commit = self._commit_of(batch)
        step("transaction written")
        if disk.fails_midway:
            raise StorageBusy("full in the middle")
        disk.append(commit)
        step("committed, not flushed")
        disk.flush()
        for producer in batch.producers:
            producer.row = 1
        step("flushed")

    def _commit_of(self, batch: Batch) -> Commit:
        rows = {}
        for producer in batch.producers:
            key = (producer.uid, producer.id)
            before = self._disk.view.rows.get(key)
            watermark = max(producer.taken, before.watermark if before else 0)
            rows[key] = Row(watermark, producer.ended, producer.has_outbox, self._boot)
        return Commit(
            events=[((p.uid, p.id), sequence, event) for p, sequence, event in batch.events],
            losses=[
                LossRow((loss.producer.uid, loss.producer.id), loss.first, loss.last, loss.cause)
                for loss in batch.losses
            ],
            refused=[
                ((r.producer.uid, r.producer.id) if r.producer else None, r.sequence)
                for r in batch.refusals
            ],
            rows=rows,
        )
