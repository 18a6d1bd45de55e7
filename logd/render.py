"""Formats events as a table, JSON lines or CSV.

An event may contain control characters that a client chose: no form sends them to a terminal.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

from logd.clock.event_age import is_plausible
from logd_wire.query import Row

COLUMNS = ("id", "ts_ns", "stored_ns", "type", "user", "producer", "sequence", "props")


def format_time(ts_ns: int | None) -> str:
    """Formats nanoseconds since 1970 as a time in UTC with milliseconds."""
    if ts_ns is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(ts_ns // 10**9, UTC)
    except (OverflowError, ValueError, OSError):
        return str(ts_ns)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ts_ns // 10**6 % 1000:03d}Z"


def printable(text: object) -> str:
    """Returns the text with control characters as backslash escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


# Stored values are never circular; not checking for it saves a third of the time.
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
# JSON allows these unescaped, but they control terminals, and some readers end lines at them.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")


def to_json(value: object) -> str:
    """Returns valid JSON for any stored value, on one line and without control characters."""
    try:
        text = _encode(value)
    except (
        ValueError,
        TypeError,
    ):  # a value that JSON cannot express; rare, so it is not checked before
        text = _encode(json_value(value))
    if text.isascii() and "\x7f" not in text:
        return text
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_value(value: Any) -> Any:
    """Returns the value in JSON types: bytes as base64, not-a-number and infinities as text."""
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields one JSON object per line, with every field."""
    for row in rows:
        yield to_json(row)


_CSV_END = "\r\n"


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields RFC 4180 lines with a header; `props` are JSON."""
    buffer = io.StringIO()
    # The writer quotes only characters of its own line end, and a user id may contain one.
    writer = csv.writer(buffer, lineterminator=_CSV_END)
    for values in _csv_values(rows):
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(values)
        yield buffer.getvalue().removesuffix(_CSV_END)


def _csv_values(rows: Iterable[Row]) -> Iterator[list[Any]]:
    yield list(COLUMNS)
    for row in rows:
        yield [to_json(row[name]) if name == "props" else row[name] for name in COLUMNS]


def table_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields a header and one line per event, in columns."""
    yield f"{'id':>8}  {'time (UTC)':24}  {'type':20}  {'user':12}  properties"
    for row in rows:
        yield event_line(row)


def event_line(row: Row) -> str:
    """Returns an event on one line.

    If its own time is implausible, it is marked and the time of storing is shown too. The mark is
    in a column of its own, so that no property of an event can forge it.
    """
    stored_ns = row.get("stored_ns")
    doubtful = not is_plausible(row["ts_ns"], stored_ns)
    at = f"{format_time(row['ts_ns'])}{'!' if doubtful else ''}"
    stored = f"[stored {format_time(stored_ns)}] " if doubtful else ""
    user = printable(row["user"]) if row["user"] is not None else "-"
    props = printable(" ".join(f"{k}={_brief(v)}" for k, v in row["props"].items()))
    return f"{row['id']:>8}  {at:25} {row['type']:20}  {user:12}  {stored}{props}"


def _brief(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else to_json(value)


FORMATS = {"table": table_lines, "jsonl": json_lines, "csv": csv_lines}


class _Output(Protocol):
    def isatty(self) -> bool: ...


def line_format(form: str, out: _Output) -> Callable[[Iterable[Row]], Iterator[str]]:
    """Returns the function that formats rows for `out`.

    CSV keeps text as it was stored, for programs; for a terminal its control characters are
    escaped.
    """
    return _csv_at_terminal if form == "csv" and out.isatty() else FORMATS[form]


def _csv_at_terminal(rows: Iterable[Row]) -> Iterator[str]:
    return map(printable, csv_lines(rows))
