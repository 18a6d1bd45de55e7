"""`logd person`: prints everything stored about one person."""

from __future__ import annotations

import time
from contextlib import closing
from typing import BinaryIO

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import (
    JOB_EXITS,
    config_option,
    format_option,
)
from logd.commands._output import print_line, progress_bar
from logd.commands._person import chosen_person, person_options
from logd.config.settings import Config
from logd.maintenance.command_reading import record_command
from logd.reports import person as persons
from logd.reports.selection import newest_id
from logd.status.collect import collect_status
from logd.storage import opening
from logd.storage.mentions import PersonKeys


@click.command(
    cls=Command,
    ends_with_reader=True,
    examples=[
        ("logd person 17", "read it"),
        ("logd person 17 --format jsonl > person-17.jsonl", "a file to hand over"),
    ],
    exits=JOB_EXITS,
)
@config_option
@person_options
@format_option
def person(
    config: Config,
    user: str | None,
    escaped: bool,
    user_file: BinaryIO | None,
    app: str | None,
    form: str,
) -> None:
    """Print everything that is stored about one person.

    Use it to answer an access request. USER is the id under which the site logs the person, in
    whatever spelling: 4711.0 is 4711, and of Unicode text all normalisations (NFC, NFD) are one. It
    prints the person's events, events of other users that name the person (under one of the keys in
    person_keys of logd.toml: "user", "student", "actor" and others; also readings of
    reports), readings that may be about the person (of totals of all users, or of quarantine), the
    roll-ups of the person's events, and notes on other places: copies of the trail, the site's own
    database. Other persons appear as "(another)", so that the output can be handed over as it is.

    Where several applications log here, the same id may be another person in each: --app limits the
    answer to what one of them has sent.

    Quarantined data cannot be attributed to a person. The command scans every event, which takes a
    few seconds per million. It is recorded in the trail before it prints anything, as an event
    `report_read`, so that the person can see it; if that is not possible, it prints nothing.
    """
    chosen = chosen_person(config, user, escaped, user_file, app)
    opening.open_for_events(config).close()  # where there is nothing to read, nothing is recorded
    record_command(config, "person", {"user": chosen.user}, everyone=False)
    pending = collect_status(config)["pending"]
    keys = PersonKeys(config.person_keys)
    with (
        closing(opening.open_for_events(config)) as connection,
        progress_bar("searching", newest_id(connection)) as advance,
    ):
        items = persons.person_items(connection, chosen, keys, time.time_ns(), pending, advance)
        for line in persons.text_lines(items) if form == "table" else render.json_lines(items):
            print_line(line)
