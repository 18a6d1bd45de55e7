"""Reads the id of a trail, a random number made with the database and present in each copy."""

from __future__ import annotations

from logd.storage.database import Connection


def read_trail_id(connection: Connection) -> str | None:
    """Returns the trail's id, 16 hexadecimal digits; None for a database from before ids."""
    table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'trail'"
    if not connection.execute(table).fetchone():
        return None
    row = connection.execute("SELECT name FROM trail").fetchone()
    return None if row is None else str(row[0])
