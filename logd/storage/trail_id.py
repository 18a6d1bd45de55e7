"""Reads the id of a trail: random, made with the database, and in every copy of it."""

from __future__ import annotations

from logd.storage.database import Connection


def read_trail_id(connection: Connection) -> str | None:
    """The id, 16 hexadecimal digits; None in a database from before trails had one."""
    table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'trail'"
    if not connection.execute(table).fetchone():
        return None
    row = connection.execute("SELECT name FROM trail").fetchone()
    return None if row is None else str(row[0])
