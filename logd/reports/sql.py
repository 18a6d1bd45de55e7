"""Helpers to run one SELECT and return its rows as dicts."""

from __future__ import annotations

from typing import Any

from logd.storage.database import Connection, question_marks
from logd_wire.query import Row


def fetch_rows(connection: Connection, sql: str, values: list[Any]) -> list[Row]:
    """Returns all rows of a SELECT, by the names of its columns."""
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def among(column: str, values: list[str] | None) -> tuple[str, list[str]]:
    """Returns the condition that a column is one of the values; always true for None."""
    if values is None:
        return "1", []
    return f"{column} IN ({question_marks(values)})", values
