"""`logd backup`: the trail as a whole, somewhere else."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from logd import backup as backups
from logd import render
from logd.backup import Keep
from logd.commands.options import bar, config_option
from logd.commands.teaching import Command
from logd.config import Config
from logd.copying import stoppable
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


@click.command(
    cls=Command,
    examples=[
        ("logd backup", "into backup_directory, beside the running daemon"),
        ("logd backup /mnt/elsewhere --keep 8 --json", "somewhere else, the newest eight"),
    ],
    exits=[
        *(EXIT_OK, EXIT_NOT_WHOLE, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_INPUT_OUTPUT),
        *(EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG),
    ],
)
@config_option
@click.argument("destination", type=click.Path(path_type=Path), required=False)
@click.option(
    "--keep", type=click.IntRange(min=1), metavar="N", help="Keep the newest N, remove older ones."
)
@click.option(
    "--keep-days",
    type=click.IntRange(min=1),
    metavar="D",
    help="Remove those of more than D days ago; backup_keep_days in logd.toml by default.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def backup(
    config: Config, destination: Path | None, keep: int | None, keep_days: int | None, as_json: bool
) -> None:
    """Copy the database while the daemon runs, verify the copy, and name it when it is on the disk.

    The copy is encrypted with the same key: keep the key elsewhere, or the copy is worth nothing.
    It holds every event that was on the disk when the command began. DESTINATION is a directory or
    a new file; without it the directory is backup_directory of logd.toml, and the name the time.

    Older backups in that directory are removed once the new one is verified: only files named as
    this command names them, and never the new one. In a directory that you name, only with --keep
    or --keep-days.

    What ends with another code than 0 has left nothing behind. A good backup of which the trail
    could not be told ends with 0, and says so.
    """
    if keep is not None and keep_days is not None:
        raise click.UsageError("--keep or --keep-days: one of the two.")
    asked = Keep(keep, keep_days) if keep or keep_days else None
    if asked and destination is not None and not destination.is_dir():
        raise click.UsageError(f"{destination} is no directory to keep some backups in.")
    with stoppable() as stop:
        made = backups.backup(config, destination, asked, time.time_ns(), stop, bar)
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
            "unrecorded": made.unrecorded,
            "restore": restore,
        }
        click.echo(json.dumps(shown))
        return
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
