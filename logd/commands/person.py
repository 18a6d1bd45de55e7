"""`logd person`: what is held about one person."""

from __future__ import annotations

import sys
import time

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import (
    EXITS_OF_READING,
    Text,
    config_option,
    escaped_option,
    format_option,
    person_id,
    put,
    say,
    spelling_note,
)
from logd.config.settings import Config
from logd.reports import person as persons
from logd.reports.selection import newest_id
from logd.status import collect
from logd.storage import opening


@click.command(
    cls=Command,
    examples=[
        ("logd person 17", "look through it"),
        ("logd person 17 --format jsonl > person-17.jsonl", "a file to hand over"),
    ],
    exits=EXITS_OF_READING,
)
@config_option
@click.argument("user", type=Text())
@escaped_option
@format_option
def person(config: Config, user: str, escaped: bool, form: str) -> None:
    """Print everything that the trail holds about one person.

    For an access request. USER is the id under which the site logs: events carry no names. Printed
    are the person's events, others' events that mention the person (under "user", "users",
    "user_id", "login", "actor" or "switched_to"), the sums kept of them, and what is elsewhere:
    copies of the trail, the site's own database. It can be handed over as it is: whoever else is
    named is "(another)".

    What is in quarantine cannot be attributed to anybody. Every event is looked at, a few seconds
    for a million. Reading this way is not itself an event: who has the key may read.
    """
    user = person_id(user, escaped=escaped)
    pending = collect.status(config)["pending"]
    connection = opening.open_for_events(config)
    try:
        for other, events in persons.other_spellings(connection, user):
            say(spelling_note(other, events, "person"))
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
