"""`logd genkey`: creates the keys of an installed instance."""

from __future__ import annotations

import click

from logd.commands._command import Command
from logd.commands._options import config_option
from logd.config.settings import Config
from logd.errors import EXIT_CANNOT_CREATE, EXIT_CONFIG, EXIT_OK
from logd.maintenance import new_instance
from logd.storage import keyfile


@click.command(
    cls=Command,
    examples=[
        ("logd genkey", "create the key files that /etc/logd/logd.toml names"),
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
    """Create the keys of an installed instance, in the files that logd.toml names.

    Run it once, for logd as a system service: its logd.toml is installed without keys. An instance
    made by `logd init` has them already. There are two: the key of the database (key_file), and the
    key that signs the heads of the trail (signing_key_file). Only what is missing is created, such
    as the second one for an instance from before there was one; an existing key is never replaced
    (exit code 73 if there are both).

    Keep a copy of the database's key in another place: without it, the database cannot be read.
    Without the key that signs nothing is lost: make another one, and give its public part (`logd
    checkpoint --public-key`) to those who check signatures.
    """
    if stdout:
        click.echo(keyfile.new())
        return
    for path in new_instance.create_keys(config):
        if path == config.key_file:
            click.echo(f"created {path}; keep a copy of it in another place")
        else:
            click.echo(f"created {path}, which signs the heads of the trail from the next start on")
