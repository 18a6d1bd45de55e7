"""`logd restore`: replaces the database by a backup."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import COPY_EXITS, FilePath, config_option
from logd.commands._output import progress_bar
from logd.config.settings import Config
from logd.maintenance import database_swap
from logd.maintenance import restore as restoring
from logd.maintenance.database_copy import stoppable
from logd.storage.tree_head import Head


@click.command(
    cls=Command,
    examples=[
        ("systemctl stop logd", "events wait in their outboxes"),
        ("logd restore /var/backups/logd/activity-20260301T020000Z.db", "asks before it replaces"),
        ("systemctl start logd", "stores the events that waited"),
    ],
    exits=COPY_EXITS,
)
@config_option
@click.argument("backup", type=FilePath())
@click.option(
    "--key-file",
    type=FilePath(),
    metavar="FILE",
    help="The key of the backup, if the key has been changed since.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def restore(config: Config, backup: Path, key_file: Path | None, yes: bool) -> None:
    """Replace the database by BACKUP, while the daemon is stopped.

    The backup is verified first, and the restored database again before it replaces anything. A
    backup with an older schema is migrated, one with an older key (--key-file) is encrypted with
    the present key, and persons who were forgotten since are erased from it, at the latest at the
    next start. The replaced database is kept beside it as activity.db.before-TIME. The restore is
    recorded in the trail, so that `logd verify --anchor` can tell it from a forged database.

    If the command is killed, either the old or the new database is in place, complete; run it
    again.
    """
    with database_swap.hold_instance(config) as lock:
        with stoppable() as stop:
            plan = restoring.plan(config, backup, key_file, stop, progress_bar)
        click.echo(f"the backup is complete: {_extent(plan.found.head, plan.found.stored_ns)}")
        click.echo(_replaced(config, plan))
        if not yes and not _confirmed():
            raise click.Abort
        with stoppable() as stop:
            done = restoring.restore(config, plan, time.time_ns(), stop, progress_bar)
        lock.mark_database_made()
    click.echo(f"restored {config.database}: verified, in {done.seconds:.1f} s")
    click.echo(f"head: {done.made.head.hash.hex()}")
    if done.kept is not None:
        click.echo(f"the replaced database is {done.kept}: remove it once you are sure")
    click.echo(
        "now start logd. It stores again what the outboxes still hold. What they no longer hold is"
        ' entered in the loss ledger (logd losses) as "restored", or as "claimed" if only an outbox'
        " reports that it was stored."
    )


def _extent(head: Head, stored_ns: int | None) -> str:
    """Returns the number of events and batches, and when the last one was stored, as text."""
    stored = f", the last stored {render.format_time(stored_ns)}" if stored_ns is not None else ""
    return f"{head.events:,} events in {head.batch:,} batches{stored}"


def _replaced(config: Config, plan: restoring.Plan) -> str:
    replaced = plan.replaced
    if not replaced.there:
        return f"{config.database}: does not exist yet, so nothing is replaced"
    if replaced.head is None:
        return f"{config.database}: cannot be read with this key; it is replaced, and kept as it is"
    more = replaced.head.events - plan.found.head.events
    return f"it replaces {_extent(replaced.head, None)}: {max(0, more):,} more than the backup"


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("cannot ask for confirmation without a terminal: use --yes.")
    return click.confirm("Replace the database?")
