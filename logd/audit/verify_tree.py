"""Checks the nodes of the Merkle tree against the hashes of the batches, tile by tile.

A tile is a complete block of 256 batches. Whether the hash of a batch is that of its contents is
checked by `logd.audit.verify_batches`.
"""

from __future__ import annotations

from collections.abc import Iterable

from logd.audit.verify_batches import BatchRange
from logd.audit.verify_rows import Verdict
from logd.storage import merkle
from logd.storage.database import Connection
from logd.storage.tree import TILE_BATCHES, TILE_LEVEL, Tree
from logd_wire.schema import INT64_MAX

LEVELS = range(TILE_LEVEL, 64, TILE_LEVEL)


class TreeCheck:
    """Checks the tree of one trail; adds findings to `verdict`."""

    def __init__(self, connection: Connection, verdict: Verdict) -> None:
        self._connection, self._verdict = connection, verdict
        self._tree = Tree(connection)
        self._size = self._tree.size()

    def check(self, ranges: Iterable[BatchRange]) -> None:
        """Checks the tiles that have batches of these ranges, and all above them."""
        tiles = {
            tile
            for part in ranges
            for tile in range(
                part.after >> TILE_LEVEL, (part.upto + TILE_BATCHES - 1) >> TILE_LEVEL
            )
        }
        for tile in sorted(tiles):
            self._check_tile(tile)
        for level in LEVELS:
            self._check_level(level)
        (others,) = self._connection.execute(
            "SELECT count(*) FROM node WHERE level < 0 OR (level >= ? AND level % ?)"
            " OR position < 0 OR (level < ? AND (position + 1) << level > ?)",
            (TILE_LEVEL, TILE_LEVEL, TILE_LEVEL, self._size >> TILE_LEVEL << TILE_LEVEL),
        ).fetchone()
        if others:
            self._verdict.add_finding(f"{others} nodes do not belong to the tree")

    def head(self) -> bytes:
        """Returns the root over all batches. Raises NotKept."""
        return self._tree.root_at(self._size)

    def _check_tile(self, tile: int) -> None:
        first = tile * TILE_BATCHES
        end = min(self._size, first + TILE_BATCHES)
        stored = self._stored(TILE_LEVEL, tile)
        pieces = list(self._tree.pieces(first, end))
        if not pieces and stored is not None:
            return  # all of the tile is collapsed, and the levels above cover it
        block = merkle.Growing()
        for leaf, level, digest in pieces:
            place = leaf - first
            if place > block.size:
                self._verdict.add_finding(f"batch {first + block.size + 1} to {leaf}: removed")
                return
            if place < block.size or place & ((1 << level) - 1):
                self._verdict.add_finding(
                    f"batch {leaf + 1}: a node of the tree stands for it, though it is there"
                )
                return
            block.append_block(level, digest)
        if block.size < end - first:
            self._verdict.add_finding(f"batch {first + block.size + 1} to {end}: removed")
        elif block.size == TILE_BATCHES:
            self._compare(TILE_LEVEL, tile, stored, block.root())

    def _check_level(self, level: int) -> None:
        """Checks the number of nodes on a level, and that they follow from the level below."""
        complete = self._size >> level
        query = self._connection.execute
        rows, low, high = query(
            "SELECT count(*), min(position), max(position) FROM node WHERE level = ?", (level,)
        ).fetchone()
        if rows != complete or (rows and (low, high) != (0, complete - 1)):
            self._verdict.add_finding(
                f"the tree has {rows} nodes of level {level}, {complete} should be there"
            )
        for position in range(complete if level > TILE_LEVEL else 0):
            below = query(
                "SELECT hash FROM node WHERE level = ? AND position >= ? AND position < ?"
                " ORDER BY position",
                (level - TILE_LEVEL, position << TILE_LEVEL, (position + 1) << TILE_LEVEL),
            ).fetchall()
            digest = merkle.root([digest for (digest,) in below])
            self._compare(level, position, self._stored(level, position), digest)

    def _stored(self, level: int, position: int) -> object:
        row = self._connection.execute(
            "SELECT hash FROM node WHERE level = ? AND position = ?", (level, position)
        ).fetchone()
        return row and row[0]

    def _compare(self, level: int, position: int, stored: object, computed: bytes) -> None:
        if stored != computed:
            self._verdict.add_finding(
                f"the tree's hash over batches {(position << level) + 1} to"
                f" {min(INT64_MAX, (position + 1) << level)} does not follow from them"
            )
