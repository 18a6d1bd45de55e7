"""`logd init`, `genkey`, `run`, `status`: an instance is made, served, looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from logd import log_format
from logd.commands._command import Command
from logd.commands._options import config_option
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_INPUT_OUTPUT,
    EXIT_KEY,
    EXIT_NOT_RUNNING,
    EXIT_OK,
    EXIT_SYSTEM,
    EXIT_TEMPORARY,
)
from logd.maintenance import new_instance
from logd.serve import run as service
from logd.status import collect
from logd.status import text as status_text
from logd.storage import keyfile


@click.command(
    cls=Command,
    examples=[("logd init /srv/logd", "an instance with everything in one directory")],
    exits=[EXIT_OK, EXIT_CANNOT_CREATE, EXIT_CONFIG],
)
@click.argument("directory", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Make an instance in DIRECTORY: logd.toml, and a new key in logd.key.

    Once for each trail, before its first `logd run`. An instance is a database with its key and two
    sockets, in DIRECTORY unless its logd.toml says otherwise; every setting is in that file, with
    its default beside it. What is there already is not touched.

    Keep a copy of the key somewhere else: without it nobody reads the database.
    """
    config = new_instance.init(directory)
    click.echo(f"made {config.path} and {config.key_file}")
    click.echo(f"start it: logd run --config {config.path}")


@click.command(
    cls=Command,
    examples=[
        ("logd genkey", "the key that /etc/logd/logd.toml names"),
        (
            "logd genkey --stdout | systemd-creds encrypt --name=logd.key - logd.key.cred",
            "a key that is on the disk encrypted only",
        ),
    ],
    exits=[EXIT_OK, EXIT_CANNOT_CREATE, EXIT_CONFIG],
)
@config_option
@click.option("--stdout", is_flag=True, help="Print a new key instead, and write no file.")
def genkey(config: Config, stdout: bool) -> None:
    """Make the key of an installed logd, once: the file that the configuration names as key_file.

    A key that is there is never replaced (exit code 73). Keep a copy somewhere else: without it
    nobody reads the database. `logd init` has made a key already; this is for logd as a service,
    whose configuration was installed.
    """
    if stdout:
        click.echo(keyfile.new())
        return
    keyfile.create(config.key_file)
    click.echo(f"made {config.key_file}: keep a copy of it somewhere else")


@click.command(
    cls=Command,
    examples=[("logd run --config /srv/logd/logd.toml", "in the foreground, until Ctrl-C")],
    exits=[
        *(EXIT_OK, EXIT_DAMAGED, EXIT_SYSTEM, EXIT_CANNOT_CREATE, EXIT_INPUT_OUTPUT),
        *(EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG),
    ],
)
@config_option
def run(config: Config) -> None:
    """Take in events until SIGTERM or SIGINT.

    The daemon: usually a service manager starts it, and hands it its sockets. It says "logd: ready"
    on stderr, and to systemd, when events are taken; what goes wrong, in one line on stderr. At the
    first start it makes the database, and after an update it brings an older one up to date.

    Events that come while it is away wait in the outboxes of those who send them. SIGTERM stores
    and confirms what has arrived, within stop_timeout_s; a kill loses nothing that was accepted.

    SIGHUP reads the configuration again: a line on stderr says which of its changes are in use now
    and which need a restart, or what is wrong with it, and then nothing changes.
    """
    log_format.log_to_stderr()
    service.run(config)


@click.command(
    cls=Command,
    examples=[
        ("logd status", "how the instance of /etc/logd stands"),
        ("logd status --json | jq .lost", "one figure, for a script"),
        ("logd status --exit-code >/dev/null", "is it running, and storing?"),
    ],
    exits=[
        *(EXIT_OK, EXIT_NOT_RUNNING, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_TEMPORARY),
        *(EXIT_KEY, EXIT_CONFIG),
    ],
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.option(
    "--exit-code",
    is_flag=True,
    help="End with 3 where no daemon runs, with 75 where one runs and can store nothing just now.",
)
def status(config: Config, as_json: bool, exit_code: bool) -> None:
    """Show how it stands: sums, rates, commits, losses, disk, integrity.

    The first thing to look at. What is accepted is stored, quarantined, pending or lost; "trouble"
    stands first where nothing can be stored just now, with what and since when, or says what ended
    the last daemon. "claimed" are losses that nothing shows but an outbox's own word. Losses and
    quarantine are shown in brief: `logd losses` and `logd quarantine` have all of them.

    Works with the daemon stopped, too, and ends with 0 then: the sums could be read. A script that
    asks whether the daemon is there takes --exit-code.
    """
    state = collect.status(config)
    if as_json:
        click.echo(json.dumps(state))
    else:
        for line in status_text.lines(state):
            click.echo(line)
    if exit_code and state["running_pid"] is None:
        sys.exit(EXIT_NOT_RUNNING)
    if exit_code and state["trouble"]:
        sys.exit(EXIT_TEMPORARY)
