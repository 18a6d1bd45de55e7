"""`logd init`, `genkey`, `run`, `status`: an instance is made, served, looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from logd import instance, journal, keyfile, service
from logd import status as status_text
from logd.commands.options import config_option
from logd.config import Config
from logd.errors import EXIT_NOT_RUNNING, EXIT_TEMPORARY


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Make an instance in DIRECTORY: logd.toml, and a new key in logd.key.

    Keep a copy of the key somewhere else: without it nobody reads the database.
    """
    config = instance.init(directory)
    click.echo(f"made {config.path} and {config.key_file}")
    click.echo(f"start it: logd run --config {config.path}")


@click.command()
@config_option
@click.option("--stdout", is_flag=True, help="Print a new key instead, and write no file.")
def genkey(config: Config, stdout: bool) -> None:
    """Make the key of an installed logd, once: the file that the configuration names as key_file.

    A key that is there is never replaced (exit code 73). Keep a copy somewhere else: without it
    nobody reads the database. `logd init` has made a key already; this is for logd as a service,
    whose configuration was installed.

    \b
    logd genkey
    logd genkey --stdout | systemd-creds encrypt --name=logd.key - /etc/logd/logd.key.cred
    """
    if stdout:
        click.echo(keyfile.new())
        return
    keyfile.create(config.key_file)
    click.echo(f"made {config.key_file}: keep a copy of it somewhere else")


@click.command()
@config_option
def run(config: Config) -> None:
    """Take in events until SIGTERM or SIGINT.

    Says "logd: ready" on stderr, and to systemd, when events are taken.
    """
    journal.log_to_stderr()
    service.run(config)


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option(
    "--exit-code",
    is_flag=True,
    help="End with 3 where no daemon runs, with 75 where one runs and can store nothing just now.",
)
def status(config: Config, as_json: bool, exit_code: bool) -> None:
    """Show how it stands: sums, rates, commits, losses, disk, integrity.

    Works with the daemon stopped, too, and ends with 0 then: the sums could be read. Where they
    cannot, a line says why: 65 damaged, 73 or 77 not allowed, 75 locked. A script that asks whether
    the daemon is there takes --exit-code.

    \b
    logd status                                  for people
    logd status --json | jq .pending             for programs
    logd status --exit-code >/dev/null || ...    is it running, and storing?
    """
    state = instance.status(config)
    if as_json:
        click.echo(json.dumps(state))
    else:
        for line in status_text.lines(state):
            click.echo(line)
    if exit_code and state["running_pid"] is None:
        sys.exit(EXIT_NOT_RUNNING)
    if exit_code and state["trouble"]:
        sys.exit(EXIT_TEMPORARY)
