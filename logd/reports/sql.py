"""Helpers to run one SELECT and return its rows as dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    connection: Connection, sql: str, values: list[Any], *, key: Callable[[Row], Any], rows_max: int
) -> Answer:
    """Returns the first rows of a SELECT: at most `rows_max`, and fewer if they are long.

    `next` of the answer is the `key` of its last row, and the SELECT of the next page begins after
    that key: rows that appear or go meanwhile shift no others. Rows of the same key stay together;
    there are fewer of them than fit into a page.
    """
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    rows: list[Row] = []
    size = 0
    for values_of_row in cursor:
        row = dict(zip(names, values_of_row, strict=True))
        size += sum(len(value.encode()) for value in values_of_row if isinstance(value, str))
        if rows and (len(rows) == rows_max or size > PAGE_BYTES_MAX):
            while key(rows[-1]) == key(row):
                rows.pop()
            return Answer(rows, key(rows[-1]))
        rows.append(row)
    return Answer(rows)


def fitting(sizes: Iterable[int], bytes_max: int) -> int:
    """Returns how many of the first sizes add up to at most `bytes_max`; at least the first one."""
    total = count = 0
    for size in sizes:
        total += size
        if count and total > bytes_max:
            break
        count += 1
    return count


def after(columns: str, values: list[str] | None) -> tuple[str, list[str]]:
    """Returns the SQL condition that columns are past the given values; always true for None."""
    if values is None:
        return "1", []
    return f"({columns}) > ({question_marks(values)})", values


def among(column: str, values: list[str] | None) -> tuple[str, list[str]]:
    """Returns the SQL condition that a column has one of the values; always true for None."""
    if values is None:
        return "1", []
    return f"{column} IN ({question_marks(values)})", values
