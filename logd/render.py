"""Events as people and programs read them: a table, JSON lines, CSV, a line for `tail`.

What a stranger wrote into an event must not reach a terminal as control characters.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from shared.query import Row

COLUMNS = ("id", "ts_ns", "stored_ns", "type", "user", "producer", "sequence", "props")


def when(ts_ns: int | None) -> str:
    """A time in UTC with milliseconds, from nanoseconds since 1970."""
    if ts_ns is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(ts_ns // 10**9, UTC)
    except (OverflowError, ValueError, OSError):
        return str(ts_ns)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ts_ns // 10**6 % 1000:03d}Z"


def printable(text: object) -> str:
    """Text without control characters: those become backslash escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def to_json(value: object) -> str:
    """Valid JSON for any stored value; see `plain`."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """The value in what JSON has: bytes as base64, not-a-number and infinities as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def jsonl(rows: Iterable[Row]) -> Iterator[str]:
    """A JSON object a line, with every field."""
    for row in rows:
        yield to_json(row)


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """RFC 4180 lines with a head; `props` as JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="")
    for values in _csv_values(rows):
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(values)
        yield buffer.getvalue()


def _csv_values(rows: Iterable[Row]) -> Iterator[list[Any]]:
    yield list(COLUMNS)
    for row in rows:
        yield [to_json(row[name]) if name == "props" else row[name] for name in COLUMNS]


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Columns for people."""
    yield f"{'id':>8}  {'time (UTC)':24}  {'type':20}  {'user':12}  properties"
    for row in rows:
        yield line(row)


def line(row: Row) -> str:
    """One event on one line."""
    user = printable(row["user"]) if row["user"] is not None else "-"
    props = printable(" ".join(f"{k}={_brief(v)}" for k, v in row["props"].items()))
    return f"{row['id']:>8}  {when(row['ts_ns']):24}  {row['type']:20}  {user:12}  {props}"


def _brief(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else to_json(value)


FORMATS = {"table": table, "jsonl": jsonl, "csv": csv_lines}
