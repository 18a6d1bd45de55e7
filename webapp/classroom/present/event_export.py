"""Formats events for download: CSV, CSV for spreadsheets, and JSON lines.

The lines are those of `logd export` for the same events, byte for byte (a test compares them), but
this site cannot import logd. Text is as it was stored; only the form for spreadsheets changes what
a spreadsheet would calculate.
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
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from logd_wire.query import Row

COLUMNS = ("id", "ts_ns", "stored_ns", "type", "user", "producer", "sequence", "props")
SPREADSHEET_COLUMNS = ("id", "time", "stored_time", *COLUMNS[3:])
BYTE_ORDER_MARK = "\ufeff"
INCOMPLETE = "EXPORT INCOMPLETE"

_EPOCH = datetime(1970, 1, 1)
_SECOND_NS = 10**9
_CSV_END = "\r\n"
_NOT_ASCII = re.compile("[\x7f-\U0010ffff]")
_SPACE = "Zs"
# The beginnings of cells; a semicolon separates cells in some countries.
# The wide signs begin a formula in a spreadsheet set to Chinese or Japanese.
_FORMULA = re.compile("(^|;)(?= *[=+\\-@\uff1d\uff0b\uff0d\uff20])")
# A spreadsheet calculates with doubles, and shows 15 digits.
_EXACT_BELOW = 10**15
# The beginnings of text that is an id, and would be shown as another number: 007, 12e3, 21 digits.
_NUMBER_OF_OTHERS = re.compile(r"\s*(?:0[0-9]|[0-9]{16}|[0-9]+(?:\.[0-9]*)?[eE][0-9]+\s*\Z)")


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields RFC 4180 lines with a header; `props` are JSON."""
    yield from _csv_lines(itertools.chain([COLUMNS], map(_csv_values, rows)), "\n")


def spreadsheet_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields CSV for a spreadsheet, with times as text and without formulas."""
    yield BYTE_ORDER_MARK
    yield from _csv_lines(itertools.chain([SPREADSHEET_COLUMNS], map(_cells, rows)), _CSV_END)


def _cells(row: Row) -> list[object]:
    number, _ts_ns, _stored_ns, *others = _csv_values(row)
    times = iso_time(row["ts_ns"]), iso_time(row["stored_ns"])
    return [number, *times, *map(spreadsheet_cell, others)]


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields one JSON object per line, with each time in nanoseconds and as text."""
    for row in rows:
        shown = {}
        for name in COLUMNS:
            shown[name] = row[name]
            if name in ("ts_ns", "stored_ns"):
                shown["time" if name == "ts_ns" else "stored_time"] = iso_time(row[name])
        yield to_json(shown) + "\n"


def _incomplete_cell(message: str) -> str:
    return "".join(_csv_lines([[spreadsheet_cell(f"{INCOMPLETE}: {message}")]], _CSV_END))


def _incomplete_object(message: str) -> str:
    return to_json({"error": f"{INCOMPLETE}: {message}"}) + "\n"


@dataclass(frozen=True)
class Format:
    """A format of downloads; `incomplete` makes the last line of one that had to stop."""

    key: str
    name: str
    lines: Callable[[Iterable[Row]], Iterator[str]]
    incomplete: Callable[[str], str]
    suffix: str
    mimetype: str


FORMATS = {
    one.key: one
    for one in (
        Format("csv", "CSV", csv_lines, _incomplete_cell, "csv", "text/csv"),
        Format(
            "spreadsheet",
            "CSV for spreadsheets",
            spreadsheet_lines,
            _incomplete_cell,
            "csv",
            "text/csv",
        ),
        Format(
            "jsonl", "JSON lines", json_lines, _incomplete_object, "jsonl", "application/x-ndjson"
        ),
    )
}


def spreadsheet_cell(value: object) -> object:
    """Returns the value for a spreadsheet's cell, so that it is shown unchanged and not calculated.

    An apostrophe marks text that would be a formula, a number with more digits than a spreadsheet
    keeps, and text that would become another number. Control characters are escaped.
    """
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if _NUMBER_OF_OTHERS.match(value) else _FORMULA.sub(r"\1'", text)
    return f"'{value}" if isinstance(value, int) and value >= _EXACT_BELOW else value


def iso_time(ts_ns: int) -> str:
    """Formats nanoseconds since 1970 as ISO 8601 in UTC, to the nanosecond."""
    seconds, rest_ns = divmod(ts_ns, _SECOND_NS)
    hours, rest_s = divmod(seconds, 3600)
    return f"{_iso_hour(hours)}:{rest_s // 60:02d}:{rest_s % 60:02d}.{rest_ns:09d}Z"


@lru_cache(maxsize=64)  # cached, since most neighbouring events are of the same hour
def _iso_hour(hours: int) -> str:
    return (_EPOCH + timedelta(hours=hours)).isoformat(timespec="hours")


def printable(text: str) -> str:
    """Returns the text with characters that control or reverse it as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def to_json(value: object, indent: int | None = None) -> str:
    """Returns valid JSON for any stored value, in which no character controls or reverses text."""
    try:
        text = _encode(value) if indent is None else _in_lines(value, indent)
    except (ValueError, TypeError):  # a value that JSON cannot express, which is rare
        value = _json_value(value)
        text = _encode(value) if indent is None else _in_lines(value, indent)
    if (text.isascii() and "\x7f" not in text) or text.isprintable():
        return text
    return _NOT_ASCII.sub(_json_char, text)


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def _in_lines(value: object, indent: int) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def _json_char(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable() or unicodedata.category(char) == _SPACE:
        return char
    return json.dumps(char)[1:-1]


def _json_value(value: Any) -> Any:
    """Returns the value in JSON types: bytes as base64, not-a-number and infinities as text."""
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _csv_values(row: Row) -> list[Any]:
    return [to_json(row[name]) if name == "props" else row[name] for name in COLUMNS]


def _csv_lines(values: Iterable[Iterable[object]], end: str) -> Iterator[str]:
    out = io.StringIO()
    # The writer quotes CR and LF only if they are in its line end, and an id may contain them.
    writer = csv.writer(out, lineterminator=_CSV_END)
    for row in values:
        out.seek(0)
        out.truncate()
        writer.writerow(row)
        yield out.getvalue().removesuffix(_CSV_END) + end
