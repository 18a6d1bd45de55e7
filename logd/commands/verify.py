"""`logd verify`: verifies the trail, and compares it with anchors."""

from __future__ import annotations

import time
from typing import IO

import click

from logd.audit import anchor_sources, anchors, last_verification
from logd.audit import verify as verification
from logd.audit.last_verification import Integrity
from logd.commands._command import Command
from logd.commands._options import READ_EXITS, config_option
from logd.commands._output import fail, print_note, progress_bar
from logd.config.settings import Config
from logd.errors import EXIT_NOT_WHOLE, EXIT_UNAVAILABLE, LogdError
from logd.storage import chain_head, opening
from logd.storage.database import DatabaseError

UNIT = "logd.service"


@click.command(
    cls=Command,
    examples=[
        ("logd verify && echo whole", "verify the instance of /etc/logd/logd.toml"),
        ("logd verify --anchor", "compare with the journal, as root or group systemd-journal"),
        ("logd verify --anchors /mnt/loghost/logd.log", "compare with log lines kept elsewhere"),
        (
            "logd verify --anchors /var/lib/logd/anchors",
            "compare with the file that anchor_file names",
        ),
    ],
    exits=(*READ_EXITS, EXIT_NOT_WHOLE, EXIT_UNAVAILABLE),
)
@config_option
@click.option("--anchor", is_flag=True, help="Also compare with the anchors in the journal.")
@click.option(
    "--unit",
    default=UNIT,
    show_default=True,
    metavar="UNIT",
    help="The unit of the daemon in the journal.",
)
@click.option(
    "--anchors",
    "file",
    type=click.File(errors="replace"),
    metavar="FILE",
    help="Compare with log lines kept in FILE; - reads standard input.",
)
def verify(config: Config, anchor: bool, unit: str, file: IO[str] | None) -> None:
    """Verify that the trail is complete and unchanged: hashes, totals, roll-ups.

    Run it from time to time, after a restore, and whenever someone may have tampered with the
    database. It reads every event, also while the daemon runs, and prints either what is wrong and
    in which batch, or that the trail is whole, with the head of the hash chain.

    This alone detects changes by anyone who does not have the database key. With the key, one can
    cut off the newest events and compute a new chain, or put an older copy in place. Therefore the
    daemon writes an anchor, the head of the chain, to the log once a minute (anchor_interval_s):
    keep the log where that person cannot change it. --anchor reads the anchors from the journal,
    only those that the journal itself attributes to the unit, and prints the first batch that does
    not match. A restore that is recorded in the trail is reported, and is not an error. Finding no
    anchor at all is an error, since then nothing is proved.

    The result is kept beside the database, for `logd status` and the metrics.
    """
    connection = opening.open_for_reading(config)
    try:
        # Not count(*): it reads a whole index, so that one damaged page of it would hide the rest.
        total = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
        with progress_bar("verifying", total) as advance:
            verdict = verification.verify(connection, advance)
        findings: list[str] = [*verdict.findings]
        notes: list[str] = []
        if anchor or file is not None:
            lines = (
                anchor_sources.from_lines(file, unit) if file else anchor_sources.from_journal(unit)
            )
            try:
                found = anchors.compare(connection, lines)
                findings += found.findings
                notes += found.describe(chain_head.read_head(connection)[0])
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
    except LogdError as error:  # the verdict is still valid
        print_note(f"the result is not kept for `logd status`: {error}")
    if verdict.whole:
        click.echo(f"whole: {verdict.events:,} events in {verdict.batches:,} batches")
        if verdict.removed:
            click.echo(f"removed: {verdict.removed:,} events, each covered by the chain")
        click.echo(f"chain head: {verdict.head}")
    for line in notes:
        click.echo(line)
    if not verdict.whole:
        fail("the trail is not whole", EXIT_NOT_WHOLE)
    if findings:
        fail("the trail is whole, but it does not match the anchors", EXIT_NOT_WHOLE)
