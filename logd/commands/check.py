"""`logd check`: whether this machine and this instance are as they should be."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from logd.commands._command import Command
from logd.commands._options import config_option
from logd.config.settings import Config
from logd.errors import EXIT_CONFIG, EXIT_NOT_WHOLE, EXIT_OK
from logd.status.checks import check as checks
from logd.status.checks import findings


@click.command(
    cls=Command,
    examples=[
        ("logd check", "all that is looked at, and what to do"),
        ("logd check --json | jq '.checks[] | select(.verdict != \"ok\")'", "what is not ok"),
    ],
    exits=[EXIT_OK, EXIT_NOT_WHOLE, EXIT_CONFIG],
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def check(config: Config, as_json: bool) -> None:
    """Look for what would lose events or show them to others, and say what to do.

    Before the first start, after a change of the machine, and when something is odd; with the
    daemon up or down, best as root. Looks only, and changes nothing. Each line is ok, warn or
    fail; below what is not ok stands what to do.

    Ends with 0 where nothing fails; warnings do not make it fail.
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
