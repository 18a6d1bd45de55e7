"""`logd init`: creates an instance."""

from __future__ import annotations

from pathlib import Path

import click

from logd.commands._command import Command
from logd.commands._options import FilePath
from logd.errors import EXIT_CANNOT_CREATE, EXIT_CONFIG, EXIT_OK
from logd.maintenance import new_instance


@click.command(
    cls=Command,
    examples=[("logd init /srv/logd", "an instance with all its files in one directory")],
    exits=[EXIT_OK, EXIT_CANNOT_CREATE, EXIT_CONFIG],
)
@click.argument("directory", type=FilePath())
def init(directory: Path) -> None:
    """Create an instance in DIRECTORY: logd.toml, and new keys.

    Run it once for each instance, before its first `logd run`. An instance is an encrypted
    database, its key, a key that signs the heads of the trail, and two sockets, all in DIRECTORY
    unless logd.toml says otherwise. That file lists every setting with its default. Existing files
    are never overwritten.

    Keep a copy of the database's key in another place: without it, the database cannot be read.
    """
    config = new_instance.init(directory)
    click.echo(f"created {config.path}, {config.key_file} and {config.signing_key_file}")
    click.echo(f"start it with: logd run --config {config.path}")
