"""Whatever row of the Merkle tree is changed, removed or added, `verify` names it and ends with 1.

The tiles are small here: of four batches, with nodes of the levels 2, 4 and 6.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from logd.audit import page_check, proven
from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.maintenance.collapse import collapse
from logd.maintenance.event_removal import Steps
from logd.storage import keyfile
from logd.storage.database import Connection, connect
from logd.storage.last_verification import path_of
from logd.storage.removal_log import ERASED, PRUNED
from logd.storage.store import Store
from logd.storage.tree_head import read_head
from logd_wire.wire import Event, producer_seed
from tests.logd import rebuilding
from tests.logd.older import older
from tests.logd.test_verify_part import run_incremental, runs_until_found, small_parts
from tests.logd.tiles import set_tile_level
from tests.logd.trails import original_instance
from tests.logd.tree_tamperings import BATCHES, CHAINED, GONE, LARGE, TAMPERINGS
from tests.support.instance import Instance

__all__ = ["small_parts"]  # a fixture


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile_level(monkeypatch, 2)


def fill(store: Store, upto: int = BATCHES - 3) -> None:
    producer = Producer(uid=1, id=7, seed=producer_seed(7))
    while store.head.batch < upto:
        batch = Batch(1000, 10**6)
        for _ in range(64 if store.head.batch + 1 == LARGE else 2):
            producer.taken += 1
            batch.add(producer, producer.taken, Event("page_view", 5, "7", b"\x81\xa1a\x01"), 1)
        if store.head.batch % 10 == 5:
            batch.add_loss(producer, producer.taken + 1, producer.taken + 3, "not received")
            batch.add_loss(producer, producer.taken + 4, producer.taken + 5, "claimed")
            producer.taken += 5
        store.commit(batch, 7)
        batch.mark_committed()


def first_of(connection: Connection, batch: int) -> int:
    (first,) = connection.execute("SELECT first_event FROM batch WHERE id = ?", (batch,)).fetchone()
    return int(first)


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """A trail with a chained beginning, losses, removed and redacted events, which verifies."""
    with original_instance() as instance, pytest.MonkeyPatch.context() as patch:
        set_tile_level(patch, 2)
        path, key = instance.config.database, keyfile.read(instance.config.key_file)
        event = Event("page_view", 4, "5", b"\x80")
        older(path, key, 10, [event] * 2 * CHAINED, per_batch=2)
        instance.open_store().close()
        with instance.database() as connection:
            rebuilding.grow(connection, CHAINED)
        store = instance.open_store()
        fill(store)
        steps, large = Steps(store), first_of(store.connection, LARGE)
        whole = first_of(store.connection, GONE)
        gone = [
            2,
            5,
            6,
            whole,
            whole + 1,
            *range(large + 3, large + 30),
            *range(large + 40, large + 43),
        ]
        steps.remove(PRUNED, gone, {}, lambda _: None)
        steps.redact({7: b"\x80", large + 50: b"\x80"}, lambda _: None)
        steps.remove(ERASED, [large + 44], {}, lambda _: None)
        store.close()
        levels = "SELECT level, count(*) FROM node GROUP BY level"
        blocks = "SELECT count(DISTINCT level) FROM leaf"
        with instance.database() as connection:
            assert dict(connection.execute(levels)) == {2: 42, 4: 10, 6: 2}
            assert connection.execute(blocks).fetchone()[0] >= 4
        patch.setattr(proven, "EVENTS_PER_PART_MIN", 100)
        patch.setattr(page_check, "call_in_process", lambda function, *values: function(*values))
        assert "all is verified" in instance.cli("verify", "--incremental")
        yield instance.directory


def test_it_is_whole_part_by_part(stored: Instance) -> None:
    for _ in range(7):
        code, said = run_incremental(stored)
        assert code == 0 and "part" in said, said


def tamper(instance: Instance, sql: str) -> None:
    with instance.database() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        assert connection.execute(sql).rowcount > 0, "it changes something"


def also_by_parts() -> Iterator[Any]:
    """Of each four tamperings one is looked for by parts in each run, and the others in long ones.

    All are looked for by a full run.
    """
    for number, pair in enumerate(TAMPERINGS):
        yield pytest.param(*pair, number % 4 == 0)
        if number % 4:
            yield pytest.param(*pair, True, marks=pytest.mark.long(minutes=0.01))


@pytest.mark.parametrize(("sql", "expected", "by_parts"), list(also_by_parts()))
def test_each_tampering_is_found_and_named(
    sql: str, expected: str, by_parts: bool, stored: Instance
) -> None:
    state = path_of(stored.config.database)
    kept = state.read_bytes()
    tamper(stored, sql)
    assert expected in stored.cli("verify", code=1)
    if by_parts:
        state.write_bytes(kept)
        runs_until_found(stored)


def test_a_changed_node_in_place_of_batches_is_found(tmp_path: Path) -> None:
    """Only the root that the collapse has recorded shows what the node over a whole tile was."""
    path, key = tmp_path / "a.db", bytes(32)
    store = Store(path, key, 1, 10)
    producer = Producer(uid=1, id=7, seed=producer_seed(7))
    for number in range(1, 60):
        batch = Batch(10, 10**6)
        producer.taken += 1
        batch.add(producer, producer.taken, Event("page_view", 5, "7", b"\x80"), 1)
        if number == 21:
            batch.add_loss(producer, producer.taken + 1, producer.taken + 3, "not received")
            producer.taken += 3
        store.commit(batch, 7)
        batch.mark_committed()
    steps = Steps(store)
    steps.remove(PRUNED, [*range(1, 30), 34, 35, 36, *range(49, 53)], {}, lambda _: None)
    assert list(collapse(store, lambda: 8))
    assert verify(store.connection).findings == []
    store.close()
    nodes = rows(path, key, "SELECT level, position FROM node ORDER BY level, position")
    # Without batches below them, but with a node of level 4 above; or with neither.
    assert {(2, 0), (2, 8), (2, 12)} <= {*nodes} and {level for level, _ in nodes} == {0, 1, 2, 4}
    for level, position in nodes:
        for sql in (
            "UPDATE node SET hash = zeroblob(32)",
            "UPDATE node SET hash = (SELECT hash FROM batch ORDER BY id DESC LIMIT 1)",
            "DELETE FROM node",
        ):
            copy = tmp_path / "copy.db"
            shutil.copy(path, copy)
            connection = connect(copy, key)
            connection.execute(f"{sql} WHERE level = {level} AND position = {position}")
            findings = verify(connection).findings
            connection.close()
            assert any("batch" in finding for finding in findings), (level, position, sql)


def rows(path: Path, key: bytes, sql: str) -> list[Any]:
    connection = connect(path, key)
    found = connection.execute(sql).fetchall()
    connection.close()
    return list(found)


@pytest.mark.parametrize("gone", [[], [20, 21], [22, 23, 24], [20, 21, 22, 23, 24], range(1, 22)])
def test_where_the_chain_ends_is_checked_by_the_batches_that_are_left(
    gone: Sequence[int], tmp_path: Path
) -> None:
    path, key = tmp_path / "a.db", bytes(32)
    older(path, key, 10, [Event("page_view", 4, "5", b"\x80")] * 2 * CHAINED, per_batch=2)
    store = Store(path, key, 1, 10)
    rebuilding.grow(store.connection, CHAINED)
    store.close()
    if gone:
        store = Store(path, key, 1, 10)
        fill(store, 40)
        events = [event for batch in gone for event in (2 * batch - 1, 2 * batch)]
        Steps(store).remove(PRUNED, events, {}, lambda _: None)
        for _ in range(2):  # the last one of a tile goes after the first one of the next
            list(collapse(store, lambda: 8))
        store.close()
    left = {batch for (batch,) in rows(path, key, "SELECT id FROM batch")}
    assert not left & {*gone}
    connection = connect(path, key)
    assert verify(connection).findings == []
    changes = ["batches = batches + 1"] if CHAINED + 1 not in gone else []
    if not {CHAINED, CHAINED + 1} <= {*gone}:  # else what is in between makes no difference
        changes += ["events = events + 1", "events = events - 1"]
    for change in changes:
        connection.execute(f"UPDATE chained SET {change}")
        assert verify(connection).findings, change
        connection.execute(f"UPDATE chained SET batches = {CHAINED}, events = {2 * CHAINED}")
    for far in (-5, 7):
        connection.execute(f"UPDATE chained SET events = {2 * CHAINED + far}")
        assert any("the former hash chain reaches" in one for one in verify(connection).findings)
    connection.close()


@pytest.mark.parametrize("level", range(8, 64, 8))
def test_a_node_of_a_level_that_the_tree_has_not_reached_is_found(
    level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # with tiles of 256 batches
    store = Store(tmp_path / "a.db", bytes(32), 1, 10)
    store.connection.execute("INSERT INTO node VALUES (?, 0, zeroblob(32))", (level,))
    expected = f"the tree has 1 nodes of level {level}, 0 should be there: not so from batch 1 on"
    assert verify(store.connection).findings == [expected]
    store.close()


def test_a_batch_of_losses_alone_that_a_node_replaces_is_found(tmp_path: Path) -> None:
    """No event is missing, and the tree has the same root."""
    store = Store(tmp_path / "a.db", bytes(32), 1, 10)
    producer = Producer(uid=1, id=7, seed=producer_seed(7))
    for number in range(1, 9):
        batch = Batch(10, 10**6)
        producer.taken += 1
        if number == 2:
            batch.add_loss(producer, producer.taken, producer.taken, "not received")
        else:
            batch.add(producer, producer.taken, Event("page_view", 5, "7", b"\x80"), 1)
        store.commit(batch, 7)
        batch.mark_committed()
    connection, head = store.connection, store.head
    assert verify(connection).findings == []
    connection.execute("INSERT INTO node SELECT 0, 1, hash FROM batch WHERE id = 2")
    connection.execute("DELETE FROM loss")
    connection.execute("DELETE FROM batch WHERE id = 2")
    connection.execute("UPDATE counter SET value = 0 WHERE name = 'lost'")
    assert read_head(connection)[0] == head
    (found,) = verify(connection).findings
    assert found.startswith("1 batches with 0 events are not there any more")
    assert "batch 2 to 2 is recorded nowhere" in found
    store.close()
