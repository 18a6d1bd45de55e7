"""The former form of a batch's hash, a chain; batches from before the Merkle tree still have it.

    event   SHA-256 over the event's salt and its fields, packed
    batch   SHA-256 over the previous batch's hash, its own numbers, its events' hashes, its losses

Such a batch is verified as before, anchors of that time are compared with its hash, and it is a
leaf of the tree as well (`logd.storage.batch_hash.chained_entry`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgpack

from logd.errors import DatabaseCorrupt
from logd.storage.database import Connection

GENESIS = bytes(32)


@dataclass(frozen=True)
class Chained:
    """The last batch and the last event of the former chain; 0 and 0 if there never was a chain."""

    batches: int
    events: int


def read_chained(connection: Connection) -> Chained:
    """Returns where the former chain of a trail with a tree ends."""
    row = connection.execute("SELECT batches, events FROM chained").fetchone()
    if row is None or not all(type(number) is int for number in row):
        raise DatabaseCorrupt("the record of how far the former hash chain reaches was changed")
    return Chained(*row)


def combine(hashes: Iterable[bytes]) -> bytes:
    """Returns one hash over several hashes in their order."""
    return hashlib.sha256(b"".join(hashes)).digest()


def plain(data: bytes) -> bytes:
    """Returns the hash of an event or a loss, without the prefix that a tree's leaf has."""
    return hashlib.sha256(data).digest()


def link(
    previous: bytes,
    batch_id: int,
    stored_ns: int,
    first_event: int,
    events: int,
    leaves_hash: bytes,
    losses_hash: bytes,
) -> bytes:
    """Returns the hash of a batch, from which the hash of the next batch follows."""
    numbers = msgpack.packb((batch_id, stored_ns, first_event, events))
    return hashlib.sha256(previous + numbers + leaves_hash + losses_hash).digest()
