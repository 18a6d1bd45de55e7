"""What really happened in a run, kept beside it, and the invariants that are checked against it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from logd_wire.schema import Malformed
from logd_wire.wire import (
    DATAGRAM_HEAD,
    KIND_FAREWELL,
    WireError,
    decode_head,
    decode_record,
    producer_seed,
    unpack_payload,
)

if TYPE_CHECKING:
    from tests.simulation.disk import Disk, View
    from tests.simulation.world import World

Key = tuple[int, int]  # uid and producer id


class Violation(AssertionError):
    """A promise is broken."""


def label(key: Key) -> str:
    """A producer as people see it."""
    return f"{key[0]}-{key[1]:016x}"


@dataclass
class Truth:
    """`accepted` holds every accepted event's payload by sequence. `excused` are those that a fault
    of this run may have cost: not flushed when the power went, in a purged queue, in a database
    that an older one replaced. Nothing else may be missing.
    """

    accepted: dict[Key, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    excused: set[tuple[Key, int]] = field(default_factory=set)
    without_outbox: set[Key] = field(default_factory=set)
    # Its outbox failed a check or was damaged, or somebody said farewell for it: fire and forget.
    unreadable: set[Key] = field(default_factory=set)
    # An id that was there before: of whose events these are, no number tells. Only that nothing is
    # stored twice and no other producer is harmed is asked of them.
    reused: set[Key] = field(default_factory=set)
    of_reused: int = 0
    # Which producer each outbox follows, and those whose order a fault of this run may have cost.
    follows: dict[Key, Key] = field(default_factory=dict)
    unordered: set[Key] = field(default_factory=set)
    # Their outbox was gone when an older database came: what it lacks can only come from the queue.
    queue_only: set[Key] = field(default_factory=set)
    tails: set[Key] = field(default_factory=set)  # cut off by the power, without a farewell
    # Somebody has sent a farewell for it, and the power has not taken that since.
    farewells: set[Key] = field(default_factory=set)
    calls: int = 0
    true: int = 0
    perhaps_unsent: int = 0  # of those, without an outbox and cut short by a handler's exception
    false: int = 0
    cut: int = 0  # calls that a kill or a signal handler ended: their caller never heard
    unmoved: int = 0  # events of those, written to an outbox that was retired meanwhile

    def accept(self, key: Key, sequence: int, payload: bytes) -> None:
        """From this moment on the event is accepted. Raises Violation for a number out of turn."""
        if key in self.reused:
            self.of_reused += 1
            return
        events = self.accepted[key]
        if sequence in events:
            raise Violation(f"{label(key)}: {sequence} accepted twice")
        if key not in self.without_outbox and sequence != len(events) + 1:
            raise Violation(f"{label(key)}: {sequence} accepted behind {len(events)}")
        events[sequence] = payload

    def move(self, key: Key, sequence: int) -> bool:
        """That event was never read where it was written, and is another producer's now."""
        return self.accepted.get(key, {}).pop(sequence, None) is not None

    def daemon_ended(self, view: View, queued: Iterable[tuple[bytes, int]]) -> None:
        """What it had received and not stored is gone, where no outbox has it as well."""
        waiting = {
            (key, sequence) for data, uid in queued for key, sequence, _ in records_of(data, uid)
        }
        for key in self.without_outbox:
            numbers = {(key, sequence) for sequence in self.accepted.get(key, ())}
            self.excused |= numbers - view.events.keys() - waiting

    def excuse_past(self, key: Key, watermark: int) -> None:
        """Whatever of that producer is not decided yet may be lost."""
        numbers = self.accepted.get(key, ())
        self.excused |= {(key, sequence) for sequence in numbers if sequence > watermark}

    def forgotten(self, disk: Disk) -> None:
        """The power went: what the disk does not have is gone with the memory."""
        for key in list(self.accepted):
            self.excuse_past(key, disk.durable_watermark(key))
        open_ends = {key for key, row in disk.view.rows.items() if not row.ended}
        self.tails |= open_ends
        self.farewells -= open_ends  # those farewells went with the queue

    def sent(self, data: bytes, uid: int) -> None:
        """The queue has taken a datagram."""
        with suppress(WireError):
            kind, producer_id = decode_head(data)
            if kind == KIND_FAREWELL:
                self.farewells.add((uid, producer_id))

    def replaced(self, before: View, after: View, outboxes: Collection[Key]) -> None:
        """An older database took the newer one's place. `outboxes` are those that are there."""
        for key, row in before.rows.items():
            kept = after.rows[key].watermark if key in after.rows else 0
            if kept < row.watermark and key not in outboxes:
                self.queue_only.add(key)
            self.excused |= {
                (key, sequence)
                for sequence in self.accepted.get(key, ())
                if kept < sequence <= row.watermark
            }
        self.tails &= {key for key, row in after.rows.items() if not row.ended}

    def reuse(self, key: Key) -> None:
        """A second producer has that id."""
        self.of_reused += len(self.accepted.pop(key, {}))
        self.reused.add(key)

    @property
    def accepted_total(self) -> int:
        """Events accepted in the whole run."""
        return sum(len(events) for events in self.accepted.values())


