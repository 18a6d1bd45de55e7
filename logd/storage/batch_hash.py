"""Computes the hashes of a batch: of its events, its losses, and its entry, a leaf of the tree.

    event   leaf of the tree of the batch's events: its salt and its fields, packed
    loss    leaf of the tree of the batch's losses
    batch   leaf of the trail's tree: an entry of four lines, with the roots of those two trees

Without the salt the hash of an event does not reveal it: when both salt and content are erased and
the hash is kept, everything else still verifies. What each removal took out is hashed too: that
hash is recorded in an internal event, which is a leaf like any other. The trees are those of
`logd.storage.merkle`; a trail's head is the root over its batches.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Sequence

import msgpack

from logd.storage import merkle

SALT_BYTES = 16

_packer = msgpack.Packer()
pack_fields: Callable[[tuple[object, ...]], bytes] = _packer.pack


def new_salts(count: int) -> list[bytes]:
    """Returns `count` random salts, by one call to the kernel."""
    raw = os.urandom(SALT_BYTES * count)
    return [raw[i : i + SALT_BYTES] for i in range(0, len(raw), SALT_BYTES)]


def event_data(
    salt: bytes,
    event_id: int,
    producer: str,
    sequence: int,
    ts_ns: int,
    event_type: str,
    user: str | None,
    props: bytes,
) -> bytes:
    """Returns the data of an event's leaf: the salt, then a msgpack array of the other fields."""
    return salt + pack_fields((event_id, producer, sequence, ts_ns, event_type, user, props))


def loss_data(producer: str, first: int, last: int | None, cause: str) -> bytes:
    """Returns the data of the leaf of one row of the loss ledger."""
    return pack_fields(("loss", producer, first, last, cause))


def entry(
    batch_id: int,
    stored_ns: int,
    first_event: int,
    events: int,
    events_root: bytes,
    losses: Sequence[bytes],
) -> bytes:
    """Returns the data of a batch's leaf; `losses` are the hashes of its losses' leaves."""
    return (
        f"logd/batch@v1\n{batch_id} {stored_ns} {first_event} {events}\n"
        f"{_base64(events_root)}\n{len(losses)} {_base64(merkle.root(losses))}\n"
    ).encode("ascii")


def chained_entry(
    batch_id: int, stored_ns: int, first_event: int, events: int, leaves_hash: bytes, link: bytes
) -> bytes:
    """Returns the data of the leaf of a batch from before the tree (`logd.storage.hash_chain`)."""
    return (
        f"logd/chained-batch@v1\n{batch_id} {stored_ns} {first_event} {events}\n"
        f"{_base64(leaves_hash)}\n{_base64(link)}\n"
    ).encode("ascii")


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode("ascii")


class Removal:
    """Computes the hash of one removal: runs of removed ids, and new hashes of redacted events.

    Runs and redactions are each added in ascending order of ids, independently of each other.
    """

    def __init__(self) -> None:
        self._runs, self._redactions = hashlib.sha256(), hashlib.sha256()
        self.events = self.redactions = 0

    def add_run(self, first: int, last: int) -> None:
        """Adds the removed events from `first` to `last`, both included."""
        self._runs.update(_packer.pack((first, last)))
        self.events += last - first + 1

    def add_redaction(self, event_id: int, new_hash: bytes) -> None:
        """Adds an event that was redacted, with its new hash."""
        self._redactions.update(_packer.pack((event_id, new_hash)))
        self.redactions += 1

    def hash(self, removal_id: int, kind: str) -> bytes:
        """Returns the hash over everything that was added, 32 bytes."""
        head = _packer.pack(("removal", removal_id, kind))
        return hashlib.sha256(head + self._runs.digest() + self._redactions.digest()).digest()
