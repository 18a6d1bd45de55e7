"""`logd genkey`: creates the key of an installed instance."""

from __future__ import annotations

import click

from logd.commands._command import Command
from logd.commands._options import config_option
from logd.config.settings import Config
from logd.errors import EXIT_CANNOT_CREATE, EXIT_CONFIG, EXIT_OK
from logd.storage import keyfile


@click.command(
    cls=Command,
    examples=[
        ("logd genkey", "create the key file that /etc/logd/logd.toml names"),
        (
            "logd genkey --stdout | systemd-creds encrypt --name=logd.key - logd.key.cred",
            "store the key on disk only in encrypted form",
        ),
    ],
    exits=[EXIT_OK, EXIT_CANNOT_CREATE, EXIT_CONFIG],
)
@config_option
@click.option("--stdout", is_flag=True, help="Print a new key and write no file.")
def genkey(config: Config, stdout: bool) -> None:
    """Create the encryption key of an installed instance, in the file that key_file names.

    Run it once, for logd as a system service: its logd.toml is installed without a key. An instance
    made by `logd init` has a key already. An existing key is never replaced (exit code 73).

    Keep a copy of the key in another place: without the key, the database cannot be read.
    """
    if stdout:
        click.echo(keyfile.new())
        return
    keyfile.create(config.key_file)
    click.echo(f"created {config.key_file}; keep a copy of it in another place")
