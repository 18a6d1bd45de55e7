"""Events as people and programs read them: a table, JSON lines, CSV, a line for `tail`.

What a stranger wrote into an event must not reach a terminal as control characters.
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


# Nothing stored is circular: not to look for that saves a third.
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
# JSON lets these stand as they are; but they command terminals, and end lines for some readers.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")


def to_json(value: object) -> str:
    """Valid JSON for any stored value, on one line and without control characters; see `plain`."""
    try:
        text = _encode(value)
    except (ValueError, TypeError):  # what JSON has no form for; rare, and looked for only then
        text = _encode(plain(value))
    if text.isascii() and "\x7f" not in text:
        return text
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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


_CSV_END = "\r\n"


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """RFC 4180 lines with a head; `props` as JSON."""
    buffer = io.StringIO()
    # Only what is in its line's end does the writer put in quotes: a user may have a line's end.
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


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Columns for people."""
    yield f"{'id':>8}  {'time (UTC)':24}  {'type':20}  {'user':12}  properties"
    for row in rows:
        yield line(row)


def line(row: Row) -> str:
    """One event on one line. If its own time and that of its storing cannot both be right, the one
    is marked, and the other shown.

    The mark is in a column of its own, where no property of an event can forge it.
    """
    stored_ns = row.get("stored_ns")
    doubtful = not is_plausible(row["ts_ns"], stored_ns)
    at = f"{when(row['ts_ns'])}{'!' if doubtful else ''}"
    stored = f"[stored {when(stored_ns)}] " if doubtful else ""
    user = printable(row["user"]) if row["user"] is not None else "-"
    props = printable(" ".join(f"{k}={_brief(v)}" for k, v in row["props"].items()))
    return f"{row['id']:>8}  {at:25} {row['type']:20}  {user:12}  {stored}{props}"


def _brief(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else to_json(value)


FORMATS = {"table": table, "jsonl": jsonl, "csv": csv_lines}


class _Output(Protocol):
    def isatty(self) -> bool: ...


def lines(form: str, out: _Output) -> Callable[[Iterable[Row]], Iterator[str]]:
    """What makes the lines of that form for `out`.

    CSV holds text as it was stored, for programs; at a terminal that might be commands to it, and
    is escaped.
    """
    return _csv_at_terminal if form == "csv" and out.isatty() else FORMATS[form]


def _csv_at_terminal(rows: Iterable[Row]) -> Iterator[str]:
    return map(printable, csv_lines(rows))
