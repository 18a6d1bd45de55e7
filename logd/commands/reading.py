"""`logd query`, `tail`, `losses`: what is stored, as people and programs read it."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import (
    EXITS_OF_READING,
    Count,
    config_option,
    format_option,
    put,
    say,
)
from logd.commands._selection import selection_options
from logd.config.settings import Config
from logd.reports import follow as following
from logd.reports import quarantine as refusals
from logd.reports.registry import PAGE_ROWS_MAX, loss_page
from logd.reports.selection import Selection, newest, newest_id, pages
from logd.status import text as status_text
from logd.storage import opening
from logd_wire.query import Row


@click.command(
    cls=Command,
    examples=[
        ("logd query --type login --type login_failed --since 7d", "who logged in this week"),
        ("logd query --user 17 --where task=12 --limit 5", "the last five about one task"),
        (
            "logd query --since 2026-03-01 --until 2026-04-01 --format csv",
            "a month, for a spreadsheet",
        ),
    ],
    exits=EXITS_OF_READING,
)
@config_option
@selection_options
@click.option("--limit", type=Count(min=1), help="At most so many, the newest.")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(render.FORMATS)),
    default="table",
    show_default=True,
    help="For people: table; for programs: jsonl (a JSON object a line) or csv.",
)
def query(config: Config, selection: Selection, limit: int | None, form: str) -> None:
    """Print events, oldest first.

    To look something up, or for a script. Different options narrow it down together; without any it
    prints the whole trail. Times are those of the clients' clocks, the order is that of storing. A
    time that does not fit that of storing has a "!" behind it, and the other one is shown too.
    For a file of many events `logd export` is made; reading this way is not itself an event.
    """
    connection = opening.open_for_events(config)
    try:
        rows: Iterable[Row]
        if limit:
            top = newest_id(connection)
            rows = newest(connection, selection, limit, up_to_id=top, rows_max=PAGE_ROWS_MAX)
        else:
            found = pages(connection, selection, rows_max=PAGE_ROWS_MAX)
            rows = (row for _, page in found for row in page)
        for line in render.lines(form, sys.stdout)(rows):
            put(line)
    finally:
        connection.close()


@click.command(
    cls=Command,
    examples=[
        ("logd tail --follow --type login_failed", "watch failing logins"),
        ("logd tail -n 0 -f --json | your-program", "hand on what arrives from now on"),
    ],
    exits=EXITS_OF_READING,
)
@config_option
@selection_options
@click.option(
    "-n",
    "--lines",
    type=Count(),
    default=10,
    show_default=True,
    help="How many to begin with.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what arrives, until Ctrl-C.")
@format_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
def tail(
    config: Config, selection: Selection, lines: int, follow: bool, form: str, as_json: bool
) -> None:
    """Print the newest events, one a line; with --follow also those to come.

    To see whether events arrive, and which. Following goes on when the daemon restarts, when an
    update changes the schema, and when a restored backup or a trail with a new key takes the
    database's place; what it waits for it says on stderr. Ctrl-C ends it, with exit code 0.
    """
    show = render.to_json if as_json or form == "jsonl" else render.line
    try:
        for row in following.events(config, selection, lines, follow, say):
            put(show(row))
    except KeyboardInterrupt:
        click.echo(err=True)


@click.command(
    cls=Command,
    examples=[
        ("logd losses", "all of it"),
        ("logd losses --format jsonl | jq .cause", "the causes, for a script"),
    ],
    exits=EXITS_OF_READING,
)
@config_option
@format_option
def losses(config: Config, form: str) -> None:
    """Print the loss ledger, newest first: when, whose, from which sequence to which, and why.

    When `logd status` says that something is lost: every event that the numbers show to be missing
    is in a row here. "?" is an end that nobody knows, as after a power cut.
    """
    connection = opening.open_for_reading(config)
    entries, before = 0, None
    try:
        while True:
            page = loss_page(connection, before, PAGE_ROWS_MAX)
            for row in page.rows:
                put(status_text.loss_line(row) if form == "table" else render.to_json(row))
            entries, before = entries + len(page.rows), page.next
            if before is None:
                break
    finally:
        connection.close()
    if not entries and form == "table":
        put("0 entries: no event is known to be lost")


@click.command(
    cls=Command,
    examples=[
        ("logd quarantine --summary", "what comes from whom, and how often"),
        ("logd quarantine --limit 1 --format jsonl", "the last one, with all of its excerpt"),
    ],
    exits=EXITS_OF_READING,
)
@config_option
@click.option("--limit", type=Count(min=1), help="At most so many, the newest.")
@format_option
@click.option("--summary", is_flag=True, help="By reason and user: how many, and the last.")
def quarantine(config: Config, limit: int | None, form: str, summary: bool) -> None:
    """Print what was refused, newest first: when, from whom, why, and how it begins.

    When `logd status` counts something as quarantined: garbage, forgeries, events that break the
    schema, other versions. User and pid are the kernel's word. An excerpt is the first bytes of
    what came, and may hold data of persons. The oldest rows give way at quarantine_rows_max; the
    count of all stays.
    """
    connection = opening.open_for_reading(config)
    try:
        rows: Iterable[Row]
        if summary:
            rows, head, line = (
                refusals.summary(connection, limit),
                refusals.SUMMARY_HEAD,
                refusals.summary_line,
            )
        else:
            rows, head, line = refusals.rows(connection, limit), refusals.HEAD, refusals.line
        if form == "table":
            put(head)
        for row in rows:
            put(line(row) if form == "table" else render.to_json(row))
        if form == "table":
            ever, kept = refusals.totals(connection)
            put(f"{ever:,} refused, of them kept: {kept:,}")
    finally:
        connection.close()
