"""`logd prove`: makes and checks proofs of events, and proofs that the trail grew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from logd import render
from logd.atomic_file import whole_file
from logd.audit import prove as proving
from logd.audit.kept_heads import KeptHead, read_keys
from logd.audit.proof import ProvenEvent, ProvenHead
from logd.commands._command import Command
from logd.commands._options import (
    READ_EXITS,
    Count,
    FilePath,
    config_file_option,
    load_config,
    public_key_option,
    witness_option,
)
from logd.errors import EXIT_NOT_WHOLE, EXIT_UNAVAILABLE
from logd_wire.schema import INT64_MAX, Malformed
from logd_wire.wire import unpack_props

_SIZE = re.compile(r"[0-9]{1,18}", re.ASCII)


@click.command(
    cls=Command,
    examples=[
        ("logd prove 4711 -o 4711.proof", "write a proof of event 4711 to a file"),
        ("logd prove 4711 --checkpoint seen.head", "by a head that witnesses have seen"),
        (
            "logd prove --check 4711.proof --public-key logd/9f1c00112233aabb+8a7f...",
            "check it, on any machine",
        ),
        ("logd prove --growth old.head -o growth", "that the trail only grew since old.head"),
        (
            "logd prove --growth 700 | curl --data-binary @- w.example/add-checkpoint",
            "have a witness cosign the head; it has seen 700 batches",
        ),
    ],
    exits=(*READ_EXITS, EXIT_NOT_WHOLE, EXIT_UNAVAILABLE),
)
@config_file_option
@click.argument("event", required=False, type=Count(min=1, max=INT64_MAX))
@click.option(
    "--checkpoint",
    "--to",
    "head_file",
    type=FilePath(),
    metavar="FILE",
    help="Prove by the signed head in FILE, with its cosignatures, instead of one signed now.",
)
@click.option(
    "--growth",
    "old",
    type=FilePath(),
    metavar="OLD",
    help="Prove that the trail grew from OLD: a file with a head, or its number of batches.",
)
@click.option("--check", "proof_file", type=FilePath(), metavar="FILE", help="Check that proof.")
@public_key_option
@witness_option
@click.option("-o", "--output", type=FilePath(dash=True), help="The file to write; - is stdout.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def prove(
    config_file: str,
    event: int | None,
    head_file: Path | None,
    old: Path | None,
    proof_file: Path | None,
    public_key: str | None,
    witnesses: tuple[str, ...],
    output: Path | None,
    force: bool,
) -> None:
    """Prove to others that an event is in the trail, or that the trail only grew.

    Use it to show one event, and no other, to a person without access to the database: a student,
    an auditor, a court. The proof is one text. It has the event, the hashes that
    lead from it to the head of the trail, and the head as a signed checkpoint. Whoever has the
    public key of the trail (`logd checkpoint --public-key`) checks it with --check, without the
    database, or with other programs: the forms are those of c2sp.org and RFC 9162.

    By default the present head is signed. With --checkpoint it is one that was kept, for example
    with the cosignatures of witnesses; name their keys with --witness. A removed event cannot be
    proven any more (exit code 69), nor can a redacted one: its content is not what it was stored
    with.

    --growth proves that nothing up to an earlier head was changed or removed. The text is what a
    witness (c2sp.org/tlog-witness) is sent for its cosignature. To check it, give --growth with the
    file of the earlier head besides --check.

    --check exits with 1 if the proof does not prove it, and with 65 if the file is no proof. It
    needs the public key from somewhere else than the proof. A signature by a key that is not named
    is printed as not checked.

    A proof has the content of its event, not encrypted, and `logd forget` cannot reach it.
    """
    if proof_file is not None:
        if event is not None or head_file is not None or output is not None:
            raise click.UsageError("--check takes no EVENT, --checkpoint or --output.")
        if public_key is None:
            raise click.UsageError("--check needs --public-key: a proof cannot vouch for its key.")
        keys = read_keys(None, public_key, witnesses)
        if old is None:
            _print_event(proving.check_event_file(proof_file, keys))
        else:
            _print_growth(*proving.check_growth_file(proof_file, old, keys))
        return
    if (event is None) is (old is None):
        raise click.UsageError("name an EVENT, or --growth OLD, or --check FILE.")
    by = proving.By(head_file, public_key, witnesses)
    config = load_config(config_file)
    if event is not None:
        text = proving.prove_event(config, event, by)
    else:
        assert old is not None
        text = proving.prove_growth(config, int(str(old)) if _SIZE.fullmatch(str(old)) else old, by)
    _write(text, output, force)


def _write(text: str, output: Path | None, force: bool) -> None:
    if output is not None:
        with whole_file(output, force=force) as file:
            file.write(text.encode())
    elif sys.stdout.isatty():
        click.echo(text, nl=False)
    else:
        # UTF-8 in every locale, since the text contains a dash.
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def _print_event(event: ProvenEvent) -> None:
    entry = event.entry
    try:
        props = render.to_json(unpack_props(event.props))
    except Malformed:  # the event is from before properties were checked
        props = render.to_json(event.props)
    click.echo(f"proven: event {event.id} is in the trail {_trail(event.head)}")
    for name, value in (
        ("time", render.format_time(event.ts_ns)),
        ("type", event.type),
        ("user", "-" if event.user is None else event.user),
        ("properties", props),
        ("producer", f"{event.producer}, sequence {event.sequence}"),
        ("stored", f"{render.format_time(entry.stored_ns)}, in batch {entry.batch}"),
    ):
        click.echo(f"  {name:<11}{render.printable(value)}")
    _print_head(event.head)


def _print_growth(head: ProvenHead, kept: KeptHead) -> None:
    click.echo(
        f"proven: the trail {_trail(head)} only grew from {kept.checkpoint.size:,} to"
        f" {head.checkpoint.size:,} batches"
    )
    _print_head(head)


def _trail(head: ProvenHead) -> str:
    return render.printable(head.checkpoint.origin)


def _print_head(head: ProvenHead) -> None:
    checkpoint = head.checkpoint
    click.echo(f"  {'signed':<11}by the trail's key, a head of {checkpoint.size:,} batches")
    for witness in head.witnesses:
        when = "-" if witness.time_s is None else render.format_time(witness.time_s * 10**9)
        click.echo(f"  {'seen':<11}{when}, by {render.printable(witness.name)}")
    for name in head.unknown:
        click.echo(f"  {'unchecked':<11}a signature by {render.printable(name)}")
