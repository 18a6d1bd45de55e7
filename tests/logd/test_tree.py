"""The tree that the database's rows make up is that of RFC 9162 over all batches ever stored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.storage import merkle, tree
from logd.storage.database import Connection, connect
from logd.storage.store import Store
from logd.storage.tree import NotKept, Tree
from tests.logd.naive_tree import Naive, read_naive
from tests.logd.tiles import set_tile_level

KEY = bytes(32)
CHAINED = 37  # of the made-up trails, batches of the former chain


def make(path: Path, size: int, chained: int = CHAINED) -> tuple[Connection, Naive]:
    """Makes a database with rows of so many batches without events, and the nodes of their tree."""
    Store(path, KEY, 1, 10).close()
    connection = connect(path, KEY)
    rng = random.Random(size)
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO batch VALUES (?, ?, 1, 0, ?, ?)",
        (
            (number, number, bytearray(rng.randbytes(32)), bytearray(rng.randbytes(32)))
            for number in range(1, size + 1)
        ),
    )
    connection.execute("UPDATE chained SET batches = ?", (min(size, chained),))
    naive = read_naive(connection)
    nodes = [
        (level, position, naive.block(level, position))
        for level in range(tree.TILE_LEVEL, size.bit_length(), tree.TILE_LEVEL)
        for position in range(size >> level)
    ]
    connection.executemany("INSERT INTO node VALUES (?, ?, ?)", nodes)
    connection.execute("COMMIT")
    return connection, naive


@pytest.fixture(params=[8, 3, 2])
def tile_level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Also with small tiles, so that some hundred batches have nodes of many levels."""
    set_tile_level(monkeypatch, request.param)
    return int(request.param)


@pytest.fixture
def made(tmp_path: Path, tile_level: int) -> Iterator[tuple[Connection, Naive]]:
    connection, naive = make(tmp_path / "a.db", {8: 2100, 3: 700, 2: 333}[tile_level])
    yield connection, naive
    connection.close()


def some_sizes(rng: random.Random, size: int) -> list[int]:
    """Sizes at and beside the borders of blocks, and any others."""
    borders = {(n << level) + d for level in range(12) for n in range(3) for d in (-1, 0, 1)}
    return sorted({n for n in borders if 0 <= n <= size} | {*rng.choices(range(size + 1), k=60)})


def test_the_root_of_each_size_is_that_of_the_definition(made: tuple[Connection, Naive]) -> None:
    connection, naive = made
    rng, kept = random.Random(1), Tree(connection)
    assert kept.size() == naive.size
    sizes = some_sizes(rng, naive.size)
    for order in (
        sizes,
        sizes[::-1],
        rng.sample(sizes, len(sizes)),
        [n for n in sizes for _ in "ab"],
    ):
        again = Tree(connection)
        for size in order:
            assert again.root_at(size) == naive.root(size)
            assert kept.root_at(size) == naive.root(size), "and of one that has been asked before"


def test_ascending_sizes_one_by_one_have_the_roots_of_the_definition(
    made: tuple[Connection, Naive],
) -> None:
    connection, naive = made
    kept = Tree(connection)
    assert [kept.root_at(size) for size in range(naive.size + 1)] == [
        naive.root(size) for size in range(naive.size + 1)
    ]


def test_each_block_is_that_of_the_definition(made: tuple[Connection, Naive]) -> None:
    connection, naive = made
    kept = Tree(connection)
    for level in range(12):
        for position in range(naive.size >> level):
            assert kept.block(level, position) == naive.block(level, position)
        with pytest.raises(NotKept, match="is missing: run `logd verify`"):
            kept.block(level, naive.size >> level)  # not complete


def test_proofs_from_the_rows_hold(made: tuple[Connection, Naive]) -> None:
    connection, naive = made
    rng, kept = random.Random(2), Tree(connection)
    for _ in range(100):
        size = rng.randrange(1, naive.size + 1)
        index, old = rng.randrange(size), rng.randrange(size + 1)
        proof = merkle.inclusion_proof(index, size, kept.block)
        leaf = naive.block(0, index)
        assert merkle.root_by_inclusion(index, size, leaf, proof) == naive.root(size)
        proof = merkle.consistency_proof(old, size, kept.block)
        assert merkle.is_consistent(old, size, naive.root(old), naive.root(size), proof)


def test_the_right_edge_grows_on_to_the_tree_of_the_definition(
    made: tuple[Connection, Naive],
) -> None:
    connection, naive = made
    for size in some_sizes(random.Random(3), naive.size):
        growing = Tree(connection).growing(size)
        assert (growing.size, growing.root()) == (size, naive.root(size))
        if size < naive.size:
            growing.append(naive.block(0, size))
            assert growing.root() == naive.root(size + 1)


@pytest.mark.parametrize(
    "missing", ["level >= 0", "position % 3 = 1", "level > {0}", "level = {0}"]
)
def test_without_nodes_the_rows_of_the_batches_are_enough(
    made: tuple[Connection, Naive], tile_level: int, missing: str
) -> None:
    connection, naive = made
    condition = missing.format(tile_level)
    gone = connection.execute(f"DELETE FROM node WHERE {condition}").rowcount
    assert gone > 0 or tile_level == 8, "level 16 begins with 65,536 batches"
    kept = Tree(connection)
    for size in some_sizes(random.Random(4), naive.size):
        assert kept.root_at(size) == naive.root(size)


