"""`logd query`: prints stored events."""

from __future__ import annotations

import io
import sys
from contextlib import closing

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import READ_EXITS, config_option, limit_option
from logd.commands._output import print_line
from logd.commands._selection import selection_options
from logd.config.settings import Config
from logd.reports.selection import Selection, chosen_events
from logd.storage import opening


@click.command(
    cls=Command,
    ends_with_reader=True,
    examples=[
        ("logd query --type login --type login_failed --since 7d", "all logins of this week"),
        ("logd query --user 17 --where task=12 --limit 5", "a user's last five events on a task"),
        (
            "logd query --since 2026-03-01 --until 2026-04-01 --format spreadsheet",
            "one month, for a spreadsheet",
        ),
    ],
    exits=READ_EXITS,
)
@config_option
@selection_options
@limit_option
@click.option(
    "--format",
    "form",
    type=click.Choice(list(render.FORMATS)),
    default="table",
    show_default=True,
    help="table for people; jsonl (one JSON object per line) or csv for programs; spreadsheet:"
    " CSV for Excel or LibreOffice, as `logd export` describes it.",
)
def query(config: Config, selection: Selection, limit: int | None, form: str) -> None:
    """Print stored events, oldest first.

    An event has to match all the options that are given; without any, all events are printed. The
    order is the order of storing. The time is the client's; if it cannot be right, it is marked
    with "!" and the time of storing is printed too.

    To copy many events into a file, use `logd export`. Queries are not recorded in the trail.
    """
    if form == render.SPREADSHEET and isinstance(sys.stdout, io.TextIOWrapper):
        # The output is UTF-8 in any locale, as the byte order mark at its beginning announces.
        sys.stdout.reconfigure(encoding="utf-8")
    with closing(opening.open_for_events(config)) as connection:
        rows = chosen_events(connection, selection, limit)
        for line in render.line_format(form, sys.stdout)(rows):
            print_line(line)
