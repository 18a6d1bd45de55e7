"""Recomputes the values of blocks, by which searches skip events: a changed one could hide some."""

from __future__ import annotations

import json

from logd.audit.verify_rows import Verdict
from logd.storage import block_values, event_types
from logd.storage.block_values import BlockValues
from logd.storage.database import Connection
from logd.storage.mentions import PersonKeys
from logd.storage.time_blocks import BLOCK_BITS


def check_values(connection: Connection, verdict: Verdict, first: int, last: int) -> None:
    """Compares the rows of the blocks from `first` to `last` with those of their events."""
    query = "SELECT 1 FROM sqlite_schema WHERE name = 'block_search'"
    if connection.execute(query).fetchone() is None:
        return  # of an older schema
    types = event_types.names(connection)
    blocks = connection.execute(
        "SELECT block, last, keys, more FROM block_search WHERE block BETWEEN ? AND ?",
        (first, last),
    ).fetchall()
    for block, upto, keys, more in blocks:
        try:
            values = _compute(connection, block, upto, keys, types)
        except (TypeError, ValueError, LookupError, AttributeError):
            verdict.add_finding(f"block_search {block}: cannot be computed again")
            continue
        counted = {row.path: tuple(row) for row in values.rows()}
        stored = {
            row[0]: row
            for row in connection.execute(
                "SELECT path, open, chars, entries, masks FROM block_value WHERE block = ?",
                (block,),
            )
        }
        if more != values.more:
            verdict.add_finding(f"block_search {block}: {more} stored, {values.more} by the events")
        for path in sorted(counted.keys() | stored.keys(), key=str):
            if counted.get(path) != stored.get(path):
                verdict.add_finding(f"block_value {block}, {path}: not that of the events")
    (stray,) = connection.execute(
        "SELECT count(*) FROM block_value WHERE block BETWEEN ? AND ?"
        " AND block NOT IN (SELECT block FROM block_search)",
        (first, last),
    ).fetchone()
    if stray:
        verdict.add_finding(f"block_value: {stray} rows of no block")


def _compute(
    connection: Connection, block: int, upto: int, keys: str, types: dict[int, str]
) -> BlockValues:
    start = block << BLOCK_BITS
    if not start - 1 <= upto < (block + 1) << BLOCK_BITS:
        raise ValueError("not an event of the block")
    values = BlockValues(PersonKeys(json.loads(keys)))
    for number, _, events in block_values.read(connection, start, upto + 1, types):
        values.add(number, events)
    return values
