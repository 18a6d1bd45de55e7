"""`logd rekey`: encrypts the database with a new key."""

from __future__ import annotations

import time
from pathlib import Path

import click

from logd.commands._command import Command
from logd.commands._options import COPY_EXITS, FilePath, config_option
from logd.commands._output import progress_bar
from logd.config.settings import Config
from logd.maintenance import database_swap
from logd.maintenance import rekey as rekeying
from logd.maintenance.database_copy import stoppable


@click.command(
    cls=Command,
    examples=[
        ("logd rekey", "while the daemon runs: print how long the stop will be"),
        ("systemctl stop logd", "events wait in their outboxes"),
        ("logd rekey", "change the key"),
        ("systemctl start logd", "stores the events that waited"),
    ],
    exits=COPY_EXITS,
)
@config_option
@click.option(
    "--new-key-file",
    type=FilePath(),
    metavar="FILE",
    help="Read the new key from FILE (64 hexadecimal digits, mode 0600) instead of generating one.",
)
def rekey(config: Config, new_key_file: Path | None) -> None:
    """Encrypt the database with a new key, while the daemon is stopped.

    While the daemon runs, it only prints how long the stop will be. During the stop events wait in
    their outboxes; none is lost. The new key is written to the key file. A service gets its key
    from there by LoadCredential=, so run this command as root.

    The old database is removed only after the new one is verified. The old key is kept beside the
    new one as logd.key.old-TIME, because existing backups need it (logd restore --key-file). Remove
    it with the last of these backups, or at once together with them if others may know the key.

    If the command is killed, the next start of logd repairs the state; or run it again.
    """
    size = rekeying.announced_stop(config)
    with database_swap.hold_instance(config, f" {size}"), stoppable() as stop:
        click.echo(size, err=True)
        done = rekeying.rekey(config, new_key_file, time.time_ns(), stop, progress_bar)
    head = done.made.head
    click.echo(f"{config.database} has a new key: verified, in {done.seconds:.1f} s")
    click.echo(f"events: {head.events:,} in {head.batch:,} batches")
    click.echo(f"head: {head.hash.hex()}")
    click.echo(f"keep a copy of {config.key_file} in another place; then start logd")
    if done.old_key is not None:
        click.echo(
            f"existing backups need {done.old_key} (logd restore --key-file); remove it with the"
            " last of them"
        )
