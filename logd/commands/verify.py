"""`logd verify`: verifies the trail, and compares it with anchors."""

from __future__ import annotations

from functools import partial
from typing import IO

import click

from logd.audit import anchor_sources
from logd.audit.verify import verify_instance
from logd.commands._command import Command
from logd.commands._options import READ_EXITS, TIME, config_option
from logd.commands._output import fail, print_note, progress_bar
from logd.config.settings import Config
from logd.errors import EXIT_NOT_WHOLE, EXIT_UNAVAILABLE

UNIT = "logd.service"


@click.command(
    cls=Command,
    examples=[
        ("logd verify && echo whole", "verify the instance of /etc/logd/logd.toml"),
        ("logd verify --anchor", "compare with the journal, as root or group systemd-journal"),
        ("logd verify --anchor --since 4w", "with the anchors of the last four weeks"),
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
@click.option(
    "--since",
    "since_ns",
    type=TIME,
    help="Compare only with anchors of that time or later, or of lines without an ISO time.",
)
def verify(
    config: Config, anchor: bool, unit: str, file: IO[str] | None, since_ns: int | None
) -> None:
    """Verify that the trail is complete and unchanged: hashes, totals, roll-ups.

    Run it from time to time, after a restore, and whenever someone may have tampered with the
    database. It reads every event, also while the daemon runs. There are three answers: the trail
    is whole (0), with the head of the hash chain; it is not whole (1), with what is wrong and in
    which batch; or, with anchors, it is whole in itself but not proven (75), since the anchors that
    would prove it were not found.

    This alone detects changes by anyone who does not have the database key. With the key, one can
    cut off the newest events and compute a new chain, or put an older copy in place. Therefore the
    daemon writes an anchor, the head of the chain and the id of the trail, to the log once a minute
    (anchor_interval_s), and twice a day while nothing is stored: keep the log where that person
    cannot change it. --anchor reads the anchors from the journal, only those that the journal
    itself attributes to the unit, and prints the first batch that does not match. A restore that is
    recorded in the trail is reported, and is not an error; nor is a new trail whose former one
    logd.toml names (former_trails). Without any anchor, because the journal has been rotated,
    nothing is proven and nothing is wrong: keep it longer, or name a file (anchor_file).

    The result is kept beside the database, for `logd status` and the metrics.
    """
    if since_ns is not None and not anchor and file is None:
        raise click.UsageError("--since needs --anchor or --anchors: it chooses anchors by time.")
    logged = None
    if file is not None:
        logged = anchor_sources.from_lines(anchor_sources.bounded_lines(file), unit)
    elif anchor:
        logged = anchor_sources.from_journal(unit, since_ns)
    done = verify_instance(config, logged, partial(progress_bar, "verifying"), since_ns)
    trail = done.trail
    for finding in (*trail.findings, *done.anchored.mismatches):
        click.echo(finding)
    if done.unrecorded is not None:
        print_note(f"the result is not kept for `logd status`: {done.unrecorded}")
    if trail.whole:
        click.echo(f"whole: {trail.events:,} events in {trail.batches:,} batches")
        if trail.removed:
            click.echo(f"removed: {trail.removed:,} events, each covered by the chain")
        click.echo(f"chain head: {trail.head}")
    for line in done.anchored.notes:
        click.echo(line)
    answer = done.answer
    if answer.problem is not None:
        fail(answer.problem, answer.exit_code)
