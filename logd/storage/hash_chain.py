"""The hash chain over stored events: after any change or removal some batch does not match.

    leaf    SHA-256 over the event's own salt and its fields, packed
    batch   SHA-256 over the previous batch's hash, its own numbers, its leaves, its losses

Without the salt a leaf does not reveal its event: when both salt and content are erased and the
leaf is kept, everything else still verifies. A batch keeps the hash of its leaves, so it verifies
by that alone once all its events are removed. What each removal took out is hashed too: that hash
is recorded in an internal event, which is a leaf like any other.
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
    """The end of a chain: its last batch, its last event's id, and the hash over all of it."""

    batch: int
    events: int
    hash: bytes


def new_salts(count: int) -> list[bytes]:
    """Returns `count` random salts, by one call to the kernel."""
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
    """Returns the hash of one event, 32 bytes."""
    content = _packer.pack((event_id, producer, sequence, ts_ns, event_type, user, props))
    return hashlib.sha256(salt + content).digest()


def loss_leaf(producer: str, first: int, last: int | None, cause: str) -> bytes:
    """Returns the hash of one row of the loss ledger."""
    return hashlib.sha256(_packer.pack(("loss", producer, first, last, cause))).digest()


def combine(leaves: Iterable[bytes]) -> bytes:
    """Returns one hash over leaves in their order."""
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
    """Returns the hash of a batch, which the next batch builds on."""
    numbers = _packer.pack((batch_id, stored_ns, first_event, events))
    return hashlib.sha256(previous + numbers + leaves_hash + losses_hash).digest()


class Removal:
    """The hash of one removal: runs of event ids, and new leaves of redacted events.

    Each of the two is added in the order of ids, independently of the other.
    """

    def __init__(self) -> None:
        self._runs, self._redactions = hashlib.sha256(), hashlib.sha256()
        self.events = 0

    def add_run(self, first: int, last: int) -> None:
        """Adds removed events from `first` to `last`, both included."""
        self._runs.update(_packer.pack((first, last)))
        self.events += last - first + 1

    def add_redaction(self, event_id: int, new_leaf: bytes) -> None:
        """Adds an event that was redacted."""
        self._redactions.update(_packer.pack((event_id, new_leaf)))

    def hash(self, removal_id: int, kind: str) -> bytes:
        """Returns the hash over all that was added, 32 bytes."""
        head = _packer.pack(("removal", removal_id, kind))
        return hashlib.sha256(head + self._runs.digest() + self._redactions.digest()).digest()
