"""Each commit continues the tree of RFC 9162, also after one that was rolled back or killed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.storage.database import Connection, connect
from logd.storage.store import Store
from logd.storage.tree import Tree
from logd.storage.tree_head import read_head
from logd_wire.wire import Event, producer_seed
from tests.logd.killing import in_child
from tests.logd.naive_tree import expected_nodes, nodes, read_naive
from tests.logd.tiles import set_tile_level

KEY = bytes(32)


def commit(store: Store, producer: Producer, count: int = 1) -> None:
    batch = Batch(count, 10**6)
    for _ in range(count):
        producer.taken += 1
        batch.add(producer, producer.taken, Event("page_view", 5, "7", b"\x80"), 1)
    store.commit(batch, 7)
    batch.mark_committed()


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
