"""`logd verify`: whether the trail is whole."""

from __future__ import annotations

import time

import click

from logd import instance, integrity
from logd import verify as verification
from logd.commands.options import bar, config_option, fail
from logd.commands.teaching import Command
from logd.config import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_KEY,
    EXIT_NOT_WHOLE,
    EXIT_OK,
    EXIT_TEMPORARY,
    LogdError,
)
from logd.integrity import Integrity


@click.command(
    cls=Command,
    examples=[("logd verify && echo whole", "check the instance of /etc/logd")],
    exits=[
        *(EXIT_OK, EXIT_NOT_WHOLE, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_TEMPORARY),
        *(EXIT_KEY, EXIT_CONFIG),
    ],
)
@config_option
def verify(config: Config) -> None:
    """Recompute hashes, sums and roll-ups: whether the trail is whole.

    From time to time, after a restore, and whenever somebody may have had his hands in the
    database. Reads every event, beside a running daemon too, and prints what is wrong and in which
    batch, or that it is whole, with the head of the chain. Keep that head somewhere else: whoever
    has the key can compute a new chain, but not one with your head in it.

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
    if verdict.removed:
        click.echo(f"removed since: {verdict.removed:,} events, each covered by the chain")
    click.echo(f"chain head: {verdict.head}")
