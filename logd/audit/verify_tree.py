"""Checks the nodes of the Merkle tree against the hashes of the batches, tile by tile.

A tile is a complete block of 256 batches. Whether the hash of a batch is that of its contents is
checked by `logd.audit.verify_batches`.
"""

from __future__ import annotations

from collections.abc import Iterable

from logd.audit.verify_batches import BatchRange
from logd.audit.verify_rows import FINDINGS_MAX, Verdict
from logd.storage import merkle
from logd.storage.database import Connection
from logd.storage.hash_chain import read_chained
from logd.storage.tree import TILE_BATCHES, TILE_LEVEL, Tree, as_hash
from logd_wire.schema import INT64_MAX

LEVELS = range(TILE_LEVEL, 64, TILE_LEVEL)


class TreeCheck:
    """Checks the tree of one trail; adds findings to `verdict`."""

    def __init__(self, connection: Connection, verdict: Verdict) -> None:
        self._connection, self._verdict = connection, verdict
        self._tree = Tree(connection)
        self._size = self._tree.size()

    def check(self, ranges: Iterable[BatchRange]) -> None:
        """Checks the tiles that contain batches of the ranges, and all levels above the tiles."""
        done = 0
        for part in sorted(ranges, key=lambda part: part.after):
            first = max(done, part.after >> TILE_LEVEL)
            done = max(first, (part.upto + TILE_BATCHES - 1) >> TILE_LEVEL)
            for tile in range(first, done):
                if len(self._verdict.findings) > FINDINGS_MAX:
                    break  # a made-up number of a batch makes the tree as large as it likes
                self._check_tile(tile)
        for level in LEVELS:
            self._check_level(level)
        others, level, position = self._connection.execute(
            "SELECT count(*), quote(level), quote(position) FROM node"
            " WHERE typeof(level) <> 'integer' OR typeof(position) <> 'integer' OR position < 0"
            " OR level < 0 OR level > ?1 OR (level >= ?2 AND level % ?2)"
            " OR (level < ?2 AND position >= ?3 >> level)",
            (LEVELS[-1], TILE_LEVEL, self._size >> TILE_LEVEL << TILE_LEVEL),
        ).fetchone()
        if others:
            self._verdict.add_finding(
                f"{others} nodes do not belong to the tree, one of them of level {level[:40]} at"
                f" {position[:40]}"
            )
        self._check_chained()

    def head(self) -> bytes:
        """Returns the root over all batches. Raises NotKept."""
        return self._tree.root_at(self._size)

    def _check_tile(self, tile: int) -> None:
        first = tile * TILE_BATCHES
        end = min(self._size, first + TILE_BATCHES)
        row = self._connection.execute(
            "SELECT hash FROM node WHERE level = ? AND position = ?", (TILE_LEVEL, tile)
        ).fetchone()
        stored = row and row[0]
        pieces = list(self._tree.pieces(first, end))
        if not pieces and stored is not None:
            return  # all of the tile is collapsed, and the levels above cover it
        block = merkle.Growing()
        for leaf, level, digest in pieces:
            place = leaf - first
            if place > block.size:
                self._verdict.add_finding(f"batch {first + block.size + 1} to {leaf}: removed")
                return
            if place < block.size:
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
            wrong = query(
                "SELECT place FROM (SELECT position, row_number() OVER (ORDER BY position) - 1"
                " AS place FROM node WHERE level = ?) WHERE position <> place LIMIT 1",
                (level,),
            ).fetchone() or (min(rows, complete),)
            self._verdict.add_finding(
                f"the tree has {rows} nodes of level {level}, {complete} should be there:"
                f" not so from batch {(wrong[0] << level) + 1} on"
            )
        if level == TILE_LEVEL:
            return  # compared tile by tile
        for position, stored in query(
            "SELECT position, hash FROM node WHERE level = ? AND position >= 0 AND position < ?"
            " AND typeof(position) = 'integer' ORDER BY position",
            (level, complete),
        ):
            below = query(
                "SELECT hash FROM node WHERE level = ? AND position >= ? AND position < ?"
                " ORDER BY position",
                (level - TILE_LEVEL, position << TILE_LEVEL, (position + 1) << TILE_LEVEL),
            ).fetchall()
            digest = merkle.root([as_hash(digest) for (digest,) in below])
            self._compare(level, position, stored, digest)

    def _check_chained(self) -> None:
        """Checks the stored end of the former chain against the batches next to that end."""
        query, chained = self._connection.execute, read_chained(self._connection)
        before, low = query(
            "SELECT id, first_event + events - 1 FROM batch WHERE id BETWEEN 1 AND ?"
            " ORDER BY id DESC LIMIT 1",
            (chained.batches,),
        ).fetchone() or (0, 0)
        after, high = query(
            "SELECT id, first_event - 1 FROM batch WHERE id > ? ORDER BY id LIMIT 1",
            (chained.batches,),
        ).fetchone() or (None, low)
        # Rows of batches beside the end may be gone, with their events:
        # then the end is somewhere in the gap.
        if before == chained.batches:
            high = low
        elif after == chained.batches + 1:
            low = high
        numbers = type(low) is type(high) is int  # any other difference shows as changed batches
        if chained.batches > self._size or (numbers and not low <= chained.events <= high):
            self._verdict.add_finding(
                f"the record that the former hash chain reaches up to batch {chained.batches} and"
                f" event {chained.events} was changed"
            )

    def _compare(self, level: int, position: int, stored: object, computed: bytes) -> None:
        if stored != computed:
            self._verdict.add_finding(
                f"the tree's hash over batches {(position << level) + 1} to"
                f" {min(INT64_MAX, (position + 1) << level)} does not follow from them"
            )
