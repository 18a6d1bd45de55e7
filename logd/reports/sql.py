"""Helpers to run one SELECT and return its rows as dicts."""

from __future__ import annotations

from typing import Any

from logd.storage.database import Connection, question_marks
from logd_wire.query import Answer, Row

# The most bytes of texts in a page: with keys and numbers the page must fit into a response.
PAGE_BYTES_MAX = 4 * 1024 * 1024


def fetch_rows(connection: Connection, sql: str, values: list[Any]) -> list[Row]:
    """Returns all rows of a SELECT as dicts by the names of its columns."""
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def page(
    connection: Connection, sql: str, values: list[Any], *, after: int, rows_max: int
) -> Answer:
    """Returns the rows of a SELECT from number `after` on: at most `rows_max`, and fewer if they
    are long; `next` of the answer continues it.
    """
    cursor = connection.execute(f"{sql} LIMIT -1 OFFSET ?", [*values, after])
    names = [column[0] for column in cursor.description]
    rows: list[Row] = []
    size = 0
    for row in cursor:
        size += sum(len(value.encode()) for value in row if isinstance(value, str))
        if rows and (len(rows) == rows_max or size > PAGE_BYTES_MAX):
            return Answer(rows, after + len(rows))
        rows.append(dict(zip(names, row, strict=True)))
    return Answer(rows)


def among(column: str, values: list[str] | None) -> tuple[str, list[str]]:
    """Returns the SQL condition that a column has one of the values; always true for None."""
    if values is None:
        return "1", []
    return f"{column} IN ({question_marks(values)})", values
