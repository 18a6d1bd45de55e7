"""`logd verify`: verifies the trail, and compares it with anchors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO

import click

from logd.audit import anchor_sources
from logd.audit.kept_heads import KeptHead, read_head, read_keys
from logd.audit.verify import Verification, verify_file, verify_instance
from logd.audit.verify_processes import PROCESSES_MAX
from logd.commands._command import Command
from logd.commands._options import (
    READ_EXITS,
    TIME,
    Count,
    FilePath,
    InputFile,
    config_option,
    public_key_option,
    witness_option,
)
from logd.commands._output import fail, print_note, progress_bar
from logd.config.settings import Config
from logd.errors import EXIT_NOT_WHOLE, EXIT_UNAVAILABLE
from logd.render import format_time
from logd.storage import keyfile
from logd.storage.database import file_bytes, wal_path

UNIT = "logd.service"


@click.command(
    cls=Command,
    examples=[
        ("logd verify && echo whole", "verify the instance of /etc/logd/logd.toml"),
        ("logd verify --anchor", "compare with the journal, as root or group systemd-journal"),
        ("logd verify --anchor --since 4w", "with the anchors of the last four weeks"),
        ("logd verify --anchors /mnt/loghost/logd.log", "compare with log lines kept elsewhere"),
        ("logd verify --incremental", "every night: what is new, and a part of the rest"),
        ("logd verify /mnt/backup/activity-20260301T020000Z.db", "verify a backup where it lies"),
        (
            "logd verify --anchors /var/lib/logd/anchors",
            "compare with the file that anchor_file names",
        ),
        ("logd verify --checkpoint /mnt/usb/2026-01.head", "compare with a head kept elsewhere"),
    ],
    exits=(*READ_EXITS, EXIT_NOT_WHOLE, EXIT_UNAVAILABLE),
)
@config_option
@click.argument("backup", required=False, type=FilePath())
@click.option(
    "--full/--incremental",
    default=True,
    help="Verify all (the default), or what is new since the last run and a part of the rest.",
)
@click.option(
    "--processes",
    type=Count(min=1, max=PROCESSES_MAX),
    metavar="N",
    help="Share a full run among N processes; without it one for each core.",
)
@click.option(
    "--key-file",
    type=FilePath(),
    metavar="FILE",
    help="The key of BACKUP, if the key has been changed since.",
)
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
    type=InputFile(errors="replace"),
    metavar="FILE",
    help="Compare with log lines kept in FILE; - reads standard input.",
)
@click.option(
    "--since",
    "since_ns",
    type=TIME,
    help="Compare only with anchors of that time or later, or of lines without an ISO time.",
)
@click.option(
    "--checkpoint",
    "head_files",
    type=FilePath(),
    multiple=True,
    metavar="FILE",
    help="Also compare with the signed head in FILE; repeat it for more.",
)
@public_key_option
@witness_option
def verify(
    config: Config,
    backup: Path | None,
    full: bool,
    processes: int | None,
    key_file: Path | None,
    anchor: bool,
    unit: str,
    file: IO[str] | None,
    since_ns: int | None,
    head_files: tuple[Path, ...],
    public_key: str | None,
    witnesses: tuple[str, ...],
) -> None:
    """Verify that the trail is complete and unchanged: hashes, totals, roll-ups.

    Run it from time to time, after a restore, and whenever someone may have tampered with the
    database. It reads every event, also while the daemon runs. There are three answers: the trail
    is whole (0), with its head; it is not whole (1), with what is wrong and in
    which batch; or, with anchors, it is whole in itself but not proven (75), since the anchors that
    would prove it were not found. It needs little memory whatever the size of the trail, and room
    for a file (encrypted) in /var/tmp or TMPDIR.

    With --incremental it proves what is new since the last run, and one part of the rest: with a
    run every night, all within four weeks. What is proven is kept beside the database. If that is
    missing, of another trail, or the last run found something, all is verified. Order and
    repetition of sequences are compared within what a run reads; --full compares all.

    With BACKUP it verifies that file instead, reads it only, and puts nothing beside it.

    This alone detects changes by anyone who does not have the database key. With the key, one can
    remove the newest events and recompute all hashes, or restore an older copy of the file. So the
    daemon writes an anchor, the head and the id of the trail, signed, to the log once a minute
    (anchor_interval_s), and twice a day while nothing is stored: keep the log where that person
    cannot change it. --anchor reads the anchors from the journal, only those that the journal
    itself attributes to the unit, and prints the first batch that does not match. A restore that is
    recorded in the trail is reported, and is not an error; nor is a new trail whose former one
    logd.toml names (former_trails). Without any anchor, because the journal has been rotated,
    nothing is proven and nothing is wrong: keep it longer, or name a file (anchor_file).

    --checkpoint compares with a head that was kept anywhere: a signed checkpoint, as `logd prove`
    and witnesses have it (c2sp.org/tlog-checkpoint). It must be signed by the key of this trail,
    and by each --witness; otherwise it is refused (65), since it says nothing. If it matches, a
    proof of consistency shows that the trail only grew since.

    The result is kept beside the database, for `logd status` and the metrics.
    """
    if since_ns is not None and not anchor and file is None:
        raise click.UsageError("--since needs --anchor or --anchors: it chooses anchors by time.")
    if (public_key is not None or witnesses) and not head_files:
        raise click.UsageError("--public-key and --witness are for a --checkpoint.")
    bar = partial(progress_bar, "verifying")
    if backup is not None:
        if anchor or file is not None or head_files or not full:
            raise click.UsageError("BACKUP is verified whole, and without anchors or checkpoints.")
        done = verify_file(backup, _key(config, backup, key_file), bar, processes)
    else:
        if key_file is not None:
            raise click.UsageError("--key-file is for a BACKUP.")
        logged = None
        if file is not None:
            logged = anchor_sources.from_lines(anchor_sources.bounded_lines(file), unit)
        elif anchor:
            logged = anchor_sources.from_journal(unit, since_ns)
        heads: list[KeptHead] = []
        if head_files:
            keys = read_keys(config, public_key, witnesses)
            heads = [read_head(path, keys) for path in head_files]
        done = verify_instance(
            *(config, logged, bar, since_ns),
            heads=heads,
            incremental=not full,
            processes=processes,
        )
    _print(done)
    if done.answer.problem is not None:
        fail(done.answer.problem, done.answer.exit_code)


def _key(config: Config, backup: Path, key_file: Path | None) -> bytes:
    if not backup.is_file():
        raise click.UsageError(f"{backup}: does not exist, or is not a regular file.")
    wal = wal_path(backup)
    if file_bytes(wal):
        raise click.UsageError(
            f"{wal} belongs to the file: that is a database in use, or a copy of one, not a backup."
            " Verify an instance by its --config."
        )
    return keyfile.read(key_file or config.key_file)


def _print(done: Verification) -> None:
    trail, part = done.trail, done.part
    for finding in (*trail.findings, *done.anchored.mismatches):
        click.echo(finding)
    if done.unrecorded is not None:
        print_note(f"the result is not kept for `logd status`: {done.unrecorded}")
    if trail.whole:
        if part is None:
            click.echo(f"whole: {trail.events:,} events in {trail.batches:,} batches")
        else:
            click.echo(
                f"whole as far as verified: {part.new_batches:,} new batches, and part {part.part}"
                f" of {part.parts} of the rest: {trail.events:,} events;"
                f" all of it since {format_time(part.next.since_ns)}"
            )
        if trail.removed:
            click.echo(f"removed: {trail.removed:,} events, each covered by the chain")
        click.echo(f"head: {trail.head}")
    for line in (*done.notes, *done.anchored.notes):
        click.echo(line)
    plural = "es" * (done.processes > 1)
    click.echo(
        f"took {done.took_s:.1f} s, {trail.events / max(done.took_s, 0.001):,.0f} events/s"
        f" by {done.processes} process{plural}"
    )
