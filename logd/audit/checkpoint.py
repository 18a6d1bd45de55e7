"""Checkpoints as in c2sp.org/tlog-checkpoint: the head of a trail's tree as the text of a note.

    logd/9f1c00112233aabb
    812
    X4X+3PQl...=

Three lines: the origin, which names the trail; the number of its batches; the root of their tree.
The text is signed (`logd.audit.signed_note`) by a key that is named like the origin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from logd.audit.signed_note import check_name, decode_base64, encode_base64
from logd.storage.merkle import HASH_BYTES

_SIZE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """The head of a tree: the root over its first `size` leaves."""

    origin: str
    size: int
    root: bytes


def origin(trail_id: str) -> str:
    """Returns the origin of a trail's checkpoints, also the name of the key that signs them."""
    return f"logd/{trail_id}"


def format(checkpoint: Checkpoint) -> str:
    """Returns the checkpoint as the text of a note."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{encode_base64(checkpoint.root)}\n"


def parse(text: str) -> Checkpoint:
    """Returns the checkpoint in a note's text. Raises ValueError, which says what is wrong.

    Extension lines are refused: logd writes none, and they would say nothing that is checked.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise ValueError("expected three lines: origin, size, root")
    name, size, encoded, _ = lines
    check_name(name)
    if not _SIZE.fullmatch(size):
        raise ValueError("the size of the tree is not a number of at most 18 digits")
    try:
        root = decode_base64(encoded)
    except ValueError as error:
        raise ValueError(f"the root is {error}") from error
    if len(root) != HASH_BYTES:
        raise ValueError(f"the root has {len(root)} bytes, not {HASH_BYTES}")
    return Checkpoint(name, int(size), root)
