"""Reads where a trail ends: the head of its tree, or of the hash chain that it had before."""

from __future__ import annotations

from dataclasses import dataclass

from logd.storage import merkle
from logd.storage.database import Connection
from logd.storage.hash_chain import GENESIS
from logd.storage.tree import TILE_BATCHES, Tree


@dataclass(frozen=True)
class Head:
    """The end of a trail: its last batch, the id of its last event, and the hash over everything.

    The hash is the root of the tree of all batches; in a trail that no daemon with a tree has
    opened yet, it is the last hash of the chain.
    """

    batch: int
    events: int
    hash: bytes


NOTHING = Head(0, 0, merkle.EMPTY)


def has_tree(connection: Connection) -> bool:
    """Whether the trail has a tree: the migration that makes one has been applied."""
    table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'node'"
    return connection.execute(table).fetchone() is not None


def read_head(connection: Connection) -> tuple[Head, int | None]:
    """Returns the head, and when its batch was stored; None for the time if nothing is stored.

    Raises NotKept if rows of the tree are missing.
    """
    tree = has_tree(connection)
    row = connection.execute(
        "SELECT id, first_event + events - 1, hash, stored_ns FROM batch ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return (NOTHING if tree else Head(0, 0, GENESIS)), None
    batch, events, digest, stored_ns = row
    return Head(batch, events, Tree(connection).root_at(batch) if tree else digest), stored_ns


class HeadsOnDisk:
    """The heads that the only writer of a trail has on disk.

    `newest` is the head; `lasting` is the newest head over complete tiles only, which no removal
    takes away (`logd.storage.tree`). `lasting` is None if there is none yet, or if the row of its
    batch is gone, without which the number of events is not known.
    """

    def __init__(self, connection: Connection) -> None:
        self.newest, _ = read_head(connection)
        size = self.newest.batch // TILE_BATCHES * TILE_BATCHES
        row = connection.execute(
            "SELECT first_event + events - 1 FROM batch WHERE id = ?", (size,)
        ).fetchone()
        root = Tree(connection).root_at
        self.lasting = None if row is None else Head(size, row[0], root(size))
        self._passed = self.lasting

    def advance(self, batch: int, events: int, tree: merkle.Growing, *, flush: bool) -> None:
        """Takes over the tree after a commit; its heads are on disk after a commit with `flush`."""
        if batch and batch % TILE_BATCHES == 0:
            self._passed = Head(batch, events, tree.root())
        if flush:
            self.newest = Head(batch, events, tree.root())
            self.lasting = self._passed
