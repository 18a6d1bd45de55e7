"""Formats events as a table, JSON lines, CSV, or CSV for a spreadsheet.

An event may contain text that a client chose. No form sends characters to a terminal that control
it or that change the order of what is shown (`printable`), and no cell of the form for spreadsheets
is a formula.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

from logd.clock.event_age import is_plausible
from logd_wire.query import Row

COLUMNS = ("id", "ts_ns", "stored_ns", "type", "user", "producer", "sequence", "props")
BYTE_ORDER_MARK = "\ufeff"
SPREADSHEET_COLUMNS = ("id", "time", "stored_time", *COLUMNS[3:])

_EPOCH = datetime(1970, 1, 1)


def format_time(ts_ns: int | None) -> str:
    """Formats nanoseconds since 1970 as a time in UTC with milliseconds."""
    if ts_ns is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(ts_ns // 10**9, UTC)
    except (OverflowError, ValueError, OSError):
        return str(ts_ns)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ts_ns // 10**6 % 1000:03d}Z"


def iso_time(ts_ns: int) -> str:
    """Formats nanoseconds since 1970 as ISO 8601 in UTC, to the nanosecond."""
    seconds, rest_ns = divmod(ts_ns, 10**9)
    hours, rest_s = divmod(seconds, 3600)
    return f"{_iso_hour(hours)}:{rest_s // 60:02d}:{rest_s % 60:02d}.{rest_ns:09d}Z"


@lru_cache(maxsize=64)  # cached, since most neighbouring events are of the same hour
def _iso_hour(hours: int) -> str:
    return (_EPOCH + timedelta(hours=hours)).isoformat(timespec="hours")


def printable(text: object) -> str:
    """Returns the text with characters that are unsafe on a terminal as backslash escapes.

    These are control characters, and invisible ones that reverse the order in which text is shown
    (U+202A to U+202E, U+2066 to U+2069, U+200E, U+200F, U+061C) or hide in it.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain
    )


# Stored values are never circular; without the check for that, encoding is a third quicker.
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_NOT_ASCII = re.compile("[\x7f-\U0010ffff]")
# The Unicode category of spaces, which are harmless though str.isprintable() excludes them.
_SPACE = "Zs"


def to_json(value: object) -> str:
    """Returns valid JSON for any stored value, on one line, without unsafe characters.

    Characters that `printable` escapes are written as JSON escapes.
    """
    try:
        text = _encode(value)
    except (
        ValueError,
        TypeError,
    ):  # a value that JSON cannot express, which is rare
        text = _encode(json_value(value))
    if (text.isascii() and "\x7f" not in text) or text.isprintable():
        return text
    return _NOT_ASCII.sub(_json_char, text)


def _json_char(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable() or unicodedata.category(char) == _SPACE:
        return char
    return json.dumps(char)[1:-1]


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
    return map(json_line, rows)


def json_line(row: Row) -> str:
    """Returns a row as a JSON object, with each time in nanoseconds and as text.

    For example, `time` is added to `ts_ns`, since programs that read numbers as doubles (jq,
    JavaScript) change the last digits of nanoseconds.
    """
    shown: dict[str, Any] = {}
    for name, text_name in _names(tuple(row)):
        value = shown[name] = row[name]
        if text_name is not None:
            shown[text_name] = None if value is None else iso_time(value)
    return to_json(shown)


@lru_cache(maxsize=64)
def _names(names: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """Returns each name, with the name of the same time as text if it is a time."""
    return [(name, _time_name(name) if name.endswith("_ns") else None) for name in names]


def _time_name(name: str) -> str:
    """Returns the name for a time as text: `time` for `ts_ns`, `made_time` for `made_ns`."""
    words = name.removesuffix("_ns").split("_")
    return "_".join([*words[: len(words) - (words[-1] == "ts")], "time"])


_CSV_END = "\r\n"


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields RFC 4180 lines with a header; `props` are JSON, text is as it was stored."""
    return _csv_lines(COLUMNS, map(_csv_values, rows))


def _csv_values(row: Row) -> list[Any]:
    return [to_json(row[name]) if name == "props" else row[name] for name in COLUMNS]


def _csv_lines(header: Iterable[str], values: Iterable[Iterable[Any]]) -> Iterator[str]:
    buffer = io.StringIO()
    # The writer quotes CR and LF only if they are in its line end, and a user id may contain them.
    writer = csv.writer(buffer, lineterminator=_CSV_END)
    for row in itertools.chain([header], values):
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(row)
        yield buffer.getvalue().removesuffix(_CSV_END)


# The beginnings of cells; a semicolon separates cells in some countries.
# The wide signs begin a formula in a spreadsheet set to Chinese or Japanese.
_FORMULA = re.compile("(^|;)(?= *[=+\\-@\uff1d\uff0b\uff0d\uff20])")
# A spreadsheet calculates with doubles, and shows 15 digits.
_EXACT_BELOW = 10**15
# The beginnings of text that is an id, and would be shown as another number: 007, 12e3, 21 digits.
_NUMBER_OF_OTHERS = re.compile(r"\s*(?:0[0-9]|[0-9]{16}|[0-9]+(?:\.[0-9]*)?[eE][0-9]+\s*\Z)")


def spreadsheet_cell(value: object) -> object:
    """Returns the value for a spreadsheet's cell, so that it is shown unchanged and not calculated.

    An apostrophe marks text that would be a formula, a number with more digits than a spreadsheet
    keeps, and text that would become another number: 007, 12e3, an id of 21 digits. A tab or a line
    end, which could begin a cell too, is escaped like any control character.
    """
    if isinstance(value, str):
        if _NUMBER_OF_OTHERS.match(value):
            return f"'{printable(value)}"
        return _FORMULA.sub(r"\1'", printable(value))
    if isinstance(value, int) and value >= _EXACT_BELOW:
        return f"'{value}"
    return value


def _spreadsheet_values(row: Row) -> list[object]:
    times = [iso_time(row["ts_ns"]), iso_time(row["stored_ns"])]
    first, _ts_ns, _stored_ns, *others = _csv_values(row)
    return [first, *times, *map(spreadsheet_cell, others)]


def _spreadsheet_rows(rows: Iterable[Row]) -> Iterator[str]:
    return _csv_lines(SPREADSHEET_COLUMNS, map(_spreadsheet_values, rows))


def spreadsheet_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields CSV for a spreadsheet, with times as text and without formulas.

    It begins with a byte order mark, which states the encoding; lines end in CR, to which the
    caller adds LF.
    """
    for number, line in enumerate(_spreadsheet_rows(rows)):
        yield f"{'' if number else BYTE_ORDER_MARK}{line}\r"


def table_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields a header and a line for each event, in columns."""
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


CSV, SPREADSHEET = "csv", "spreadsheet"
FORMATS = {
    "table": table_lines,
    "jsonl": json_lines,
    CSV: csv_lines,
    SPREADSHEET: spreadsheet_lines,
}
_AT_TERMINAL = {CSV: csv_lines, SPREADSHEET: _spreadsheet_rows}


class _Output(Protocol):
    def isatty(self) -> bool: ...


def line_format(form: str, out: _Output) -> Callable[[Iterable[Row]], Iterator[str]]:
    """Returns the function that formats rows in the format `form` for `out`.

    CSV keeps text as it was stored, for programs; on a terminal its control characters are escaped.
    """
    if form in _AT_TERMINAL and out.isatty():
        return lambda rows: map(printable, _AT_TERMINAL[form](rows))
    return FORMATS[form]
