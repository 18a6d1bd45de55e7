"""`logd checkpoint`: prints the signed head of the trail."""

from __future__ import annotations

import sys

import click

from logd.audit import signed_head
from logd.commands._command import Command
from logd.commands._options import READ_EXITS, Count, config_option
from logd.commands._output import print_line
from logd.config.settings import Config
from logd.errors import EXIT_INPUT_OUTPUT


@click.command(
    cls=Command,
    examples=[
        ("logd checkpoint >/mnt/usb/head-$(date +%F)", "keep the newest head on another medium"),
        ("logd checkpoint | mail -s head auditor@example.org", "or send it to someone"),
        ("logd checkpoint --public-key", "what checks the signature; give it to them once"),
        ("logd checkpoint --size 4096", "the head that the trail had after 4,096 batches"),
    ],
    exits=(*READ_EXITS, EXIT_INPUT_OUTPUT),
)
@config_option
@click.option(
    "--size",
    type=Count(),
    metavar="N",
    help="The head after N batches, not the newest. Those after each 256th can always be computed.",
)
@click.option(
    "--public-key",
    "is_public_key",
    is_flag=True,
    help="Print the key that checks signatures instead, as one line: a verifier key (vkey).",
)
def checkpoint(config: Config, size: int | None, is_public_key: bool) -> None:
    """Print the newest head of the trail, signed: five lines of text to keep anywhere.

    A head is one hash over all that was ever stored. Whoever has kept one, in a mail, on paper or
    on another machine, can show later that the trail still begins with all of that, and that
    nothing of it was changed. It names no person and reveals nothing of an event. Keep one where
    neither the administrator of this machine nor a thief of the database's key can change it.

    The form is that of a checkpoint of C2SP (c2sp.org/tlog-checkpoint), a signed note with an
    Ed25519 signature, which other programs can check: origin, number of batches, hash, signature.
    The key that signs is in signing_key_file; its public part is printed by --public-key, and is
    the same for all heads of a trail until the key is changed. Witnesses can add their signatures
    (c2sp.org/tlog-cosignature).

    It reads the database, also while the daemon runs.
    """
    if is_public_key:
        if size is not None:
            raise click.UsageError("--public-key is the same for heads of any size.")
        print_line(signed_head.public_key(config))
        return
    note = signed_head.signed_head(config, size)
    # The text is written as bytes: it is signed, so no locale may replace a character.
    sys.stdout.flush()
    sys.stdout.buffer.write(note.encode())
    sys.stdout.buffer.flush()
