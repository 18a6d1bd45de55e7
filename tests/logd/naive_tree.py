"""The Merkle tree of RFC 9162 by its recursive definition, to compare that of a trail with."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from typing import Any

from logd.storage import tree
from logd.storage.database import Connection
from tests.logd.test_merkle import left


def naive_leaf(row: tuple[Any, ...], chained: int) -> bytes:
    """The leaf of a batch's row, as the documents describe it."""
    if row[0] > chained:
        return bytes(row[5])
    hashes = [b64encode(digest).decode() for digest in row[4:]]
    numbers = " ".join(map(str, row[:4]))
    text = f"logd/chained-batch@v1\n{numbers}\n{hashes[0]}\n{hashes[1]}\n"
    return sha256(b"\x00" + text.encode()).digest()


class Naive:
    """The tree of RFC 9162 over these leaves, by its recursive definition."""

    def __init__(self, leaves: list[bytes]) -> None:
        @cache
        def subtree(first: int, end: int) -> bytes:
            if end - first == 1:
                return leaves[first]
            k = left(end - first)
            return sha256(b"\x01" + subtree(first, first + k) + subtree(first + k, end)).digest()

        self._subtree, self.size = subtree, len(leaves)

    def root(self, size: int) -> bytes:
        return self._subtree(0, size) if size else sha256(b"").digest()

    def block(self, level: int, position: int) -> bytes:
        return self._subtree(position << level, (position + 1) << level)


def read_naive(connection: Connection) -> Naive:
    """The tree over the rows that are there."""
    (chained,) = connection.execute("SELECT batches FROM chained").fetchone()
    rows = connection.execute(
        "SELECT id, stored_ns, first_event, events, leaves_hash, hash FROM batch ORDER BY id"
    ).fetchall()
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    return Naive([naive_leaf(row, chained) for row in rows])


def nodes(connection: Connection) -> list[tuple[int, int, bytes]]:
    return list(connection.execute("SELECT * FROM node ORDER BY level, position"))


def expected_nodes(connection: Connection) -> list[tuple[int, int, bytes]]:
    naive = read_naive(connection)
    size = naive.size
    return [
        (level, position, naive.block(level, position))
        for level in range(tree.TILE_LEVEL, size.bit_length(), tree.TILE_LEVEL)
        for position in range(size >> level)
    ]
