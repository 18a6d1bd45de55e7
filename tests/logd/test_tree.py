"""The tree that the database's rows make up is that of RFC 9162 over all batches ever stored."""

from __future__ import annotations

import os
import random
import signal
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.storage import merkle, tree
from logd.storage.database import Connection, connect
from logd.storage.store import Store
from logd.storage.tree import NotKept, Tree
from logd.storage.tree_head import read_head
from logd_wire.wire import Event, producer_seed
from tests.logd.test_merkle import left
from tests.logd.tiles import set_tile_level

KEY = bytes(32)
CHAINED = 37  # of the made-up trails, batches of the former chain


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


@pytest.mark.parametrize("seed", range(4))
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


# -- what the store writes -------------------------------------------------------------------------


def commit(store: Store, producer: Producer, count: int = 1) -> None:
    batch = Batch(count, 10**6)
    for _ in range(count):
        producer.taken += 1
        batch.add(producer, producer.taken, Event("page_view", 5, "7", b"\x80"), 1)
    store.commit(batch, 7)
    batch.mark_committed()


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


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile_level(monkeypatch, 2)


@pytest.mark.usefixtures("small_tiles")
def test_each_commit_writes_the_nodes_that_it_completes_and_the_head(tmp_path: Path) -> None:
    """Also after the store was closed and opened again, at whatever size."""
    path, rng = tmp_path / "a.db", random.Random(8)
    producer = Producer(uid=1, id=1, seed=producer_seed(1))
    store = Store(path, KEY, 1, 10)
    for size in range(1, 140):
        if rng.random() < 0.2:
            store.close()
            store = Store(path, KEY, 1, 10)
        commit(store, producer, rng.randrange(1, 4))
        connection = store.connection
        assert nodes(connection) == expected_nodes(connection)
        head = store.head
        assert (head.batch, head.hash) == (size, read_naive(connection).root(size))
        assert read_head(connection) == (head, 7)
    assert verify(store.connection).findings == []
    store.close()


@pytest.mark.usefixtures("small_tiles")
def test_a_transaction_that_is_rolled_back_leaves_the_tree_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "a.db", KEY, 1, 10)
    producer = Producer(uid=1, id=1, seed=producer_seed(1))
    for _ in range(15):
        commit(store, producer)
    before = nodes(store.connection), store.head

    def fail(_connection: Connection, batch: Batch) -> None:
        store.append_internal_event(batch, "trail_exported", {}, 1)
        raise LookupError

    for _ in range(3):
        with pytest.raises(LookupError):
            store.transact(fail, 1)
        assert (nodes(store.connection), store.head) == before
    with monkeypatch.context() as patch:
        patch.setattr("logd.storage.row_writer.count_batch", fail)  # after the rows are written
        with pytest.raises(TypeError):
            commit(store, producer)
    producer.taken -= 1
    assert (nodes(store.connection), store.head) == before
    commit(store, producer)  # it completes blocks of two levels
    assert nodes(store.connection) == expected_nodes(store.connection)
    assert store.head.hash == read_naive(store.connection).root(16)
    store.close()


def in_child(work: Callable[[], None]) -> bool:
    """Runs the work in a fork; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.usefixtures("small_tiles")
def test_a_commit_that_is_killed_at_any_statement_leaves_the_tree_as_it_was(tmp_path: Path) -> None:
    """The sixteenth batch completes blocks of two levels."""
    path = tmp_path / "a.db"
    store = Store(path, KEY, 1, 10)
    producer = Producer(uid=1, id=1, seed=producer_seed(1))
    for _ in range(15):
        commit(store, producer)
    before = nodes(store.connection), store.head
    store.close()

    def killed_before(statement: int) -> bool:
        def work() -> None:
            left = statement
            mine = Store(path, KEY, 2, 10)

            def count(_sql: str) -> None:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

            mine.connection.set_trace_callback(count)
            commit(mine, Producer(uid=1, id=2, seed=producer_seed(2)))

        return in_child(work)

    kills = 0
    while killed_before(kills):
        kills += 1
        connection = connect(path, KEY)
        size = Tree(connection).size()
        assert nodes(connection) == expected_nodes(connection)
        if size == 16:
            connection.close()
            break  # after the commit, in what follows it
        again = Store(path, KEY, 3, 10)
        assert (nodes(again.connection), again.head) == before
        again.close()
        connection.close()
    assert kills > 5, "before each statement of the transaction"
    store = Store(path, KEY, 3, 10)
    assert store.head.batch == 16
    assert nodes(store.connection) == expected_nodes(store.connection)
    assert verify(store.connection).findings == []
    store.close()
