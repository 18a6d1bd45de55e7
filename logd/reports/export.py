"""Exports events for other programs, any number of them in bounded memory.

JSON lines, CSV and Parquet hold the same rows and columns (`render.COLUMNS`), exactly. Times are
whole nanoseconds; JSON lines have them as text too. Properties are JSON, as text where a column
holds text. Values that JSON cannot express are the same text in every format: bytes as base64,
not-a-number and infinities as "nan", "inf", "-inf". The user of an event without one is null, in
CSV an empty field (a user id is never empty). The form for spreadsheets has the same rows, changed
where a spreadsheet would calculate (`render.spreadsheet_cell`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from logd import render
from logd.reports import parquet
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.selection import Selection, newest_id, pages
from logd.storage.database import Connection
from logd_wire.query import Row

Progress = Callable[[int], None]
Record = Callable[[], None]


def _text(lines: Callable[[Iterable[Row]], Iterator[str]]) -> Callable[..., None]:
    def write(rows: Iterable[Row], out: BinaryIO) -> None:
        for line in lines(rows):
            out.write(line.encode() + b"\n")

    return write


FORMS: dict[str, Callable[[Iterable[Row], BinaryIO], None]] = {
    "jsonl": _text(render.json_lines),
    render.CSV: _text(render.csv_lines),
    render.SPREADSHEET: _text(render.spreadsheet_lines),
    "parquet": parquet.write,
}


class Export:
    """One export, of the events that were stored when it was created.

    `events` is the number written so far, `top` the id of the last event that it may contain.
    """

    def __init__(self, connection: Connection, selection: Selection) -> None:
        self.events = 0
        self.made_ns = time.time_ns()
        self.top = newest_id(connection)
        self.selection = selection
        self._connection = connection

    def write(
        self, form: str, out: BinaryIO, record: Record, progress: Progress = lambda _ids: None
    ) -> None:
        """Writes the export, after `record` has recorded it.

        If `record` raises, nothing is written.

        Calls `progress` with the number of ids scanned since its last call. Raises what `record`
        raises, OSError from `out`, and NotInstalled for a format whose package is missing.
        """
        if form == "parquet":
            parquet.check_installed()
        record()
        write = FORMS[form]
        if form in render.FORMATS and out.isatty():
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
