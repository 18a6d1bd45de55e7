"""`logd backup`: makes a verified copy of the database."""

from __future__ import annotations

import json
from pathlib import Path

import click

from logd import render
from logd.commands._command import Command
from logd.commands._options import COPY_EXITS, Count, FilePath, config_option, json_option
from logd.commands._output import fail, print_note, progress_bar, warn_in_journal
from logd.config.settings import Config
from logd.config.table import KEEP_DAYS_MAX
from logd.errors import EXIT_TEMPORARY
from logd.maintenance import backup as backups
from logd.maintenance.backup import Keep
from logd.maintenance.database_copy import stoppable
from logd.storage import last_runs, trail_clock


@click.command(
    cls=Command,
    examples=[
        ("logd backup", "into backup_directory, while the daemon runs"),
        ("logd backup /mnt/elsewhere --keep 8 --json", "into another place; keep the newest eight"),
    ],
    exits=COPY_EXITS,
)
@config_option
@click.argument("destination", type=FilePath(), required=False)
@click.option(
    "--keep", type=Count(min=1), metavar="N", help="Keep the newest N backups and remove the rest."
)
@click.option(
    "--keep-days",
    type=Count(min=1, max=KEEP_DAYS_MAX),
    metavar="D",
    help="Remove backups older than D days; the default is backup_keep_days in logd.toml.",
)
@click.option("--yes", is_flag=True, help="Trust the clock, now and from now on.")
@json_option
def backup(
    config: Config,
    destination: Path | None,
    keep: int | None,
    keep_days: int | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Copy the database, verify the copy, and print its name once it is on disk.

    It works while the daemon runs. The copy holds every event that was on disk when the command
    started, encrypted with the same key: keep a copy of the key in another place, or the backup is
    useless. DESTINATION is a directory or a new file. By default the directory is backup_directory
    of logd.toml and the file is named by the time.

    Once the new backup is verified, older ones in backup_directory are removed, or those in a
    directory that you name if --keep or --keep-days is given. Only files with names that this
    command makes are removed, and never the new one. With --keep-days, the newest two stay however
    old they are (backup_keep_min in logd.toml). If the clock is far from the times stored in the
    trail, the backup is made, none is removed, and the exit code is 75: set the clock, or use
    --yes.

    With any other exit code than 0 and 75 no file is left behind. If only the note in the trail
    fails, the command prints that and exits with 0.
    """
    if keep is not None and keep_days is not None:
        raise click.UsageError("use either --keep or --keep-days, not both.")
    asked = Keep(keep, keep_days, config.backup_keep_min) if keep or keep_days else None
    if asked and destination is not None and not destination.is_dir():
        raise click.UsageError(
            f"{destination} is not a directory, which --keep and --keep-days need."
        )
    now = trail_clock.read()
    with last_runs.recorded(config, last_runs.BACKUP), stoppable() as stop:
        made = backups.backup(config, destination, asked, now, stop, progress_bar, yes=yes)
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
            "not_removed": list(made.not_removed),
            "kept_all": made.kept_all,
            "unrecorded": made.unrecorded,
            "restore": restore,
        }
        click.echo(json.dumps(shown))
    else:
        _print_backup(made, restore)
    if made.unrecorded is not None:
        warn_in_journal(f"the backup is good, but not noted in the trail: {made.unrecorded}")
    for name, why in made.not_removed.items():
        print_note(f"{name}: expired, but it cannot be removed: {why}")
    if made.kept_all is not None:
        fail(f"{made.path.name} is a good backup, but {made.kept_all}", EXIT_TEMPORARY)


def _print_backup(made: backups.Backup, restore: str) -> None:
    click.echo(f"made {made.path}: verified, {made.bytes:,} bytes, in {made.seconds:.1f} s")
    click.echo(f"events: {made.head.events:,} in {made.head.batch:,} batches")
    click.echo(f"head: {made.head.hash.hex()}")
    if made.expires_ns is not None:
        click.echo(
            f"expires: the first backup after {render.format_time(made.expires_ns)} removes it"
        )
    for name in made.removed:
        click.echo(f"removed {name}: expired")
    if made.unrecorded is not None:
        click.echo(f"the backup is good, but it is not noted in the trail: {made.unrecorded}")
    click.echo(f"restore it with: {restore}")
