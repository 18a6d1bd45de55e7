"""`logd backup`, `restore`, `rekey`: the trail as a whole, somewhere else, or anew."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import Count, bar, config_option, fail
from logd.config.settings import KEEP_DAYS_MAX, Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_INPUT_OUTPUT,
    EXIT_KEY,
    EXIT_NOT_WHOLE,
    EXIT_OK,
    EXIT_TEMPORARY,
)
from logd.maintenance import backup as backups
from logd.maintenance import database_swap
from logd.maintenance import rekey as rekeying
from logd.maintenance import restore as restoring
from logd.maintenance.backup import Keep
from logd.maintenance.database_copy import stoppable
from logd.storage import trail_clock
from logd.storage.hash_chain import Head

_EXITS = [
    *(EXIT_OK, EXIT_NOT_WHOLE, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_INPUT_OUTPUT),
    *(EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG),
]


@click.command(
    cls=Command,
    examples=[
        ("logd backup", "into backup_directory, beside the running daemon"),
        ("logd backup /mnt/elsewhere --keep 8 --json", "somewhere else, the newest eight"),
    ],
    exits=_EXITS,
)
@config_option
@click.argument("destination", type=click.Path(path_type=Path), required=False)
@click.option(
    "--keep", type=Count(min=1), metavar="N", help="Keep the newest N, remove older ones."
)
@click.option(
    "--keep-days",
    type=Count(min=1, max=KEEP_DAYS_MAX),
    metavar="D",
    help="Remove those of more than D days ago; backup_keep_days in logd.toml by default.",
)
@click.option("--yes", is_flag=True, help="The clock is right: believe it, also later.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def backup(
    config: Config,
    destination: Path | None,
    keep: int | None,
    keep_days: int | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Copy the database while the daemon runs, verify the copy, and name it when it is on the disk.

    The copy is encrypted with the same key: keep the key elsewhere, or the copy is worth nothing.
    It holds every event that was on the disk when the command began. DESTINATION is a directory or
    a new file; without it the directory is backup_directory of logd.toml, and the name the time.

    Older backups in that directory are removed once the new one is verified: only files named as
    this command names them, and never the new one. In a directory that you name, only with --keep
    or --keep-days. By days the newest two stay however old they are (backup_keep_min in logd.toml),
    and none is removed if the clock cannot be believed: if it is far from what the trail has seen.
    Then the backup is made, and the exit code is 75. Set the clock, or say --yes.

    What ends with another code than 0 has left nothing behind, but for that. A good backup of which
    the trail could not be told ends with 0, and says so.
    """
    if keep is not None and keep_days is not None:
        raise click.UsageError("--keep or --keep-days: one of the two.")
    asked = Keep(keep, keep_days, config.backup_keep_min) if keep or keep_days else None
    if asked and destination is not None and not destination.is_dir():
        raise click.UsageError(f"{destination} is no directory to keep some backups in.")
    now = trail_clock.read()
    with stoppable() as stop:
        made = backups.backup(config, destination, asked, now, stop, bar, yes=yes)
    restore = f"logd restore --config {config.path} {made.path}"
    if as_json:
        shown = {
            "backup": str(made.path),
            "batch": made.head.batch,
            "events": made.head.events,
            "head": made.head.hash.hex(),
            "bytes": made.bytes,
            "seconds": round(made.seconds, 3),
            "made_ns": made.made_ns,
            "expires_ns": made.expires_ns,
            "removed": list(made.removed),
            "kept_all": made.kept_all,
            "unrecorded": made.unrecorded,
            "restore": restore,
        }
        click.echo(json.dumps(shown))
    else:
        _say_made(made, restore)
    if made.kept_all is not None:
        fail(f"{made.path.name} is a good backup, but {made.kept_all}", EXIT_TEMPORARY)


def _say_made(made: backups.Backup, restore: str) -> None:
    click.echo(f"made {made.path}: verified, {made.bytes:,} bytes, in {made.seconds:.1f} s")
    click.echo(f"events: {made.head.events:,} in {made.head.batch:,} batches")
    click.echo(f"chain head: {made.head.hash.hex()}")
    if made.expires_ns is not None:
        click.echo(f"to be removed by a backup after {render.when(made.expires_ns)}")
    for name in made.removed:
        click.echo(f"removed {name}: its time was over")
    if made.unrecorded is not None:
        click.echo(f"the backup is good, but the trail was not told of it: {made.unrecorded}")
    click.echo(f"restore it: {restore}")


