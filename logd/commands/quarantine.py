"""`logd quarantine`: prints what the daemon refused."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import READ_EXITS, config_option, format_option, limit_option
from logd.commands._output import print_line
from logd.config.settings import Config
from logd.reports import quarantine as refusals
from logd.storage import opening
from logd_wire.query import Row


@click.command(
    cls=Command,
    ends_with_reader=True,
    examples=[
        ("logd quarantine --summary", "which sender was refused for what, and how often"),
        ("logd quarantine --limit 1 --format jsonl", "the newest entry with its whole excerpt"),
    ],
    exits=READ_EXITS,
)
@config_option
@limit_option
@format_option
@click.option(
    "--summary", is_flag=True, help="Print one line per reason and user: the count and the last."
)
def quarantine(config: Config, limit: int | None, form: str, summary: bool) -> None:
    """Print what was refused, newest first: time, sender, size, reason and an excerpt.

    Use it when `logd status` counts something as quarantined: data that is not an event, forgeries,
    events that break the schema, or other protocol versions. The kernel reports the user and pid of
    a sender, so they cannot be forged. An excerpt is the first bytes that were received; it can
    contain personal data. Past quarantine_rows_max the oldest entries are removed, but still
    counted.
    """
    with closing(opening.open_for_reading(config)) as connection:
        rows: Iterable[Row]
        if summary:
            rows, head, line = (
                refusals.quarantine_summary(connection, limit),
                refusals.SUMMARY_HEAD,
                refusals.summary_line,
            )
        else:
            rows, head, line = (
                refusals.quarantine_rows(connection, limit),
                refusals.HEAD,
                refusals.quarantine_line,
            )
        if form == "table":
            print_line(head)
        for row in rows:
            print_line(line(row) if form == "table" else render.json_line(row))
        if form == "table":
            ever, kept = refusals.quarantine_totals(connection)
            print_line(f"{ever:,} refused, of which {kept:,} are kept")
