"""Keeps what earlier runs of `logd verify --incremental` have proven, and decides the next part.

A cycle proves everything that was there at its beginning, one part with each run. Batches,
removals, days and pages are divided by position, users and types by a remainder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from logd.audit.verify_batches import BatchRange
from logd.storage.database import Connection
from logd.storage.rollups import DAY_NS
from logd.storage.tree import NotKept, Tree
from logd.storage.tree_head import read_head

# With a run every night, this number of parts is proven within four weeks.
PARTS_MAX = 28
# The fewest events in a part, so that a small trail has fewer parts.
EVENTS_PER_PART_MIN = 20_000


@dataclass(frozen=True)
class Proven:
    """What is proven so far: all batches up to `batch`, whose hash is `hash`.

    Each thing was proven at some time since `since_ns`. In the cycle that began at `cycle_ns`, the
    parts before `part` are proven again. The positions say where the next part begins; a day of
    None is before all days.
    """

    batch: int
    hash: str
    removal: int
    since_ns: int
    cycle_ns: int
    cycle_batch: int  # the last batch of the cycle
    part: int
    parts: int
    batch_position: int = 0
    removal_position: int = 0
    page_position: int = 0
    day_position: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the state in the form in which it is kept, for `from_json`."""
        return asdict(self)


def from_json(kept: object) -> Proven | None:
    """Returns the state that was kept in JSON; None if it is not valid."""
    if not isinstance(kept, dict):
        return None
    try:
        proven = Proven(**kept)
    except TypeError:
        return None
    numbers = [value for name, value in kept.items() if name not in ("hash", "day_position")]
    valid = (
        type(proven.hash) is str
        and type(proven.day_position) in (int, type(None))
        and all(type(number) is int and number >= 0 for number in numbers)
        and proven.part < proven.parts <= PARTS_MAX
    )
    return proven if valid else None


def begin_cycle(connection: Connection, now_ns: int) -> Proven:
    """Returns the state after everything up to the end of the trail has been proven."""
    head, _stored_ns = read_head(connection)
    (removal,) = connection.execute("SELECT coalesce(max(id), 0) FROM removal").fetchone()
    return Proven(
        batch=head.batch,
        hash=head.hash.hex(),
        removal=removal,
        since_ns=now_ns,
        cycle_ns=now_ns,
        cycle_batch=head.batch,
        part=0,
        parts=max(1, min(PARTS_MAX, head.events // EVENTS_PER_PART_MIN)),
    )


def is_of(connection: Connection, proven: Proven) -> bool:
    """Whether the state is of this trail, whose root over the same batches must be the same."""
    try:
        return Tree(connection).root_at(proven.batch) == bytes.fromhex(proven.hash)
    except (NotKept, ValueError):
        return False


@dataclass(frozen=True)
class Part:
    """The part of a cycle that one run proves; each position is the beginning of the next part."""

    batches: BatchRange
    removal: int  # the removals after proven.removal_position, up to this one
    page: int  # the pages after proven.page_position, up to this one
    day: int | None  # the days from proven.day_position to before this one; None: all later days
    last: bool


def next_part(connection: Connection, proven: Proven) -> Part:
    """Returns the part that the next run has to prove again."""
    last = proven.part + 1 >= proven.parts
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    batch, removal, page, day = proven.cycle_batch, proven.removal, int(pages), None
    if not last:
        batch = _batch_at(connection, proven)
        removal = _share(removal, proven)
        page = _share(page, proven)
        day = _day_at(connection, proven)
    return Part(
        BatchRange(proven.batch_position, max(batch, proven.batch_position)),
        max(removal, proven.removal_position),
        max(page, proven.page_position),
        day,
        last,
    )


def advance(proven: Proven, part: Part) -> Proven:
    """Returns the state after `part` was proven, which must not be the last of its cycle."""
    return replace(
        proven,
        part=proven.part + 1,
        batch_position=part.batches.upto,
        removal_position=part.removal,
        page_position=part.page,
        day_position=part.day,
    )


def _share(of: int, proven: Proven) -> int:
    return of * (proven.part + 1) // proven.parts


def _batch_at(connection: Connection, proven: Proven) -> int:
    (first,) = connection.execute(
        "SELECT coalesce((SELECT first_event FROM batch WHERE id <= ?"
        " ORDER BY id DESC LIMIT 1), 0)",
        (proven.cycle_batch,),
    ).fetchone()
    (batch,) = connection.execute(
        "SELECT coalesce((SELECT id FROM batch WHERE first_event <= ?"
        " ORDER BY first_event DESC LIMIT 1), 0)",
        (_share(first, proven),),
    ).fetchone()
    return min(int(batch), proven.cycle_batch)


def _day_at(connection: Connection, proven: Proven) -> int | None:
    """Returns a day before which about the right share of the blocks begin."""
    (blocks,) = connection.execute("SELECT count(*) FROM event_block").fetchone()
    row = connection.execute(
        "SELECT first_ts_ns FROM event_block ORDER BY first_ts_ns LIMIT 1 OFFSET ?",
        (_share(blocks, proven),),
    ).fetchone()
    if row is None:
        return proven.day_position
    day = int(row[0]) // DAY_NS
    return day if proven.day_position is None else max(day, proven.day_position)
