"""`logd verify`: whether the trail is whole."""

from __future__ import annotations

import click

from logd import instance
from logd import verify as verification
from logd.commands.options import bar, config_option, fail
from logd.config import Config
from logd.errors import EXIT_NOT_WHOLE


@click.command()
@config_option
def verify(config: Config) -> None:
    """Recompute hashes, sums and roll-ups. Exit 0: whole. Exit 1: says what is wrong, and where."""
    connection = instance.open_for_reading(config)
    try:
        # Not counted: that reads a whole index, and a damaged page of it would be all that is said.
        total = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
        with bar("verifying", total) as step:
            verdict = verification.verify(connection, step)
    finally:
        connection.close()
    for finding in verdict.findings:
        click.echo(finding)
    if not verdict.whole:
        fail("the trail is not whole", EXIT_NOT_WHOLE)
    click.echo(f"whole: {verdict.events:,} events in {verdict.batches:,} batches")
    click.echo(f"chain head: {verdict.head}")
