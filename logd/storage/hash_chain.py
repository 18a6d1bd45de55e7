"""The hash chain over stored events: any change, removal or cut leaves a batch that does not match.

    leaf    SHA-256 over the event's own salt and its fields, packed
    batch   SHA-256 over the previous batch's hash, its own numbers, its leaves, its losses

A leaf does not tell its event without the salt: erase both salt and content, keep the leaf, and
everything else still verifies. A batch keeps its leaves' hash, so it verifies by that alone once
all its events are gone. What was taken out, and by which step, is hashed too: that hash stands in
an event of logd's own, which is a leaf like every other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import msgpack

SALT_BYTES = 16
GENESIS = bytes(32)

_packer = msgpack.Packer()


@dataclass(frozen=True)
class Head:
    """Where a chain ends: its last batch, the last event's number, the hash over all of it."""

    batch: int
    events: int
    hash: bytes


def new_salts(count: int) -> list[bytes]:
    """That many random salts, asked of the kernel at once."""
    raw = os.urandom(SALT_BYTES * count)
    return [raw[i : i + SALT_BYTES] for i in range(0, len(raw), SALT_BYTES)]


def leaf(
    salt: bytes,
    event_id: int,
    producer: str,
    sequence: int,
    ts_ns: int,
    event_type: str,
    user: str | None,
    props: bytes,
) -> bytes:
    """The hash of one event, 32 bytes."""
    content = _packer.pack((event_id, producer, sequence, ts_ns, event_type, user, props))
    return hashlib.sha256(salt + content).digest()


def loss_leaf(producer: str, first: int, last: int | None, cause: str) -> bytes:
    """The hash of one row of the loss ledger."""
    return hashlib.sha256(_packer.pack(("loss", producer, first, last, cause))).digest()


def combine(leaves: Iterable[bytes]) -> bytes:
    """One hash for many, in their order."""
    return hashlib.sha256(b"".join(leaves)).digest()


def link(
    previous: bytes,
    batch_id: int,
    stored_ns: int,
    first_event: int,
    events: int,
    leaves_hash: bytes,
    losses_hash: bytes,
) -> bytes:
    """The hash of a batch, which the next batch builds on."""
    numbers = _packer.pack((batch_id, stored_ns, first_event, events))
    return hashlib.sha256(previous + numbers + leaves_hash + losses_hash).digest()


class Removal:
    """The hash of what one step took out: runs of event ids and new leaves of redacted events.

    Both are added in the order of ids; the one does not depend on when the other is.
    """

    def __init__(self) -> None:
        self._runs, self._redactions = hashlib.sha256(), hashlib.sha256()
        self.events = 0

    def add_run(self, first: int, last: int) -> None:
        """Events from `first` to `last`, both included."""
        self._runs.update(_packer.pack((first, last)))
        self.events += last - first + 1

    def add_redaction(self, event_id: int, new_leaf: bytes) -> None:
        """An event that stays and says less."""
        self._redactions.update(_packer.pack((event_id, new_leaf)))

    def hash(self, removal_id: int, kind: str) -> bytes:
        """32 bytes over all that was added."""
        head = _packer.pack(("removal", removal_id, kind))
        return hashlib.sha256(head + self._runs.digest() + self._redactions.digest()).digest()
