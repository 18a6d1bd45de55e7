"""What commands did to the trail, announced: the daemon stores it as events of logd's own.

A command that finds the daemon running cannot store events itself. It announces them in a short
transaction of its own, and they are stored at the daemon's next look, or at its next start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from logd.database import Connection
from shared.schema import OWN_TYPES

ANNOUNCED_PER_COMMIT = 100


@dataclass(frozen=True)
class Announced:
    """An event to be stored: the number of its row, its type, its properties."""

    row: int
    type: str
    props: Mapping[str, Any]


def announce(connection: Connection, event_type: str, props: Mapping[str, Any]) -> None:
    """Leaves an event of one of OWN_TYPES for the daemon, in the caller's transaction."""
    assert event_type in OWN_TYPES, event_type
    connection.execute(
        "INSERT INTO announced (type, props) VALUES (?, ?)", (event_type, msgpack.packb(props))
    )


def announced(connection: Connection) -> list[Announced]:
    """What waits to be stored, oldest first: as much as one commit takes."""
    rows = connection.execute(
        "SELECT id, type, props FROM announced ORDER BY id LIMIT ?", (ANNOUNCED_PER_COMMIT,)
    ).fetchall()
    return [Announced(row, event_type, msgpack.unpackb(props)) for row, event_type, props in rows]


def forget_announced(connection: Connection, last: int) -> None:
    """They are stored, up to that row; in the caller's transaction."""
    connection.execute("DELETE FROM announced WHERE id <= ?", (last,))
