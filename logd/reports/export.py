"""Exports events for other programs, any number of them in bounded memory.

The three formats hold the same rows and columns (`render.COLUMNS`). Times are whole nanoseconds.
Properties are JSON, as text where a column holds text. Values that JSON cannot express are the same
text in every format: bytes as base64, not-a-number and infinities as "nan", "inf", "-inf". The user
of an event without one is null, in CSV an empty field (a user id is never empty).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from logd import render
from logd.config.settings import Config
from logd.reports import parquet
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.selection import Selection, newest_id, pages
from logd.storage.copy_registry import EXPORT, Copy, register_copy
from logd.storage.database import Connection
from logd_wire.query import Row
from logd_wire.schema import INT64_MAX

Progress = Callable[[int], None]


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
    """One export, of the events that are stored when it is created.

    `events` is the number written so far, `top` the id of the last event that it may contain.
    """

    def __init__(self, connection: Connection, selection: Selection) -> None:
        self.events = 0
        self.made_ns = time.time_ns()
        self.top = newest_id(connection)
        self.selection = selection
        self._connection = connection

    def write(self, form: str, out: BinaryIO, progress: Progress = lambda _ids: None) -> None:
        """Writes the export. Calls `progress` with the number of further ids that were scanned.

        Raises OSError from `out`, and NotInstalled for a format whose package is missing.
        """
        write = FORMS[form]
        if form == "csv" and out.isatty():
            write = _text(render.line_format(form, out))
        write(self._rows(progress), out)
        out.flush()

    def _rows(self, progress: Progress) -> Iterator[Row]:
        seen = 0
        found = pages(self._connection, self.selection, up_to_id=self.top, rows_max=PAGE_ROWS_MAX)
        for position, rows in found:
            self.events += len(rows)
            yield from rows
            position = self.top if position is None else position
            progress(position - seen)
            seen = position


def record_export(
    config: Config, export: Export, form: str, place: str, expires_after_ns: int, *, complete: bool
) -> None:
    """Records in the trail that the copy was made, without naming a person. Raises LogdError.

    `complete` is False if the reader closed the output before the end.
    """
    made_ns = export.made_ns
    copy = Copy(EXPORT, place, made_ns, min(made_ns + expires_after_ns, INT64_MAX))
    facts = {
        "format": form,
        "filters": export.selection.filters,
        "events": export.events,
        "complete": complete,
        "expires_ns": copy.expires_ns,
    }
    register_copy(config, copy, facts)
