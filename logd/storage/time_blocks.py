"""Blocks of 16,384 events in the order of storing, with their earliest and latest time.

A query for a period skips the blocks outside it. That is correct in any order of the clients'
clocks, and fast if it is nearly the order of storing. The indexes by user and by type begin with
the block, so that a commit writes to the newest block's pages only, however many users there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from logd.batch import Producer
from logd.storage.database import Connection
from logd_wire.wire import Event

BLOCK_BITS = 14  # the schema's indexes have this number too, so it cannot be changed here alone
BLOCK_EVENTS = 1 << BLOCK_BITS

# A condition that is always true: with it a query by type alone can use the index event_type_id.
IN_ANY_BLOCK = f"""(e.id >> {BLOCK_BITS}) IN (
    WITH RECURSIVE block (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM block
        WHERE n < (SELECT max(id) >> {BLOCK_BITS} FROM event))
    SELECT n FROM block)"""  # noqa: S608 - no data in it

# SQL that adds the times of more events to a block's row.
BLOCK_CONFLICT = (
    "first_ts_ns = min(first_ts_ns, excluded.first_ts_ns),"
    " last_ts_ns = max(last_ts_ns, excluded.last_ts_ns)"
)


def update(
    connection: Connection,
    events: Iterable[tuple[Producer, int, Event]],
    types: Mapping[str, int],
    first_event: int,
) -> None:
    """Adds events to the blocks and to the counts by type, inside the caller's transaction.

    The first event has the id `first_event`; the others follow it.
    """
    batch = [event for _, _, event in events]
    connection.executemany(
        f"INSERT INTO event_block VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET {BLOCK_CONFLICT}",  # noqa: S608 - no data in it
        list(_times(first_event, [event.ts_ns for event in batch])),
    )
    connection.executemany(
        "UPDATE event_type SET events = events + ? WHERE id = ?",
        [(number, types[kind]) for kind, number in Counter(e.type for e in batch).items()],
    )


def _times(first_event: int, ts_ns: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yields a block with its earliest and latest time, for events with consecutive ids."""
    start = 0
    while start < len(ts_ns):
        block = (first_event + start) >> BLOCK_BITS
        end = ((block + 1) << BLOCK_BITS) - first_event
        part = ts_ns[start:end]
        yield block, min(part), max(part)
        start = end
