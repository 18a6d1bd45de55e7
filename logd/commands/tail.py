"""`logd tail`: prints the newest events, and follows new ones."""

from __future__ import annotations

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import READ_EXITS, Count, config_option, format_option
from logd.commands._output import print_line, print_note
from logd.commands._selection import selection_options
from logd.config.settings import Config
from logd.reports.follow import follow_events
from logd.reports.selection import Selection


@click.command(
    cls=Command,
    ends_with_reader=True,
    examples=[
        ("logd tail --follow --type login_failed", "watch failed logins"),
        ("logd tail -n 0 -f --json | your-program", "pass new events to another program"),
    ],
    exits=READ_EXITS,
)
@config_option
@selection_options
@click.option(
    "-n",
    "--lines",
    type=Count(),
    default=10,
    show_default=True,
    help="Print this many stored events first.",
)
@click.option("-f", "--follow", is_flag=True, help="Print new events as they arrive, until Ctrl-C.")
@format_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
def tail(
    config: Config, selection: Selection, lines: int, follow: bool, form: str, as_json: bool
) -> None:
    """Print the newest events, one per line; with --follow also new ones as they arrive.

    Use it to see whether events arrive, and which. --follow keeps working when the daemon restarts,
    when an update migrates the database, and when the database is replaced by a restored backup or
    by one with a new key. While it has to wait, it prints the reason on stderr. Ctrl-C ends it with
    exit code 0.
    """
    show = render.json_line if as_json or form == "jsonl" else render.event_line
    try:
        for row in follow_events(config, selection, lines, follow, print_note):
            print_line(show(row))
    except KeyboardInterrupt:
        click.echo(err=True)