def test_a_block_that_is_kept_is_read_from_its_own_row(
    made: tuple[Connection, Naive], tile_level: int
) -> None:
    """No row below it is needed."""
    connection, naive = made
    kept = [2 * tile_level, 2 * tile_level + 1] if tile_level < 8 else [8, 9, 10]
    batches = 1 << kept[-1]
    connection.execute("DELETE FROM batch WHERE id <= ?", (batches,))
    connection.execute(
        "DELETE FROM node WHERE level < ? AND (position + 1) << level <= ?", (kept[0], batches)
    )
    for level in kept:
        assert Tree(connection).block(level, 0) == naive.block(level, 0)
    assert Tree(connection).root_at(naive.size) == naive.root(naive.size)


def collapse(connection: Connection, naive: Naive, first: int, end: int) -> None:
    """Has nodes stand for the batches of the leaves from `first` to before `end`, as a collapse."""
    connection.execute("DELETE FROM batch WHERE id > ? AND id <= ?", (first, end))
    connection.executemany(
        "INSERT OR IGNORE INTO node VALUES (?, ?, ?)",
        [
            (level, position, naive.block(level, position))
            for level, position in merkle.blocks(first, end)
            if level < tree.TILE_LEVEL
        ],
    )


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.long(minutes=0.1)) for n in range(1, 9))]
)
def test_nodes_in_place_of_batches_give_every_hash_outside_them(
    made: tuple[Connection, Naive], tile_level: int, seed: int
) -> None:
    """A hash that only the batches' own rows could give is refused, never a wrong one."""
    connection, naive = made
    rng = random.Random(seed)
    tile, there = 1 << tile_level, [True] * (naive.size + 1)
    for _ in range(6):
        first = rng.randrange(naive.size - 1)
        end = min(naive.size - 1, first + rng.choice((1, 2, 3, tile, 3 * tile, 5 * tile + 1)))
        if all(there[first:end]):
            collapse(connection, naive, first, end)
            there[first:end] = [False] * (end - first)
    kept, refused = Tree(connection), set()
    for size in some_sizes(rng, naive.size):
        for asked in (kept, Tree(connection)):
            try:
                assert asked.root_at(size) == naive.root(size)
            except NotKept:
                refused.add(size)
    assert all(size % tile and not there[size - 1] for size in refused)
    for level, position in [(low, n) for low in range(12) for n in range(naive.size >> low)]:
        try:
            assert kept.block(level, position) == naive.block(level, position)
        except NotKept:
            assert level < tile_level
            assert not all(there[position << level : (position + 1) << level])


def test_a_batch_that_is_missing_is_never_left_out(made: tuple[Connection, Naive]) -> None:
    connection, naive = made
    connection.execute("DELETE FROM node")
    connection.execute("DELETE FROM batch WHERE id = 30")
    kept = Tree(connection)
    for size in (30, 31, 64, naive.size):
        with pytest.raises(NotKept):
            kept.root_at(size)
    assert kept.root_at(29) == naive.root(29)


def test_what_was_asked_for_is_not_read_again(made: tuple[Connection, Naive]) -> None:
    connection, naive = made
    asked: list[str] = []
    kept = Tree(connection)
    connection.set_trace_callback(asked.append)
    block = kept.block(tree.TILE_LEVEL + 1, 0)
    assert asked
    del asked[:]
    assert kept.block(tree.TILE_LEVEL + 1, 0) == block
    assert asked == []
    end = 3 << tree.TILE_LEVEL
    kept.root_at(end - 1)
    reads = len(asked)
    assert kept.root_at(end - 1) == naive.root(end - 1)
    assert len(asked) == reads, "the same size once more"
    for size in range(end, end + (1 << tree.TILE_LEVEL)):
        assert kept.root_at(size) == naive.root(size)
    assert len(asked) <= 2 * reads + 40, "a tile is read once for all of its sizes"
    connection.set_trace_callback(None)


def test_blocks_that_are_kept_in_memory_are_bounded(
    made: tuple[Connection, Naive], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, naive = made
    monkeypatch.setattr(tree, "_CACHED_BLOCKS", 8)
    kept = Tree(connection)
    for position in range(100):
        assert kept.block(0, position) == naive.block(0, position)
    assert kept.block.cache_info().currsize == 8


def test_a_trail_of_more_than_65536_batches_has_a_node_of_level_16(tmp_path: Path) -> None:
    size = 65_536 + 2 * 256 + 3
    connection, naive = make(tmp_path / "a.db", size)
    levels = dict(connection.execute("SELECT level, count(*) FROM node GROUP BY level").fetchall())
    assert levels == {8: 258, 16: 1}
    kept = Tree(connection)
    for wanted in (size, 65_536, 65_537, 65_535, 65_536 + 256, 300, 40_000):
        assert kept.root_at(wanted) == naive.root(wanted)
    connection.execute("DELETE FROM node WHERE level = 16 OR position IN (0, 77)")
    again = Tree(connection)
    assert again.root_at(size) == naive.root(size)
    connection.close()


def test_the_empty_tree_has_the_empty_root(tmp_path: Path) -> None:
    connection, _naive = make(tmp_path / "a.db", 0)
    assert Tree(connection).size() == 0
    assert Tree(connection).root_at(0).hex().startswith("e3b0c44298fc1c14")
    assert Tree(connection).growing(0) == merkle.Growing()
    connection.close()
