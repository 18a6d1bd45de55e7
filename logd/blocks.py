"""Blocks: each 16,384 events, in the order of storing, with their earliest and latest time.

A question about a time passes over the blocks that lie outside it, whatever order the clients'
clocks gave; it is quick as far as that is nearly the order of storing. The index by user leads with
the block, so that a commit writes to the newest block's pages only, however many users there are.
"""

from __future__ import annotations

from logd.database import Connection

BLOCK_BITS = 14  # the schema has it too, in the index event_user: it cannot be changed here alone
BLOCK_EVENTS = 1 << BLOCK_BITS

Times = tuple[int, int]


class Blocks:
    """The same from events one by one; `verify` compares."""

    def __init__(self) -> None:
        self.times: dict[int, Times] = {}

    def add(self, event_id: int, ts_ns: int) -> None:
        """Takes one event into its block."""
        block = event_id >> BLOCK_BITS
        first, last = self.times.get(block, (ts_ns, ts_ns))
        self.times[block] = min(first, ts_ns), max(last, ts_ns)


def update(connection: Connection, first_event: int) -> None:
    """Adds events from `first_event` on to blocks and types, inside the caller's transaction.

    In SQL over the rows just written: without the GIL, and nothing for each event in Python. Not
    indexed: for the groups' sake SQLite would read a whole index, in every commit.
    """
    connection.execute(
        f"INSERT INTO event_block SELECT id >> {BLOCK_BITS}, min(ts_ns), max(ts_ns)"  # noqa: S608 - a constant
        " FROM event NOT INDEXED WHERE id >= ? GROUP BY 1 ON CONFLICT DO UPDATE SET"
        " first_ts_ns = min(first_ts_ns, excluded.first_ts_ns),"
        " last_ts_ns = max(last_ts_ns, excluded.last_ts_ns)",
        (first_event,),
    )
    connection.execute(
        "UPDATE event_type SET events = events + new.number FROM"
        " (SELECT type, count(*) AS number FROM event NOT INDEXED WHERE id >= ?"
        " GROUP BY type) AS new WHERE event_type.id = new.type",
        (first_event,),
    )
