"""Writes all data of one account as JSON or CSV, piece by piece, in bounded memory.

A file for which logd did not answer to the end says so at its own end, and why.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from logd_wire.query import QueryError
from webapp.classroom.model.accounts import User
from webapp.classroom.present.filters import iso

Row = Mapping[str, Any]
Rows = Iterable[tuple[str, Row]]

_PIECE_CHARS = 16 * 1024
_COLUMNS = ("source", "kind", "number", "time_utc", "type", "user", "details")
# The times of rows, the one that says when it happened first; all are whole nanoseconds.
_TIMES = ("ts_ns", "submitted_ns", "completed_ns", "made_ns", "created_ns", "answered_ns")
# A spreadsheet takes a text that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
COMPLETE = "This file is complete."
INCOMPLETE = "This file is NOT complete: the log did not answer to the end. Download it again."


class _Answered:
    """The rows up to the first request that logd did not answer; `problem` then says why."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.problem: str | None = None

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        try:
            yield from self._rows
        except QueryError as error:
            self.problem = f"{INCOMPLETE} ({error})"


def write_json(user: User, now_ns: int, site: Rows, trail: Rows) -> Iterator[str]:
    """Yields a JSON object: the account, its rows by table, its entries by report."""
    answered = _Answered(trail)

    def parts() -> Iterator[str]:
        about = {"user": user.key, "login": user.login, "made_time": iso(now_ns)}
        yield f'{{"about": {_json(about)},\n"site": {{'
        yield from _lists(site)
        yield '},\n"trail": {'
        yield from _lists(answered)
        state = {"complete": answered.problem is None, "problem": answered.problem}
        yield f"}},\n{_json(state)[1:-1]}}}\n"

    return _in_pieces(parts())


def _lists(rows: Rows) -> Iterator[str]:
    """Yields the members of an object: a list for each name, whose rows come together."""
    name = None
    for this, row in rows:
        if this == name:
            yield ",\n"
        else:
            yield f"{'' if name is None else '],'}\n{_json(this)}: [\n"
        name = this
        times = {_time_name(key): iso(row[key]) for key in _TIMES if _is_time(row.get(key))}
        yield _json({**row, **times})
    yield "" if name is None else "]"


def write_csv(user: User, now_ns: int, site: Rows, trail: Rows) -> Iterator[str]:
    """Yields a table for spreadsheets: one line for each row, with its details as JSON."""
    answered = _Answered(trail)

    def parts() -> Iterator[str]:
        yield "\ufeff"  # so that a spreadsheet reads UTF-8
        yield _line(_COLUMNS)
        yield _line(("file", "about", "", iso(now_ns), "", user.key, user.login))
        for source, rows in (("site", site), ("log", answered)):
            for kind, row in rows:
                yield _line(_cells(source, kind, row))
        yield _line(("file", "end", "", "", "", "", answered.problem or COMPLETE))

    return _in_pieces(parts())


def _cells(source: str, kind: str, row: Row) -> tuple[Any, ...]:
    """Returns the cells of a row; `details` has all that has no column of its own."""
    time_ns = next((row[name] for name in _TIMES if _is_time(row.get(name))), None)
    kind_of_row = kind if "kind" not in row else f"{kind}: {row['kind']}"
    own = {"id", "type", "user", "kind"}
    details = {name: value for name, value in row.items() if name not in own}
    return (
        source,
        kind_of_row,
        row.get("id", ""),
        "" if time_ns is None else iso(time_ns),
        row.get("type", ""),
        row.get("user") or "",
        _json(details),
    )


def _line(cells: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([_cell(cell) for cell in cells])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Marks text that a spreadsheet would calculate with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _is_time(value: object) -> bool:
    # The last time that Python's datetime has is in the year 9999, past every int64 of ns.
    return isinstance(value, int) and value >= 0


def _time_name(name: str) -> str:
    return name.removesuffix("_ns") + "_time"


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Returns the value with what JSON cannot express as text, as logd's exports have it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _in_pieces(parts: Iterable[str]) -> Iterator[str]:
    """Joins short texts, so that each piece is worth a system call."""
    held: list[str] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= _PIECE_CHARS:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


FORMS: Mapping[str, Callable[[User, int, Rows, Rows], Iterator[str]]] = {
    "json": write_json,
    "csv": write_csv,
}
MIME_TYPES = {"json": "application/json", "csv": "text/csv"}
