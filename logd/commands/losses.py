"""`logd losses`: prints the loss ledger."""

from __future__ import annotations

from contextlib import closing

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import READ_EXITS, config_option, format_option
from logd.commands._output import print_line
from logd.config.settings import Config
from logd.reports.ledger_queries import all_losses
from logd.status import text as status_text
from logd.storage import opening


@click.command(
    cls=Command,
    ends_with_reader=True,
    examples=[
        ("logd losses", "every entry"),
        ("logd losses --format jsonl | jq .cause", "the causes, for a script"),
    ],
    exits=READ_EXITS,
)
@config_option
@format_option
def losses(config: Config, form: str) -> None:
    """Print the loss ledger, newest first: time, producer, range of sequences, count and cause.

    Use it when `logd status` reports losses. Every event that is missing from a producer's
    sequence has an entry. "?" means that the end of the range is unknown, as after a power
    failure.
    """
    is_empty = True
    with closing(opening.open_for_reading(config)) as connection:
        for row in all_losses(connection):
            is_empty = False
            print_line(status_text.loss_line(row) if form == "table" else render.json_line(row))
    if is_empty and form == "table":
        print_line("0 entries: no event is known to be lost")
