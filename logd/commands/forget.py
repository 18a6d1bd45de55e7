"""`logd forget`: erases one person from the trail."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import BinaryIO

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import JOB_EXITS, config_option, json_option, spelling_note
from logd.commands._output import fail, job_progress, print_note
from logd.commands._person import chosen_person, person_options
from logd.config.settings import Config
from logd.errors import EXIT_USAGE
from logd.maintenance import job_client
from logd.maintenance.backup import list_beside_backups
from logd.maintenance.forget import job_params
from logd.maintenance.forget_preview import preview
from logd.storage import copy_registry, job_table, opening, stored_users, trail_clock
from logd.storage.boundaries import still_to_come
from logd.storage.copy_registry import Copy
from logd.storage.mentions import PersonKeys
from logd.storage.senders import Person

# What no command of logd can erase. It is printed after each `logd forget`.
NOT_REACHED = (
    "outboxes in memory: a running process keeps its last events until it overwrites them",
    "copies that were not made by `logd backup` or `logd export`",
    "events that a program without an outbox keeps and sends later: their claimed time decides",
    "the site's own database",
    "ids inside other text (messages, addresses, types of events), or under keys that person_keys"
    " in logd.toml does not name",
    "refused input that arrives later without a sequence: its excerpt stays in quarantine",
)

NOT_REACHED_OF_APP = (
    "what other applications have logged of this id, and what logd itself wrote, except readings of"
    " reports by this application"
)


@click.command(
    cls=Command,
    examples=[
        ("logd forget 7 --dry-run", "print what would be erased"),
        ("logd forget 7", "ask, then erase"),
        ("logd forget 7 --app shop", "of one application alone"),
    ],
    exits=(*JOB_EXITS, EXIT_USAGE),
)
@config_option
@person_options
@click.option("--dry-run", is_flag=True, help="Print what would be erased; erase nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def forget(
    config: Config,
    user: str | None,
    escaped: bool,
    user_file: BinaryIO | None,
    app: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase a person: all events of USER, and each mention of USER in other events.

    It erases the person's events and their roll-ups; the id in events of others, under the keys in
    person_keys of logd.toml ("user", "student", "actor" and others), where "(erased)" replaces it,
    also as the key of a map; and all excerpts in quarantine, because their users are unknown. An id
    is found in whatever spelling: 4711.0 is 4711, and of Unicode text all normalisations (NFC, NFD)
    are one. An event that was made before this moment and arrives later
    is erased on arrival, by its sequence, whatever time it claims; one that is made afterwards is
    stored. The trail still verifies, and events `person_erased` record that a person was erased,
    but not who.

    Where several applications log here, the same id may be another person in each: --app erases
    only what one of them has sent, now and when it arrives later, with the readings of its reports
    and the excerpts of all input that was refused of the users that it runs as. Of input that was
    made before this moment and is refused later, the excerpts of all applications are left out,
    since whose they are is not known. `logd person` shows what would go.

    The person is also erased from a backup when it is restored: a list of tokens, kept in the
    database and in a file `forgotten` beside it and beside each backup, identifies the person
    (and the application) without holding the id.

    The claimed time decides only where no sequence can: for a program without an outbox that is new
    to logd, or that sent while no daemon ran; for an outbox that cannot be read now or is moved
    here later; and after a restore.

    In the end the database file is rewritten, so that no page keeps any remains. This takes about
    8 s per million events and disk space for two more copies of the database; meanwhile events wait
    in their outboxes. If the command is killed, the daemon continues at its next start.

    Finally it prints what it cannot reach: backups and exports with their expiry, and more.
    """
    person = chosen_person(config, user, escaped, user_file, app)
    with closing(opening.open_for_events(config)) as connection:
        keys = PersonKeys(config.person_keys)
        expected = preview(connection, person, keys) if dry_run or not yes else {}
        copies = copy_registry.list_unexpired(connection, trail_clock.read())
        others = stored_users.spellings(connection, person.user)
        others.pop(person.user, None)
    outcome, coming = expected, None
    if not dry_run:
        if not yes:
            _confirm(person, others, expected)
        with job_progress("erasing") as show:
            job = job_client.run_job(
                config, job_table.FORGET, job_params(person, config.person_keys), show
            )
        outcome = {name: job.outcome.get(name, 0) for name in ("events", "redacted", "quarantine")}
        with closing(opening.open_for_events(config)) as connection:
            for place, problem in list_beside_backups(connection):
                print_note(
                    f"the list of erased persons beside {place} is updated only by the next backup"
                    f" there: {problem}"
                )
            coming = still_to_come(connection)
    not_reached = NOT_REACHED if person.uids is None else (*NOT_REACHED, NOT_REACHED_OF_APP)
    if as_json:
        shown = {
            "dry_run": dry_run,
            **outcome,
            "other_spellings": others,
            "senders": person.uids,
            "still_to_come": coming,
            "copies": [asdict(copy) for copy in copies],
            "not_reached": not_reached,
        }
        click.echo(json.dumps(shown))
        return
    click.echo(
        f"{'would erase' if dry_run else 'erased'}: {outcome['events']:,} events,"
        f" {outcome['redacted']:,} mentions in events of others,"
        f" {outcome['quarantine']:,} excerpts in quarantine"
    )
    spellings = [spelling_note(*other) for other in others.items()]
    for line in (*spellings, *_still_to_come(coming), *_not_reached(copies, not_reached)):
        click.echo(line)


def _confirm(person: Person, others: Mapping[str, int], expected: dict[str, int]) -> None:
    if not sys.stdin.isatty():
        fail("cannot ask for confirmation without a terminal: use --yes", EXIT_USAGE)
    for other in others.items():
        print_note(spelling_note(*other))
    click.confirm(
        f"Permanently erase {render.printable(person.user)!r}: {expected['events']:,} events,"
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


def _not_reached(copies: Sequence[Copy], others: Sequence[str]) -> Iterator[str]:
    yield "not reached:"
    if not copies:
        yield "  the trail lists no backup or export that has not expired"
    for copy in copies:
        expiry = copy.expires_ns
        word = "expires" if expiry is None or expiry > time.time_ns() else "expired"
        until = "never expires" if expiry is None else f"{word} {render.format_time(expiry)}"
        place = render.printable(copy.place)
        yield f"  {copy.kind} {place}, made {render.format_time(copy.made_ns)}, {until}"
    for what in others:
        yield f"  {what}"
