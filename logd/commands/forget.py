"""`logd forget`: erases one person from the trail."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import (
    JOB_EXITS,
    Text,
    config_option,
    escaped_option,
    json_option,
    person_id,
    spelling_note,
)
from logd.commands._output import fail, job_progress, print_note
from logd.config.settings import Config
from logd.errors import EXIT_USAGE
from logd.maintenance import forget as forgetting
from logd.maintenance import job_client
from logd.maintenance.backup import list_beside_backups
from logd.reports.person import other_spellings
from logd.storage import copy_registry, job_table, opening, trail_clock
from logd.storage.boundaries import still_to_come
from logd.storage.copy_registry import Copy

# What no command of logd can erase; printed each time.
NOT_REACHED = (
    "outboxes in memory: a running process keeps its last events until it overwrites them",
    "copies that were not made by `logd backup` or `logd export`",
    "events that a program without an outbox keeps and sends later: their claimed time decides",
    "the site's own database",
)


@click.command(
    cls=Command,
    examples=[
        ("logd forget 7 --dry-run", "print what would be erased"),
        ("logd forget 7", "ask, then erase"),
    ],
    exits=(*JOB_EXITS, EXIT_USAGE),
)
@config_option
@click.argument("user", type=Text())
@escaped_option
@click.option("--dry-run", is_flag=True, help="Print what would be erased; erase nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def forget(
    config: Config, user: str, escaped: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Erase a person: all events of USER, and each mention of USER in other events.

    It erases the person's events and their roll-ups; the id in events of others, under the keys
    user, users, user_id and login, where "(erased)" replaces it; and all excerpts in quarantine,
    because their users are unknown. An event that was made before this moment and arrives later
    is erased on arrival, by its sequence, whatever time it claims; one that is made afterwards is
    stored. The chain still verifies, and events `person_erased` record that a person was erased,
    but not who.

    The person is also erased from a backup when it is restored: a list of tokens, kept in the
    database and in a file `forgotten` beside it and beside each backup, identifies the person
    without holding the id.

    The claimed time decides only where no sequence can: for a program without an outbox that is new
    to logd, or that sent while no daemon ran; for an outbox that cannot be read now or is moved
    here later; and after a restore.

    In the end the database file is rewritten, so that no page keeps any remains. This takes about
    6 s per million events and disk space for two more copies of the database; meanwhile events wait
    in their outboxes. If the command is killed, the daemon continues at its next start.

    Finally it prints what it cannot reach: backups and exports with their expiry, and more.
    """
    person = person_id(user, escaped=escaped)
    with closing(opening.open_for_events(config)) as connection:
        expected = forgetting.preview(connection, person) if dry_run or not yes else {}
        copies = copy_registry.list_unexpired(connection, trail_clock.read())
        others = other_spellings(connection, person)
    outcome, coming = expected, None
    if not dry_run:
        if not yes:
            _confirm(person, expected)
        with job_progress("erasing") as show:
            job = job_client.run_job(config, job_table.FORGET, {"users": [person]}, show)
        outcome = {name: job.outcome.get(name, 0) for name in ("events", "redacted", "quarantine")}
        with closing(opening.open_for_events(config)) as connection:
            for place, problem in list_beside_backups(connection):
                print_note(
                    f"the list of erased persons beside {place} is updated only by the next backup"
                    f" there: {problem}"
                )
            coming = still_to_come(connection)
    if as_json:
        shown = {
            "dry_run": dry_run,
            **outcome,
            "other_spellings": dict(others),
            "still_to_come": coming,
            "copies": [asdict(copy) for copy in copies],
            "not_reached": NOT_REACHED,
        }
        click.echo(json.dumps(shown))
        return
    click.echo(
        f"{'would erase' if dry_run else 'erased'}: {outcome['events']:,} events,"
        f" {outcome['redacted']:,} mentions in events of others,"
        f" {outcome['quarantine']:,} excerpts in quarantine"
    )
    spellings = [spelling_note(*other, "forget") for other in others]
    for line in (*spellings, *_still_to_come(coming), *_not_reached(copies)):
        click.echo(line)


def _confirm(person: str, expected: dict[str, int]) -> None:
    if not sys.stdin.isatty():
        fail("cannot ask for confirmation without a terminal: use --yes", EXIT_USAGE)
    click.confirm(
        f"Permanently erase {render.printable(person)!r}: {expected['events']:,} events,"
        f" {expected['redacted']:,} mentions?",
        abort=True,
        err=True,
    )


def _still_to_come(coming: dict[str, int] | None) -> Iterator[str]:
    if coming is None:
        return
    if coming["events"]:
        yield (
            f"still to come: up to {coming['events']:,} events of all persons wait in"
            f" {coming['producers']:,} outboxes; this person's are erased as they arrive"
        )
    if coming["unreadable"]:
        yield (
            f"still to come: events in {coming['unreadable']:,} outboxes that cannot be read now;"
            " they are erased by the time that they claim"
        )
    if not any(coming.values()):
        yield "still to come: nothing that was made before waits in an outbox"


def _not_reached(copies: Sequence[Copy]) -> Iterator[str]:
    yield "not reached:"
    if not copies:
        yield "  the trail lists no backup or export that has not expired"
    for copy in copies:
        expiry = copy.expires_ns
        until = "never expires" if expiry is None else f"expires {render.format_time(expiry)}"
        place = render.printable(copy.place)
        yield f"  {copy.kind} {place}, made {render.format_time(copy.made_ns)}, {until}"
    for what in NOT_REACHED:
        yield f"  {what}"
