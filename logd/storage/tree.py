"""Reads the Merkle tree of a trail, whose leaves are the batches.

A batch's row has the hash of its leaf. The hashes of all complete blocks of 256 batches, of 256 of
those, and so on are rows of `node`, written with the commit that completes them: every other hash
is computed from few rows. Below 256 a node is a row only where it stands for batches whose rows are
gone (`logd.maintenance.collapse`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from logd.errors import DatabaseCorrupt
from logd.storage import merkle
from logd.storage.batch_hash import chained_entry
from logd.storage.database import Connection
from logd.storage.hash_chain import read_chained

# Nodes of the levels that are multiples of this one are stored.
TILE_LEVEL = 8
TILE_BATCHES = 1 << TILE_LEVEL
_CACHED_BLOCKS = 4096

# A stored block: its first leaf, its level, its hash.
Piece = tuple[int, int, bytes]


class NotKept(DatabaseCorrupt):
    """A hash of the tree cannot be computed, since rows for it are collapsed or were removed."""


class Tree:
    """The tree of one trail that the connection's transaction sees."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chained = read_chained(connection).batches
        self.block = lru_cache(maxsize=_CACHED_BLOCKS)(self._block)
        self._edge: tuple[merkle.Growing, Iterator[Piece]] | None = None

    def size(self) -> int:
        """Returns the number of leaves, which is that of the batches ever stored."""
        (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()
        return int(last)

    def growing(self, size: int) -> merkle.Growing:
        """Returns the largest complete blocks of the tree of `size` leaves. Raises NotKept."""
        return merkle.Growing(size, [self.block(*place) for place in merkle.blocks(0, size)])

    def root_at(self, size: int) -> bytes:
        """Returns the root over the first `size` batches. Raises NotKept.

        Calls with ascending sizes are fast, since each continues from the last.
        """
        start = size >> TILE_LEVEL << TILE_LEVEL
        if self._edge is None or not start <= self._edge[0].size <= size:
            self._edge = self.growing(start), self.pieces(start, start + TILE_BATCHES)
        edge, pieces = self._edge
        while edge.size < size:
            piece = next(pieces, None)
            if piece is None or piece[0] != edge.size or edge.size + (1 << piece[1]) > size:
                self._edge = None
                raise NotKept(f"the hash over batches 1 to {size} cannot be computed any more")
            edge.append_block(*piece[1:])
        return edge.root()

    def _block(self, level: int, position: int) -> bytes:
        """Returns the hash of a complete block. Raises NotKept."""
        if level >= TILE_LEVEL:
            base = level // TILE_LEVEL * TILE_LEVEL
            width = level - base
            rows = self._connection.execute(
                "SELECT hash FROM node WHERE level = ? AND position >= ? AND position < ?"
                " ORDER BY position",
                (base, position << width, (position + 1) << width),
            ).fetchall()
            if len(rows) == 1 << width:
                return merkle.root([as_hash(digest) for (digest,) in rows])
            # Nodes are missing, which `verify` reports; the blocks below may still have the hash.
            return merkle.node_hash(
                self.block(level - 1, 2 * position), self.block(level - 1, 2 * position + 1)
            )
        first, end = position << level, (position + 1) << level
        block = merkle.Growing()
        for place, piece_level, digest in self.pieces(first, end):
            if place - first == block.size:
                block.append_block(piece_level, digest)
        if block.size == end - first:
            return block.root()
        raise NotKept(
            f"the Merkle tree's hash over batches {first + 1} to {end} is missing:"
            " run `logd verify`"
        )

    def pieces(self, first: int, end: int) -> Iterator[Piece]:
        """Yields a tile's stored blocks that make up the leaves from `first` to before `end`."""
        return iter(sorted((*self._leaves(first, end), *self._nodes(first, end))))

    def _leaves(self, first: int, end: int) -> Iterator[Piece]:
        rows = self._connection.execute(
            "SELECT id, stored_ns, first_event, events, leaves_hash, hash FROM batch"
            " WHERE id > ? AND id <= ?",
            (first, end),
        ).fetchall()
        for row in rows:
            yield row[0] - 1, 0, leaf_of(row, self._chained)

    def _nodes(self, first: int, end: int) -> Iterator[Piece]:
        for level in range(TILE_LEVEL):
            for position, digest in self._connection.execute(
                "SELECT position, hash FROM node WHERE level = ? AND position >= ?"
                " AND position < ?",
                (level, first >> level, end >> level),
            ).fetchall():
                # Nodes with another position are no part of the tree, which `verify` reports.
                if type(position) is int:
                    yield position << level, level, as_hash(digest)


def as_hash(value: object) -> bytes:
    """Returns a value of a row as a hash; an empty one if it is no hash.

    A hash that is computed from an empty one does not match either, which `verify` reports.
    """
    return value if type(value) is bytes else b""


def leaf_of(row: Sequence[Any], chained: int) -> bytes:
    """Returns the leaf of a batch's row; batches up to `chained` are of the former chain."""
    if row[0] > chained:
        return as_hash(row[5])
    valid = all(type(number) is int for number in row[:4])
    valid = valid and all(type(digest) is bytes for digest in row[4:])
    return merkle.leaf_hash(chained_entry(*row)) if valid else b""


def kept_nodes(size: int, completed: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """Returns the rows of `node` for the blocks that a tree of `size` leaves has just completed."""
    return [
        (level, (size - 1) >> level, completed[level])
        for level in range(TILE_LEVEL, len(completed), TILE_LEVEL)
    ]


def add_functions(connection: Connection) -> None:
    """Adds the functions with which the migration "the Merkle tree" computes its nodes."""
    connection.create_function(
        "tree_leaf", 6, lambda *row: merkle.leaf_hash(chained_entry(*row)), deterministic=True
    )
    connection.create_aggregate("tree_block", 2, _BlockOf)


class _BlockOf:
    """An SQL aggregate that returns the hash of a block, given (position, hash) of its parts."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, bytes]] = []

    def step(self, position: int, digest: bytes) -> None:
        """Adds the hash of one part of the block."""
        self._parts.append((position, digest))

    def finalize(self) -> bytes:
        """Returns the hash of the block."""
        return merkle.root([digest for _position, digest in sorted(self._parts)])
