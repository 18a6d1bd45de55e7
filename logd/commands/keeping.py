"""`logd prune`, `logd forget`: what is kept, and what not any longer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from logd import render
from logd.clock import readings
from logd.clock.readings import Reading
from logd.commands._command import Command
from logd.commands._options import (
    Text,
    config_option,
    escaped_option,
    fail,
    person_id,
    say,
    spelling_note,
)
from logd.config import retention
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_INPUT_OUTPUT,
    EXIT_KEY,
    EXIT_OK,
    EXIT_TEMPORARY,
    EXIT_USAGE,
    LogdError,
)
from logd.maintenance import forget as forgetting
from logd.maintenance import job_client
from logd.maintenance import prune as pruning
from logd.maintenance.backup import list_forgotten
from logd.reports.person import other_spellings
from logd.storage import copy_registry, job_table, opening, trail_clock
from logd.storage.boundaries import still_to_come
from logd.storage.copy_registry import Copy
from logd.storage.job_table import Job

_PROGRESS_STEPS = 1000

_EXITS = [
    *(EXIT_OK, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_INPUT_OUTPUT, EXIT_TEMPORARY),
    *(EXIT_KEY, EXIT_CONFIG),
]

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")

# What no command of ours can reach, said each time.
NOT_REACHED = (
    "outboxes in memory: running processes keep what they sent last until it is overwritten",
    "copies made by other means than `logd backup` and `logd export`",
    "events that programs without an outbox keep and send later: the time that they claim decides",
    "the site's own database",
)


@click.command(
    cls=Command,
    examples=[
        ("logd prune --dry-run", "what would go"),
        ("logd prune", "remove it"),
    ],
    exits=_EXITS,
)
@config_option
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="The clock is right: believe it, also later.")
@json_option
def prune(config: Config, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove events that are older than their type is kept.

    How long each type is kept stands in logd.toml (retention.page_view = "90d"); a type that is not
    named there is kept for ever. An event ages by its own time; by that of its storing if its own
    is later, or over seven days earlier: so history that was imported is kept from its import on.
    Roll-ups follow, the chain still verifies, and an event `events_pruned` says what went.

    Nothing is removed if the clock cannot be believed (75): if it is behind what the trail has
    seen, or more than a week ahead of it, or is set meanwhile. Set it; or, if it is right and
    nothing ran here for so long, say --yes once.

    With the daemon running it does the work, a few milliseconds at a time between its commits, and
    this command waits for it; without, this command does. Killed in the middle, it goes on at the
    daemon's next start. The file does not shrink: its room is used again. logd-prune.timer runs
    this once a day.
    """
    now = trail_clock.read()
    before = retention.before(config.retention, now.wall_ns)
    if dry_run or not before:
        counts = _count(config, before, now) if before else {}
    else:
        _check_clock(config, now, yes=yes)
        with _progress("pruning") as tell:
            job = job_client.run_job(config, job_table.PRUNE, {"before": before}, tell)
        counts = {name: job.outcome.get(name, 0) for name in before}
    if as_json:
        shown = {"dry_run": dry_run, "removed": sum(counts.values()), "by_type": counts}
        click.echo(json.dumps(shown | {"before_ns": before}))
        return
    for name, number in counts.items():
        kept_from = render.when(before[name])
        click.echo(f"{name:<24} {number:>12,} events from before {kept_from}")
    if not before:
        click.echo(f"{config.path} names no retention: every event is kept for ever")
        return
    click.echo(f"{'would remove' if dry_run else 'removed'} {sum(counts.values()):,} events")


def _check_clock(config: Config, now: Reading, *, yes: bool) -> None:
    connection = opening.open_for_reading(config)
    try:
        trail_clock.check(config, connection, now, "no event was pruned", yes=yes)
    finally:
        connection.close()


def _count(config: Config, before: dict[str, int], now: Reading) -> dict[str, int]:
    connection = opening.open_for_events(config)
    try:
        why = readings.implausible(trail_clock.load(connection), now)
        if why is not None:
            say(f"the count is by a clock that cannot be believed, without --yes: {why}")
        return pruning.count(connection, before, now.wall_ns)
    finally:
        connection.close()


