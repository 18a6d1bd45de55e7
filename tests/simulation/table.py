"""The state table of shared/PROTOCOL.md, watched: where the daemon comes, and what it does there.

The cell is judged by what the world holds, not by what the daemon believes; what the table says the
daemon does there is checked where it can be seen at once.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from logd.batch import LOST_NOT_RECEIVED, Batch, Capacity, Producer
from logd.ingest.delivery import Delivery
from logd.ingest.ordering import Intake
from logd.ingest.outbox_opener import OutboxOpener
from logd_wire.outbox.layout import WORD_CONFIRMED_SEQUENCE, WORD_WRITTEN
from tests.simulation.machine import SimDirectory, SimOutbox
from tests.simulation.truth import Violation
from tests.simulation.world import Cell, File, World, exchange

PRODUCERS = ("live", "dead", "unreachable")
OUTBOXES = ("file", "none", "foreign")
WATERMARKS = ("behind", "equal", "ahead")
CELLS: list[Cell] = list(product(PRODUCERS, OUTBOXES, WATERMARKS))
# Who says nothing gives no number that a watermark could be ahead of.
CANNOT_OCCUR = {("unreachable", "none", "ahead"), ("unreachable", "foreign", "ahead")}


def compare(watermark: int, number: int) -> str:
    """Where a watermark stands to the number that it is held against."""
    return "behind" if watermark < number else "ahead" if watermark > number else "equal"


class WatchedIntake(Intake):
    """Sees each record and farewell of a producer whose outbox is of no use."""

    world: World
    slice_bytes = 100  # three events or so: the batches are as small

    def take_datagram_record(
        self, producer: Producer, sequence: int, payload: bytes, batch: Batch
    ) -> bool:
        key = (producer.uid, producer.id)
        file = self.world.file_of(key)
        taken, losses, duplicates = producer.taken, len(batch.losses), batch.duplicates
        where = compare(taken, sequence - 1)
        cell: Cell | None = None
        if file is not None and producer.has_outbox and self.world.open_faults:
            cell = ("unreachable", "file", compare(taken, file.word(WORD_CONFIRMED_SEQUENCE)))
        elif not producer.has_outbox or (file is not None and file.kind == "newer"):
            cell = ("live", "none" if file is None else "foreign", where)
        held = producer.held and where == "equal"  # the outbox that it follows is read first
        counts = super().take_datagram_record(producer, sequence, payload, batch)
        if held and (counts or producer.taken != taken or not producer.behind):
            raise Violation(f"{producer.label}: {sequence} is taken before what it follows")
        if cell is None or held:
            return counts
        self.world.visits[cell] += 1
        if where == "ahead":
            done = producer.taken == taken and batch.duplicates == duplicates + 1
        elif where == "equal":
            done = producer.taken == sequence and len(batch.losses) == losses
        elif producer.has_outbox:
            done = producer.taken == taken and producer.behind and len(batch.losses) == losses
        elif sequence - 1 - taken > self._gap_events_max:
            done = len(batch.losses) <= losses + 1
        else:
            loss = batch.losses[-1]
            done = producer.taken == sequence and loss.cause == LOST_NOT_RECEIVED
            done = done and (loss.first, loss.last) == (taken + 1, sequence - 1)
        if not done:
            raise Violation(f"{producer.label}: {sequence} at {cell} is not done as the table says")
        return counts

    def _farewell(
        self, producer: Producer, last: int, refused: dict[str, int], batch: Batch
    ) -> None:
        file = self.world.file_of((producer.uid, producer.id))
        taken = producer.taken
        super()._farewell(producer, last, refused, batch)
        self.world.visits["dead", "none" if file is None else "foreign", compare(taken, last)] += 1
        if producer.taken != max(taken, last) and last - taken <= self._gap_events_max:
            raise Violation(f"{producer.label}: a farewell at {last} moved {taken} elsewhere")


class WatchedOpener(OutboxOpener[SimOutbox]):
    """Notes the cell of each outbox that is opened."""

    world: World

    def open(self, producer: Producer, name: str) -> None:
        file = self.world.files.get(name)
        if file is not None and file.kind == "ok" and file.word(WORD_WRITTEN) >= producer.taken:
            visit(self.world, producer, file, opened=producer in self.outboxes)
        super().open(producer, name)
        if producer not in self.outboxes:
            # What it follows is not known: the order is kept for outboxes that can be opened.
            self.world.truth.unordered.add((producer.uid, producer.id))


class WatchedDelivery(Delivery[SimOutbox]):
    """The real core, with a note of every cell that it comes upon. A step takes short slices, so
    that what is not done yet meets everything else that happens.
    """

    work_s = 0.004
    start_work_s = 0.008
    slice_bytes = 2048
    intake_type = WatchedIntake
    opener_type = WatchedOpener

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        directory = self._directory
        assert isinstance(directory, SimDirectory)
        assert isinstance(self.intake, WatchedIntake) and isinstance(self.opener, WatchedOpener)
        self._world = self.intake.world = self.opener.world = directory.world
        self.drain.charge_datagrams = 1
        self._read = self.poller.read
        exchange(self.poller, "read", self.read)

    def recover(self, now_s: float) -> None:
        self._watch_silent()
        super().recover(now_s)

    def _watch_silent(self) -> None:
        """At a start: note producers that have not ended, are dead and have no usable outbox."""
        world = self._world
        for key, row in world.disk.view.rows.items():
            file = world.file_of(key)
            if row.ended or (file is not None and file.kind == "ok"):
                continue
            owner = world.owners.get(key)
            if owner is None or not owner.dead:
                continue
            told = max(world.truth.accepted.get(key, ()), default=0)
            if told < row.watermark:
                continue  # somebody else has spoken under its id
            outbox = "none" if file is None else "foreign"
            world.visits["unreachable", outbox, compare(row.watermark, told)] += 1

    def read(self, producer: Producer, outbox: SimOutbox, alive: bool, capacity: Capacity) -> None:
        """In place of the poller's own."""
        visit(self._world, producer, outbox.file, opened=producer in self.outboxes)
        self._read(producer, outbox, alive, capacity)


def visit(world: World, producer: Producer, file: File, *, opened: bool) -> None:
    """Count the cell that an outbox is in."""
    who = "live" if file.lock is not None else "dead"
    if world.open_faults and not opened:
        who = "unreachable"
    where = compare(producer.stored, file.word(WORD_CONFIRMED_SEQUENCE))
    world.visits[who, "file", where] += 1
