"""Exports: events in a form that other programs read, at any size, in memory that does not grow.

The three forms hold the same rows and the same columns (`render.COLUMNS`). Times are whole
nanoseconds in all of them. Properties are JSON, as text where a column holds text. What JSON has no
form for is the same text in all of them: bytes are base64, not-a-number and infinities are "nan",
"inf", "-inf". An event without a user has null there, in CSV an empty field: no user is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from logd import render
from logd.config.settings import Config
from logd.reports import parquet
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.selection import Selection, newest_id, pages
from logd.storage.copy_registry import Copy, note
from logd.storage.database import Connection
from logd_wire.query import Row

Tell = Callable[[int], None]


def _text(lines: Callable[[Iterable[Row]], Iterator[str]]) -> Callable[..., None]:
    def write(rows: Iterable[Row], out: BinaryIO) -> None:
        for line in lines(rows):
            out.write(line.encode() + b"\n")

    return write


FORMS: dict[str, Callable[[Iterable[Row], BinaryIO], None]] = {
    "jsonl": _text(render.json_lines),
    "csv": _text(render.csv_lines),
    "parquet": parquet.write,
}


class Export:
    """One export. What is stored after it was made is not in it, so that it ends.

    `events` is how many have been handed on so far, `top` the id of the last that may be in it.
    """

    def __init__(self, connection: Connection, selection: Selection) -> None:
        self.events = 0
        self.top = newest_id(connection)
        self._connection = connection
        self._selection = selection

    def write(self, form: str, out: BinaryIO, tell: Tell = lambda _ids: None) -> None:
        """Writes it, whole. `tell` hears how many further ids have been looked at.

        Raises OSError from `out`, NotInstalled for a form that needs more than is there.
        """
        write = FORMS[form]
        if form == "csv" and out.isatty():
            write = _text(render.line_format(form, out))
        write(self._rows(tell), out)
        out.flush()

    def _rows(self, tell: Tell) -> Iterator[Row]:
        seen = 0
        found = pages(self._connection, self._selection, up_to_id=self.top, rows_max=PAGE_ROWS_MAX)
        for position, rows in found:
            self.events += len(rows)
            yield from rows
            position = self.top if position is None else position
            tell(position - seen)
            seen = position


def note_export(
    config: Config,
    export: Export,
    form: str,
    copy: Copy,
    filters: Mapping[str, Any],
    *,
    complete: bool,
) -> None:
    """Notes in the trail that the copy was made; it names no person. Raises LogdError kinds.

    `complete` is false for one whose reader went away before its end.
    """
    said = {"format": form, "filters": filters, "events": export.events, "complete": complete}
    note(config, copy, {**said, "expires_ns": copy.expires_ns})
