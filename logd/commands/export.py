"""`logd export`: copies events into a file for other programs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logd.atomic_file import whole_file
from logd.commands._command import Command
from logd.commands._options import DURATION, JOB_EXITS, FilePath, config_option
from logd.commands._output import print_note, progress_bar
from logd.commands._selection import selection_options
from logd.commands._streams import STANDARD_OUTPUT
from logd.config.settings import Config
from logd.errors import EXIT_UNAVAILABLE
from logd.maintenance.export_record import ExportRecord
from logd.reports.export import FORMS, Export
from logd.reports.selection import Selection
from logd.storage import opening


@click.command(
    cls=Command,
    ends_with_reader=True,
    examples=[
        ("logd export --format parquet -o events.parquet", "all events, for pandas or DuckDB"),
        ("logd export --type quiz_submitted --since 90d -o quizzes.jsonl", "a part of them"),
        ("logd export --format spreadsheet --since 30d -o month.csv", "for Excel or LibreOffice"),
        ("logd export --format csv | zstd > events.csv.zst", "compress them on the way"),
    ],
    exits=(*JOB_EXITS, EXIT_UNAVAILABLE),
)
@config_option
@selection_options
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMS)),
    default="jsonl",
    show_default=True,
    help="JSON lines, CSV, CSV for a spreadsheet, or Parquet (which needs `pip install"
    " 'logd[parquet]'`).",
)
@click.option(
    "-o",
    "--output",
    type=FilePath(dash=True),
    help="The file to write, with mode 0600; - is standard output, the default.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "--expires",
    type=DURATION,
    default="30d",
    show_default=True,
    help="How long you will keep this copy: 12h, 30d, 2w, 1y. The trail records it.",
)
def export(
    config: Config,
    selection: Selection,
    form: str,
    output: Path | None,
    force: bool,
    expires: int,
) -> None:
    """Copy events into a file that other programs can read.

    For analysis or an archive. It copies the events that are stored when it starts, needs the same
    small amount of memory for any number of them, and delays no commit. The file is written as
    FILE.partial and renamed when it is complete.

    Every format holds the same columns: id, ts_ns, stored_ns, type, user, producer, sequence,
    props. Times are whole nanoseconds since 1970 (int64 in Parquet), props are JSON. Values that
    JSON cannot express are text: bytes as base64, not-a-number and infinities as "nan", "inf",
    "-inf". JSON lines also have the times as text, time and stored_time, for programs such as jq
    that change numbers of 19 digits.

    The format spreadsheet is for people. It has the times as text only, and marks text that a
    spreadsheet would take for a formula, or for another number (007, 12e3, 21 digits), with an
    apostrophe. A spreadsheet may still take 3-4 for a date.

    The copy is not encrypted, and `logd forget` cannot reach it. So the export is recorded in the
    trail before it begins, as an event `trail_export_started` that names no person; if that is not
    possible, nothing is exported. `trail_exported` follows when it has ended; without it the export
    was killed. Protect the file, and remove it when it --expires.
    """
    if output is None and form == "parquet" and sys.stdout.isatty():
        raise click.UsageError("parquet is a binary format: use --output to name a file.")
    place = STANDARD_OUTPUT if output is None else str(output.absolute())
    connection = opening.open_for_events(config)
    work = Export(connection, selection)
    record = ExportRecord(config, work, form, place, expires)
    complete = False
    try:
        with progress_bar("exporting", work.top) as advance:
            if output is None:
                work.write(form, sys.stdout.buffer, record.begin, advance)
            else:
                with whole_file(output, force=force) as file:
                    work.write(form, file, record.begin, advance)
        complete = True
    finally:
        connection.close()
        # An incomplete file has been removed, but a part written to stdout exists as a copy.
        kept = complete or (output is None and work.events > 0)
        record.end(complete=complete, kept=kept, notify=print_note)
    click.echo(f"exported {work.events:,} events to {output or STANDARD_OUTPUT}", err=True)
