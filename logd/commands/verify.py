"""`logd verify`: whether the trail is whole, and whether it is the one that was there before."""

from __future__ import annotations

import time
from typing import IO

import click

from logd.audit import anchor_sources, anchors, last_verification
from logd.audit import verify as verification
from logd.audit.last_verification import Integrity
from logd.commands._command import Command
from logd.commands._options import bar, config_option, fail
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_KEY,
    EXIT_NOT_WHOLE,
    EXIT_OK,
    EXIT_TEMPORARY,
    EXIT_UNAVAILABLE,
    LogdError,
)
from logd.storage import opening
from logd.storage.chain_head import read_head
from logd.storage.database import DatabaseError

UNIT = "logd.service"


@click.command(
    cls=Command,
    examples=[
        ("logd verify && echo whole", "check the instance of /etc/logd"),
        ("logd verify --anchor", "as root, or in the group systemd-journal"),
        ("logd verify --anchors /mnt/loghost/logd.log", "lines that were kept elsewhere"),
        ("logd verify --anchors /var/lib/logd/anchors", "the file that anchor_file names"),
    ],
    exits=[
        *(EXIT_OK, EXIT_NOT_WHOLE, EXIT_DAMAGED, EXIT_UNAVAILABLE, EXIT_CANNOT_CREATE),
        *(EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG),
    ],
)
@config_option
@click.option(
    "--anchor", is_flag=True, help="Also compare with the chain's ends that the journal has."
)
@click.option(
    "--unit", default=UNIT, show_default=True, metavar="UNIT", help="The daemon's unit in it."
)
@click.option(
    "--anchors",
    "file",
    type=click.File(errors="replace"),
    metavar="FILE",
    help="Compare with lines that were kept elsewhere; - is the standard input.",
)
def verify(config: Config, anchor: bool, unit: str, file: IO[str] | None) -> None:
    """Recompute hashes, sums and roll-ups: whether the trail is whole.

    From time to time, after a restore, and whenever somebody may have had his hands in the
    database. Reads every event, beside a running daemon too, and prints what is wrong and in which
    batch, or that it is whole, with the head of the chain.

    A change by somebody without the key of the database is found by this alone. Who has the key can
    cut off the end and compute a new chain, or put an older copy in the database's place. The
    daemon says each minute where the chain ends (anchor_interval_s), in a log that is not in that
    person's hands: --anchor takes these lines from the journal, as the journal itself marks them as
    the unit's, and names the first batch that does not fit. A restore that the trail declares is
    told, and no error. Without any anchor nothing is proved, so that is one.

    How it ended is kept beside the database, for `logd status` and the metrics.
    """
    connection = opening.open_for_reading(config)
    try:
        # Not counted: that reads a whole index, and a damaged page of it would be all that is said.
        total = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
        with bar("verifying", total) as step:
            verdict = verification.verify(connection, step)
        findings: list[str] = [*verdict.findings]
        told: list[str] = []
        if anchor or file is not None:
            said = (
                anchor_sources.from_lines(file, unit) if file else anchor_sources.from_journal(unit)
            )
            try:
                found = anchors.compare(connection, said)
                findings += found.findings
                told += found.describe(read_head(connection)[0])
            except DatabaseError as error:
                findings.append(f"anchors: cannot be compared: {error}")
    finally:
        connection.close()
    for finding in findings:
        click.echo(finding)
    kept = Integrity(
        at_ns=time.time_ns(),
        whole=not findings,
        events=verdict.events,
        batches=verdict.batches,
        head=verdict.head,
        findings=len(findings),
    )
    try:
        last_verification.record_verification(config, kept)
    except LogdError as error:  # the verdict is what was asked for
        click.echo(f"logd: `logd status` will not know of this: {error}", err=True)
    if verdict.whole:
        click.echo(f"whole: {verdict.events:,} events in {verdict.batches:,} batches")
        if verdict.removed:
            click.echo(f"removed since: {verdict.removed:,} events, each covered by the chain")
        click.echo(f"chain head: {verdict.head}")
    for line in told:
        click.echo(line)
    if not verdict.whole:
        fail("the trail is not whole", EXIT_NOT_WHOLE)
    if findings:
        fail("whole in itself, but not the trail that the anchors speak of", EXIT_NOT_WHOLE)