@click.command(
    cls=Command,
    examples=[
        ("systemctl stop logd", "events wait in their outboxes"),
        ("logd restore /var/backups/logd/activity-20260301T020000Z.db", "says what, and asks"),
        ("systemctl start logd", "what waited is stored"),
    ],
    exits=_EXITS,
)
@config_option
@click.argument("backup", type=click.Path(path_type=Path))
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The key that the backup was made with, if it has been changed since.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(config: Config, backup: Path, key_file: Path | None, yes: bool) -> None:
    """Put BACKUP in the place of the database, with the daemon stopped.

    The backup is verified first, and what is made of it again, before anything is replaced. An
    older schema is brought up to date, an older key (--key-file) changed to the present one, and
    who was forgotten since is forgotten in it too, at the latest at the next start. The database
    that it replaces stays beside it as activity.db.before-TIME. The trail says that it was
    restored, so that `logd verify --anchor` can tell it from a replaced database.

    Killed at whatever moment, it leaves the old database or the new one, whole; run it again.
    """
    with database_swap.hold_instance(config) as lock:
        with stoppable() as stop:
            plan = restoring.plan(config, backup, key_file, stop, bar)
        click.echo(f"the backup is whole: {_what(plan.found.head, plan.found.stored_ns)}")
        click.echo(_replaced(config, plan))
        if not yes and not _agreed():
            fail("nothing was changed", EXIT_NOT_WHOLE)
        with stoppable() as stop:
            done = restoring.restore(config, plan, time.time_ns(), stop, bar)
        lock.mark_database_made()
    click.echo(f"restored {config.database}: verified, in {done.seconds:.1f} s")
    click.echo(f"chain head: {done.made.head.hash.hex()}")
    if done.kept is not None:
        click.echo(f"what it replaced is {done.kept}: remove it once you are sure")
    click.echo(
        "next, start logd. What outboxes still hold is stored again; what is nowhere any more is in"
        ' the loss ledger (logd losses) as "restored", and as "claimed" where nothing but an outbox'
        " says that it was stored."
    )


def _what(head: Head, stored_ns: int | None) -> str:
    stored = f", the last stored {render.when(stored_ns)}" if stored_ns is not None else ""
    return f"{head.events:,} events in {head.batch:,} batches{stored}"


def _replaced(config: Config, plan: restoring.Plan) -> str:
    replaced = plan.replaced
    if not replaced.there:
        return f"{config.database}: there is none yet, so nothing is replaced"
    if replaced.head is None:
        return f"{config.database}: cannot be read with this key; it is replaced, and kept as it is"
    more = replaced.head.events - plan.found.head.events
    return f"it replaces {_what(replaced.head, None)}: {max(0, more):,} events more"


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked: say --yes.")
    return click.confirm("Replace the database?")


@click.command(
    cls=Command,
    examples=[
        ("logd rekey", "with the daemon running: how long the stop will be"),
        ("systemctl stop logd", "events wait in their outboxes"),
        ("logd rekey", "the new key"),
        ("systemctl start logd", "what waited is stored"),
    ],
    exits=_EXITS,
)
@config_option
@click.option(
    "--new-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the new key from here (64 hexadecimal digits, mode 0600) instead of making one.",
)
def rekey(config: Config, new_key_file: Path | None) -> None:
    """Encrypt the database with a new key, in a short stop of the daemon.

    With the daemon running it says how long the stop will be, and changes nothing. Events wait in
    their outboxes meanwhile, and none is lost. The key changes in the key file; as a service, logd
    gets it by LoadCredential= from there, so run this as root.

    The old database is gone only once the new one verifies. The old key stays beside the new one
    as logd.key.old-TIME, because backups made so far need it (logd restore --key-file): remove it
    when the last of them is gone, or at once, with them, if others may have the key.

    Killed at whatever moment, the next start of logd, or this command again, sets it right.
    """
    size = rekeying.announced_stop(config)
    with database_swap.hold_instance(config, f" {size}"), stoppable() as stop:
        click.echo(size, err=True)
        done = rekeying.rekey(config, new_key_file, time.time_ns(), stop, bar)
    click.echo(f"{config.database} has a new key: verified, in {done.seconds:.1f} s")
    click.echo(f"events: {_what(done.made.head, None)}")
    click.echo(f"chain head: {done.made.head.hash.hex()}")
    click.echo(f"keep a copy of {config.key_file} elsewhere; then start logd")
    if done.old_key is not None:
        click.echo(
            f"backups made so far need {done.old_key} (logd restore --key-file); remove it when the"
            " last of them is gone"
        )
