"""`logd check`: checks the instance and its machine."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from logd.commands._command import Command
from logd.commands._options import config_option, json_option
from logd.config.settings import Config
from logd.errors import EXIT_CONFIG, EXIT_NOT_WHOLE, EXIT_OK
from logd.status.checks import check as checks
from logd.status.checks import findings


@click.command(
    cls=Command,
    examples=[
        ("logd check", "every check, and what to do"),
        ("logd check --json | jq '.checks[] | select(.verdict != \"ok\")'", "what is not ok"),
    ],
    exits=[EXIT_OK, EXIT_NOT_WHOLE, EXIT_CONFIG],
)
@config_option
@json_option
def check(config: Config, as_json: bool) -> None:
    """Check for what would lose or expose events, and print what to do.

    Run it before the first start, after changes to the machine, and when something looks wrong,
    with the daemon running or stopped, best as root. It changes nothing. Each line is ok, warn or
    fail; the line below a warning or failure says what to do.

    The exit code is 0 if nothing fails, also with warnings.
    """
    found = checks.check(config)
    verdict = findings.worst(found)
    if as_json:
        checked = [asdict(finding) for finding in found]
        click.echo(json.dumps({"verdict": verdict, "checks": checked}))
    else:
        for line in findings.lines(found):
            click.echo(line)
    if verdict == findings.FAIL:
        sys.exit(EXIT_NOT_WHOLE)
