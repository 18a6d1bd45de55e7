"""`logd status`: shows the state of an instance."""

from __future__ import annotations

import json
import sys

import click

from logd.commands._command import Command
from logd.commands._options import READ_EXITS, config_option, json_option
from logd.config.settings import Config
from logd.errors import EXIT_NOT_RUNNING, EXIT_TEMPORARY
from logd.status import text as status_text
from logd.status.collect import collect_status


@click.command(
    cls=Command,
    examples=[
        ("logd status", "the instance of /etc/logd/logd.toml"),
        ("logd status --json | jq .lost", "one figure, for a script"),
        ("logd status --exit-code >/dev/null", "test whether the daemon runs and stores events"),
    ],
    exits=(*READ_EXITS, EXIT_NOT_RUNNING),
)
@config_option
@json_option
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 3 if no daemon runs, and with 75 if it runs but cannot store events now.",
)
def status(config: Config, as_json: bool, exit_code: bool) -> None:
    """Show the status: totals, rates, commits, losses, disk, integrity.

    Look here first. Every accepted event is stored, quarantined, pending or lost. If events cannot
    be stored, the first line is "trouble", with the reason and since when; if the last daemon
    failed, it is the reason why. "claimed" losses are reported by an outbox and confirmed by
    nothing else. The lists of losses and of quarantine are short: `logd losses` and
    `logd quarantine` print all entries.

    It works without a running daemon, too, and then also exits with 0. In a script that tests
    whether the daemon runs, use --exit-code.
    """
    state = collect_status(config)
    if as_json:
        click.echo(json.dumps(state))
    else:
        for line in status_text.status_lines(state):
            click.echo(line)
    if exit_code and state["running_pid"] is None:
        sys.exit(EXIT_NOT_RUNNING)
    if exit_code and state["trouble"]:
        sys.exit(EXIT_TEMPORARY)
