"""`logd query`, `tail`, `losses`: what is stored, as people and programs read it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from logd import instance, render
from logd import status as status_text
from logd.commands.choosing import selection_options
from logd.commands.options import config_option, put
from logd.config import Config
from logd.database import Connection
from logd.reports import PAGE_ROWS_MAX, event_page, loss_page
from logd.selection import Selection, newest, newest_id, pages
from shared.query import Row

TAIL_INTERVAL_S = 0.25


@click.command()
@config_option
@selection_options
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest.")
@click.option("--format", "form", type=click.Choice(list(render.FORMATS)), default="table")
def query(config: Config, selection: Selection, limit: int | None, form: str) -> None:
    """Print events, oldest first."""
    connection = instance.open_for_events(config)
    try:
        rows: Iterable[Row]
        if limit:
            top = newest_id(connection)
            rows = newest(connection, selection, limit, up_to_id=top, rows_max=PAGE_ROWS_MAX)
        else:
            found = pages(connection, selection, rows_max=PAGE_ROWS_MAX)
            rows = (row for _, page in found for row in page)
        for line in render.FORMATS[form](rows):
            put(line)
    finally:
        connection.close()


def _all(connection: Connection, after_id: int = 0, **asked: Any) -> Iterator[Row]:
    """Every event asked for, a page at a time: no transaction is held while it is printed."""
    while True:
        page = event_page(connection, after_id=after_id, limit=PAGE_ROWS_MAX, **asked)
        yield from page.rows
        if page.next is None:
            return
        after_id = page.next


def _newest(connection: Connection, limit: int, **asked: Any) -> Iterator[Row]:
    rows: list[Row] = []
    before: int | None = None
    while len(rows) < limit:
        size = min(PAGE_ROWS_MAX, limit - len(rows))
        page = event_page(connection, before_id=before, limit=size, **asked)
        rows += page.rows
        before = page.next
        if before is None:
            break
    return reversed(rows)


@click.command()
@config_option
@click.option("-n", "--lines", default=10, show_default=True, help="How many to begin with.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what arrives, until Ctrl-C.")
@click.option("--type", "event_type", metavar="T", help="Only events of this type.")
@click.option("--user", metavar="U", help="Only events of this user.")
def tail(
    config: Config, lines: int, follow: bool, event_type: str | None, user: str | None
) -> None:
    """Print the newest events, one a line; with --follow also those to come."""
    connection = instance.open_for_events(config)
    asked: dict[str, Any] = {"event_type": event_type, "user": user}
    last = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
    try:
        for row in _newest(connection, lines, **asked) if lines > 0 else ():
            put(render.line(row))
            last = max(last, row["id"])
        while follow:
            time.sleep(TAIL_INTERVAL_S)
            for row in _all(connection, after_id=last, **asked):
                put(render.line(row))
                last = row["id"]
    except KeyboardInterrupt:
        click.echo()
    finally:
        connection.close()


@click.command()
@config_option
@click.option("--format", "form", type=click.Choice(["table", "jsonl"]), default="table")
def losses(config: Config, form: str) -> None:
    """Print the loss ledger, newest first: when, whose, from which sequence to which, and why."""
    connection = instance.open_for_reading(config)
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
