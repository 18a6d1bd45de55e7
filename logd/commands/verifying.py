"""`logd verify`: whether the trail is whole."""

from __future__ import annotations

import time

import click

from logd import instance, integrity
from logd import verify as verification
from logd.commands.options import bar, config_option, fail
from logd.config import Config
from logd.errors import EXIT_NOT_WHOLE, LogdError
from logd.integrity import Integrity


@click.command()
@config_option
def verify(config: Config) -> None:
    """Recompute hashes, sums and roll-ups. Exit 0: whole. Exit 1: says what is wrong, and where.

    How it ended is kept beside the database, for `logd status` and the metrics.
    """
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
    kept = Integrity(
        at_ns=time.time_ns(),
        whole=verdict.whole,
        events=verdict.events,
        batches=verdict.batches,
        head=verdict.head,
        findings=len(verdict.findings),
    )
    try:
        integrity.note(config, kept)
    except LogdError as error:  # the verdict is what was asked for
        click.echo(f"logd: `logd status` will not know of this: {error}", err=True)
    if not verdict.whole:
        fail("the trail is not whole", EXIT_NOT_WHOLE)
    click.echo(f"whole: {verdict.events:,} events in {verdict.batches:,} batches")
    click.echo(f"chain head: {verdict.head}")