@click.command(
    cls=Command,
    examples=[
        ("logd forget 7 --dry-run", "what would go"),
        ("logd forget 7", "asks, then erases"),
    ],
    exits=[EXIT_OK, EXIT_USAGE, *_EXITS[1:]],
)
@config_option
@click.argument("user", type=Text())
@escaped_option
@click.option("--dry-run", is_flag=True, help="Say what would be erased, and erase nothing.")
@click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")
@json_option
def forget(
    config: Config, user: str, escaped: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Erase a person: every event of USER, and every mention of USER in others' events.

    Goes: events with their roll-ups, the name where others' events have it under the keys user,
    users, user_id or login ("(erased)" takes its place), all excerpts in quarantine (nobody can say
    whose they are). What was made before this moment and arrives later is erased as it comes, by
    its sequence, whatever time it claims; what is made afterwards is stored. So is the person
    erased in a backup that is restored: a list of tokens, in the database and in the file
    `forgotten` beside it and beside each backup, knows the person again without the name. The chain
    still verifies, and events `person_erased` say that it was done, not to whom.

    The claimed time decides only where no sequence can: for a program without an outbox that is
    first heard of later, or that sent while no daemon ran; for an outbox that cannot be read now or
    is moved here from elsewhere; after a restore.

    At the end the database is written anew, so that no page of the file holds anything left over:
    about 6 s for a million events, and room for two more copies of it on the disk. Meanwhile events
    wait in their outboxes. Killed in the middle, it goes on at the daemon's next start.

    What it cannot reach it names at its end: backups and exports with their expiry, and more.
    """
    person = person_id(user, escaped=escaped)
    connection = opening.open_for_events(config)
    try:
        expected = forgetting.preview(connection, person) if dry_run or not yes else {}
        copies = copy_registry.list_unexpired(connection, trail_clock.read())
        others = other_spellings(connection, person)
    finally:
        connection.close()
    outcome, coming = expected, None
    if not dry_run:
        if not yes:
            _ask(person, expected)
        with _progress("erasing") as tell:
            job = job_client.run_job(config, job_table.FORGET, {"users": [person]}, tell)
        outcome = {name: job.outcome.get(name, 0) for name in ("events", "redacted", "quarantine")}
        coming = _list_beside_backups(config)
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


def _list_beside_backups(config: Config) -> dict[str, int]:
    """So that none of them brings the person back, whatever becomes of the database. Returns what
    was made before and is not stored yet.
    """
    connection = opening.open_for_events(config)
    try:
        copies = copy_registry.list_copies(connection)  # a file that is there may be past its time
        places = {Path(copy.place) for copy in copies if copy.kind == copy_registry.BACKUP}
        for place in sorted(place for place in places if place.is_file()):
            try:
                list_forgotten(connection, place)
            except LogdError as problem:
                say(f"not listed beside {place}, but by the next backup there: {problem}")
        return still_to_come(connection)
    finally:
        connection.close()


def _ask(person: str, expected: dict[str, int]) -> None:
    if not sys.stdin.isatty():
        fail("this cannot be undone: say --yes, or run it where it can ask", EXIT_USAGE)
    click.confirm(
        f"Erase {render.printable(person)!r} for good: {expected['events']:,} events,"
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
            f"still to come: what is in {coming['unreadable']:,} outboxes that cannot be read now;"
            " it is erased by the time that it claims"
        )
    if not any(coming.values()):
        yield "still to come: nothing that was made before waits in an outbox"


def _not_reached(copies: Sequence[Copy]) -> Iterator[str]:
    yield "not reached:"
    if not copies:
        yield "  no backup or export is noted in this trail that has not expired"
    for copy in copies:
        expiry = copy.expires_ns
        until = "never expires" if expiry is None else f"expires {render.when(expiry)}"
        place = render.printable(copy.place)
        yield f"  {copy.kind} {place}, made {render.when(copy.made_ns)}, {until}"
    for what in NOT_REACHED:
        yield f"  {what}"


@contextmanager
def _progress(label: str) -> Iterator[job_client.OnProgress]:
    """A bar for people who wait; what the job waits for is said in any case, once."""
    hidden = not sys.stderr.isatty()
    said: set[str] = set()
    with click.progressbar(
        length=_PROGRESS_STEPS, label=label, file=sys.stderr, hidden=hidden
    ) as bar:

        def tell(job: Job) -> None:
            bar.update(max(0, _PROGRESS_STEPS * job.done // max(1, job.total) - bar.pos))
            if job.trouble is not None and job.finished_ns is None and job.trouble not in said:
                said.add(job.trouble)
                click.echo(f"logd: waits: {job.trouble}", err=True)

        yield tell
