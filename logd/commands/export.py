"""`logd export`: events for other programs, in a file or on the way to one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from logd.atomic_file import cannot_be_written, whole_file
from logd.commands._command import Command
from logd.commands._options import Duration, abandon_output, config_option
from logd.commands._selection import selection_options
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_INPUT_OUTPUT,
    EXIT_INTERRUPTED,
    EXIT_KEY,
    EXIT_OK,
    EXIT_TEMPORARY,
    EXIT_UNAVAILABLE,
    LogdError,
)
from logd.reports.export import FORMS, Export, Tell, note_export
from logd.reports.selection import Selection
from logd.storage import opening
from logd.storage.copy_registry import EXPORT, Copy
from logd_wire.schema import INT64_MAX

STANDARD_OUTPUT = "standard output"


@click.command(
    cls=Command,
    examples=[
        ("logd export --format parquet -o events.parquet", "everything, for pandas or DuckDB"),
        ("logd export --type quiz_submitted --since 90d -o quizzes.jsonl", "a part of it"),
        ("logd export --format csv | zstd > events.csv.zst", "through another program"),
    ],
    exits=[
        *(EXIT_OK, EXIT_DAMAGED, EXIT_UNAVAILABLE, EXIT_CANNOT_CREATE, EXIT_INPUT_OUTPUT),
        *(EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG, EXIT_INTERRUPTED),
    ],
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
    help="The file to write, mode 0600; without it, standard output.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option(
    "--expires",
    type=Duration(),
    default="30d",
    show_default=True,
    help="When you will have removed this copy, from now: 12h, 30d, 2w, 1y.",
)
def export(
    config: Config,
    selection: Selection,
    form: str,
    output: Path | None,
    force: bool,
    expires: int,
) -> None:
    """Copy events into a file that other programs read, whatever their number.

    For an analysis, or for an archive. It ends with the newest event there was at its start, takes
    the same little memory for any number, and holds up no commit. A file is written as
    FILE.partial and is there whole, or not at all.

    All forms hold the same rows: id, ts_ns, stored_ns, type, user, producer, sequence, props. Times
    are whole nanoseconds since 1970 (int64 in Parquet), props are JSON. What JSON lacks is text:
    bytes as base64, not-a-number and infinities as "nan", "inf", "-inf".

    The copy is not encrypted, and `logd forget` does not reach it. So an export is itself an event,
    `trail_exported`, which names nobody; keep the file safe, and remove it when it --expires.
    """
    if output is None and form == "parquet" and sys.stdout.isatty():
        raise click.UsageError("parquet is no text: name a file with --output.")
    made_ns = time.time_ns()
    connection = opening.open_for_events(config)
    work = Export(connection, selection)
    complete = False
    try:
        with click.progressbar(
            length=work.top, label="exporting", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            if output is None:
                _to_standard_output(work, form, bar.update)
            else:
                with whole_file(output, force=force) as file:
                    work.write(form, file, bar.update)
        complete = True
    finally:
        connection.close()
        # A file that was not completed is gone; what went to a reader who then left is not.
        if complete or (output is None and work.events):
            _note(config, work, form, output, made_ns, expires, selection, complete=complete)
    click.echo(f"exported {work.events:,} events to {output or STANDARD_OUTPUT}", err=True)


def _to_standard_output(work: Export, form: str, tell: Tell) -> None:
    try:
        work.write(form, sys.stdout.buffer, tell)
    except BrokenPipeError:
        raise  # who read it has seen enough
    except OSError as error:
        abandon_output()
        raise cannot_be_written(STANDARD_OUTPUT, error) from error


def _note(
    config: Config,
    work: Export,
    form: str,
    output: Path | None,
    made_ns: int,
    expires: int,
    selection: Selection,
    *,
    complete: bool,
) -> None:
    place = STANDARD_OUTPUT if output is None else str(output.absolute())
    copy = Copy(EXPORT, place, made_ns, min(made_ns + expires, INT64_MAX))
    try:
        note_export(config, work, form, copy, selection.filters, complete=complete)
    except LogdError as problem:
        # The export itself is as asked for; who reads stderr hears what the trail does not know.
        click.echo(f"logd: this export is not noted in the trail: {problem}", err=True)
