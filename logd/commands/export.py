"""`logd export`: copies events into a file for other programs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from logd.atomic_file import whole_file
from logd.commands._command import Command
from logd.commands._options import DURATION, JOB_EXITS, config_option
from logd.commands._output import print_note, progress_bar
from logd.commands._selection import selection_options
from logd.commands._streams import STANDARD_OUTPUT
from logd.config.settings import Config
from logd.errors import EXIT_INTERRUPTED, EXIT_UNAVAILABLE, LogdError
from logd.reports.export import FORMS, Export, record_export
from logd.reports.selection import Selection
from logd.storage import opening


@click.command(
    cls=Command,
    examples=[
        ("logd export --format parquet -o events.parquet", "all events, for pandas or DuckDB"),
        ("logd export --type quiz_submitted --since 90d -o quizzes.jsonl", "a part of them"),
        ("logd export --format csv | zstd > events.csv.zst", "compress them on the way"),
    ],
    exits=(*JOB_EXITS, EXIT_UNAVAILABLE, EXIT_INTERRUPTED),
)
@config_option
@selection_options
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMS)),
    default="jsonl",
    show_default=True,
    help="JSON lines, CSV, or Parquet (which needs `pip install 'logd[parquet]'`).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write, with mode 0600; by default, standard output.",
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
    "-inf".

    The copy is not encrypted, and `logd forget` cannot reach it. So the export is recorded in the
    trail as an event `trail_exported`, which names no person. Protect the file, and remove it when
    it --expires.
    """
    if output is None and form == "parquet" and sys.stdout.isatty():
        raise click.UsageError("parquet is a binary format: use --output to name a file.")
    place = STANDARD_OUTPUT if output is None else str(output.absolute())
    connection = opening.open_for_events(config)
    work = Export(connection, selection)
    complete = False
    try:
        with progress_bar("exporting", work.top) as advance:
            if output is None:
                work.write(form, sys.stdout.buffer, advance)
            else:
                with whole_file(output, force=force) as file:
                    work.write(form, file, advance)
        complete = True
    finally:
        connection.close()
        # An incomplete file is removed and not recorded; part of an export to stdout is a copy.
        if complete or (output is None and work.events):
            _record(config, work, form, place, expires, complete=complete)
    click.echo(f"exported {work.events:,} events to {output or STANDARD_OUTPUT}", err=True)


def _record(
    config: Config, work: Export, form: str, place: str, expires: int, *, complete: bool
) -> None:
    try:
        record_export(config, work, form, place, expires, complete=complete)
    except LogdError as problem:  # the export itself succeeded
        print_note(f"this export could not be recorded in the trail: {problem}")
