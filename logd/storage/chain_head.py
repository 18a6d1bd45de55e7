"""Reads where the hash chain of a database ends."""

from __future__ import annotations

from logd.storage.database import Connection
from logd.storage.hash_chain import GENESIS, Head


def read_head(connection: Connection) -> tuple[Head, int | None]:
    """Returns the chain's head and when its batch was stored; (0, 0, GENESIS) and None if empty."""
    row = connection.execute(
        "SELECT id, first_event + events - 1, hash, stored_ns FROM batch ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return (Head(*row[:3]), row[3]) if row else (Head(0, 0, GENESIS), None)