def records_of(data: bytes, uid: int) -> Iterable[tuple[Key, int, bytes]]:
    """(producer, sequence, payload) of each whole record in a datagram of events."""
    try:
        kind, producer_id = decode_head(data)
        offset = DATAGRAM_HEAD.size
        while kind != KIND_FAREWELL and offset < len(data):
            sequence, payload, offset = decode_record(data, offset, producer_seed(producer_id))
            yield (uid, producer_id), sequence, payload
    except WireError:
        return


@dataclass
class Sums:
    """The end of a run in numbers: accepted = stored + quarantined + pending + lost."""

    accepted: int = 0
    stored: int = 0
    quarantined: int = 0
    pending: int = 0
    lost: int = 0


def check_end(world: World) -> Sums:
    """Every promise that can be checked once faults have stopped and all is quiet."""
    truth, view = world.truth, world.disk.view
    stored: dict[Key, set[int]] = defaultdict(set)
    refused: dict[Key, set[int]] = defaultdict(set)
    for key, sequence in view.events:
        stored[key].add(sequence)
    for owner, number in view.refused:
        if owner is not None and number is not None:
            refused[owner].add(number)
    sums = Sums(accepted=truth.accepted_total)
    for key, events in truth.accepted.items():
        row = view.rows.get(key)
        watermark = row.watermark if row else 0
        lost = _check_cover(key, watermark, stored[key], refused[key], view)
        _check_contents(key, events, stored[key], refused[key], view)
        waiting = {sequence for sequence in events if sequence > watermark}
        file = world.file_of(key)
        if file is not None and file.kind != "ok":
            sums.pending += len(waiting)
            waiting = set()
        missing = (lost & events.keys()) | waiting
        for sequence in sorted(missing):
            if (key, sequence) not in truth.excused and key not in truth.unreadable:
                raise Violation(
                    f"{label(key)}: {sequence} was accepted and is missing, without a fault that "
                    "may do that"
                )
        sums.lost += len(missing)
        sums.stored += len(stored[key])
        sums.quarantined += len(refused[key])
    if sums.accepted != sums.stored + sums.quarantined + sums.pending + sums.lost:
        raise Violation(f"the sum is off: {sums}")
    _check_tails(world)
    _check_order(world)
    odds = world.odds
    harmless = not (odds.power_cut or odds.restore or odds.strangers or odds.damage)
    kept = not (odds.without_outbox or odds.io_errors or odds.cleaners)
    if harmless and kept and view.losses:
        raise Violation(f"{view.losses[0]}: a loss is booked, and no fault may lose anything")
    return sums


def _check_cover(
    key: Key, watermark: int, stored: set[int], refused: set[int], view: View
) -> set[int]:
    """Every number up to the watermark is decided exactly once; which of them are lost."""
    lost: set[int] = set()
    count = 0
    for loss in view.losses:
        if loss.key == key and loss.last is not None:
            numbers = set(range(loss.first, loss.last + 1))
            lost |= numbers
            count += len(numbers)
    decided = stored | refused | lost
    if len(decided) != len(stored) + len(refused) + count:
        raise Violation(f"{label(key)}: a number is decided twice")
    if decided != set(range(1, watermark + 1)):
        odd = sorted(decided ^ set(range(1, watermark + 1)))
        raise Violation(f"{label(key)}: {odd} in no table, with a watermark of {watermark}")
    return lost


def _check_contents(
    key: Key, events: dict[int, bytes], stored: set[int], refused: set[int], view: View
) -> None:
    for sequence in stored:
        if sequence not in events:
            raise Violation(f"{label(key)}: {sequence} is stored and was never accepted")
        if view.events[key, sequence] != unpack_payload(events[sequence]):
            raise Violation(f"{label(key)}: {sequence} is stored with another's content")
    for sequence in refused & events.keys():
        try:
            unpack_payload(events[sequence])
        except Malformed:
            continue
        raise Violation(f"{label(key)}: {sequence} is in quarantine and was a good event")


def _check_order(world: World) -> None:
    """What a process wrote to one outbox is stored before what it wrote to the next, in runs in
    which nothing makes an outbox unreadable. Not so what only the queue still has: the daemon
    stores it as it comes, and knows no outbox that another could be held for.
    """
    truth, odds = world.truth, world.odds
    if odds.strangers or odds.damage or odds.io_errors or odds.cleaners:
        return
    first: dict[Key, int] = {}
    last: dict[Key, int] = {}
    for place, (key, _sequence) in enumerate(world.disk.view.events):
        first.setdefault(key, place)
        last[key] = place
    for key, former in truth.follows.items():
        if key not in first or former not in last or key in truth.unordered:
            continue
        if former in truth.queue_only:
            continue
        if last[former] > first[key]:
            raise Violation(f"{label(key)}: stored before the last event of {label(former)}")


def _check_tails(world: World) -> None:
    """A producer that went with the power, without a farewell, has a row of unknown extent. Unless
    somebody has put a file under its name: that may be read one day; or has spoken in its name
    before the daemon booked that row: then it goes on, or a farewell ended it with numbers.
    """
    truth, view = world.truth, world.disk.view
    told = {loss.key for loss in view.losses if loss.last is None}
    for key in truth.tails - truth.reused:
        row = view.rows[key]
        if key in truth.farewells if row.ended else row.boot == world.boots:
            continue
        if key not in told and world.file_of(key) is None:
            raise Violation(f"{label(key)}: its end is unknown, and the ledger has no row for it")
