"""Finds the newest events in order of time (`ts_ns`, then id), a page at a time.

Outboxes are read in any order, so events are not stored in order of time. Blocks are read from the
one with the latest time on, until none left can hold a later event than the page has. In a block
the indexes are in order of type and time, or of user: a wrong clock, in every block, costs a look
into each block and type, never a scan of all events.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from logd.reports.parameters import BadParameter, Parameters
from logd.storage.database import Connection
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.schema import INT64_MAX

_IN_BLOCK = f"(e.id >> {BLOCK_BITS}) = :block"
# Selects the types of the events in a block, each by one seek in the index.
_TYPES_OF_BLOCK = f"""
    WITH RECURSIVE here (type) AS (
        SELECT min(e.type) FROM event e INDEXED BY event_type_id WHERE {_IN_BLOCK}
        UNION ALL SELECT (SELECT min(e.type) FROM event e INDEXED BY event_type_id
            WHERE {_IN_BLOCK} AND e.type > here.type) FROM here WHERE type IS NOT NULL)
    SELECT type FROM here WHERE type IS NOT NULL"""  # noqa: S608 - no data in it


class Position(NamedTuple):
    """An event's position in order of time."""

    ts_ns: int
    id: int


END = Position(INT64_MAX, INT64_MAX)


def position(connection: Connection, parameters: Parameters) -> Position:
    """Takes `before_id` and `before_ns`, the event before which a page ends; END if not given.

    The time is needed only if that event was removed since.
    """
    before_id = parameters.maybe_whole("before_id")
    before_ns = parameters.maybe_whole("before_ns")
    if before_id is None:
        if before_ns is not None:
            raise BadParameter("before_ns: only together with before_id")
        return END
    found = connection.execute("SELECT ts_ns FROM event WHERE id = ?", (before_id,)).fetchone()
    if found is not None:
        return Position(found[0], before_id)
    if before_ns is None:
        raise BadParameter(
            f"before_id: event {before_id} is not there (removed since?). Also pass its ts_ns as"
            " before_ns, or start with the newest page again"
        )
    return Position(before_ns, before_id)


def newest(
    connection: Connection,
    *,
    event_type: str | None = None,
    user: str | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    before: Position = END,
    limit: int,
) -> list[Position]:
    """Returns at most `limit` events before a position, from the latest on."""
    if until_ns is not None and until_ns <= before.ts_ns:
        before = Position(until_ns - 1, INT64_MAX)
    values: dict[str, Any] = {"user": user, "ts": before.ts_ns, "id": before.id, "limit": limit}
    floor_ns = since_ns or 0
    if event_type is not None:
        (values["type"],) = connection.execute(
            "SELECT max(id) FROM event_type WHERE name = ?", (event_type,)
        ).fetchone()
    statement = _statement(by_type=event_type is not None, by_user=user is not None)
    blocks = connection.execute(
        "SELECT block, last_ts_ns FROM event_block WHERE first_ts_ns <= ? AND last_ts_ns >= ?"
        " ORDER BY last_ts_ns DESC, block DESC",
        (before.ts_ns, floor_ns),
    )
    best: list[Position] = []
    for block, last_ts_ns in blocks:
        if last_ts_ns < floor_ns:
            break
        values |= {"block": block, "floor": floor_ns}
        best += map(Position._make, connection.execute(statement, values))
        best = sorted(best, reverse=True)[:limit]
        if len(best) == limit:
            floor_ns = best[-1].ts_ns
    return best


def _statement(*, by_type: bool, by_user: bool) -> str:
    """Returns the SELECT of one block's latest events."""
    index, conditions = "event_type_id", [_IN_BLOCK]
    if by_user:
        index = "event_user"
        conditions.append("e.user = :user")
    if by_type:
        conditions.append("e.type = :type")
    elif not by_user:
        conditions.append(f"e.type IN ({_TYPES_OF_BLOCK})")
    return (
        f"SELECT e.ts_ns, e.id FROM event e INDEXED BY {index} WHERE {' AND '.join(conditions)}"  # noqa: S608 - no data in it
        " AND e.ts_ns BETWEEN :floor AND :ts AND (e.ts_ns < :ts OR e.id < :id)"
        " ORDER BY e.ts_ns DESC, e.id DESC LIMIT :limit"
    )
