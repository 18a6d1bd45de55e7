"""`logd person`: what is held about one person."""

from __future__ import annotations

import sys
import time

import click

from logd import instance, render
from logd import person as persons
from logd.commands.options import Text, config_option, put
from logd.config import Config
from logd.selection import newest_id


@click.command()
@config_option
@click.argument("user", type=Text())
@click.option(
    "--format", "form", type=click.Choice(["table", "jsonl"]), default="table", show_default=True
)
def person(config: Config, user: str, form: str) -> None:
    """Print everything that the trail holds about one person."""
    pending = instance.status(config)["pending"]
    connection = instance.open_for_events(config)
    try:
        with click.progressbar(
            length=newest_id(connection),
            label="looking",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
        ) as bar:
            items = persons.about(connection, user, time.time_ns(), pending, bar.update)
            for line in persons.text(items) if form == "table" else render.jsonl(items):
                put(line)
    finally:
        connection.close()
