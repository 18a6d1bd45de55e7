"""`logd person`: prints everything stored about one person."""

from __future__ import annotations

import time
from contextlib import closing

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import (
    READ_EXITS,
    Text,
    config_option,
    escaped_option,
    format_option,
    person_id,
    spelling_note,
)
from logd.commands._output import print_line, print_note, progress_bar
from logd.config.settings import Config
from logd.reports import person as persons
from logd.reports.selection import newest_id
from logd.status.collect import collect_status
from logd.storage import opening


@click.command(
    cls=Command,
    examples=[
        ("logd person 17", "read it"),
        ("logd person 17 --format jsonl > person-17.jsonl", "a file to hand over"),
    ],
    exits=READ_EXITS,
)
@config_option
@click.argument("user", type=Text())
@escaped_option
@format_option
def person(config: Config, user: str, escaped: bool, form: str) -> None:
    """Print everything that is stored about one person.

    Use it to answer an access request. USER is the id under which the site logs the person. It
    prints the person's events, events of other users that mention the person (under "user",
    "users", "user_id", "login", "actor" or "switched_to"; also readings of reports), readings that
    may be about the person (of totals of all users, or of quarantine), the roll-ups of the person's
    events, and notes on other places: copies of the trail, the site's own database. Other persons
    appear as "(another)", so that the output can be handed over as it is.

    Quarantined data cannot be attributed to a person. The command scans every event, which takes a
    few seconds per million. It is not recorded in the trail.
    """
    user = person_id(user, escaped=escaped)
    pending = collect_status(config)["pending"]
    with closing(opening.open_for_events(config)) as connection:
        for other, events in persons.other_spellings(connection, user):
            print_note(spelling_note(other, events, "person"))
        with progress_bar("searching", newest_id(connection)) as advance:
            items = persons.person_items(connection, user, time.time_ns(), pending, advance)
            for line in persons.text_lines(items) if form == "table" else render.json_lines(items):
                print_line(line)
