"""A trail with a hash chain gets a Merkle tree, in which the chain's batches are leaves as well."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from logd.audit import proven
from logd.audit.anchor_comparison import compare
from logd.audit.anchors import Anchor, format_anchor, parse
from logd.audit.proven import begin_cycle
from logd.audit.verify import verify
from logd.audit.verify_batches import BatchesCheck, BatchRange
from logd.audit.verify_sequences import Sequences
from logd.audit.verify_tree import TreeCheck
from logd.clock.readings import Reading
from logd.storage import merkle, trail_clock
from logd.storage.database import Connection, connect
from logd.storage.hash_chain import read_chained
from logd.storage.job_table import FORGET, PRUNE
from logd.storage.migrations import MIGRATIONS, schema_version, split
from logd.storage.store import Store
from logd.storage.tree import NotKept, Tree, add_functions
from tests.logd.chained_trail import NEWEST, TREE, check_migrated, make, some
from tests.logd.made_up_trail import DAY_NS, KEY, TYPES, Trail
from tests.logd.naive_tree import Naive, nodes, read_naive
from tests.logd.test_verify_part import cycle, small_parts

__all__ = ["small_parts"]  # a fixture
pytestmark = pytest.mark.usefixtures("clocks_from_1970", "small_parts", "few_parts")


@pytest.fixture
def few_parts(small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "EVENTS_PER_PART_MIN", 400)


@pytest.mark.parametrize("schema", some(1, 3, 8, TREE))
def test_each_older_trail_gets_the_tree_of_its_batches_and_goes_on(
    schema: int, directory: Path
) -> None:
    anchors, end = make(directory / "a.db", schema)
    trail = Trail(directory, random.Random(schema))
    check_migrated(trail.store.connection, anchors, end)
    naive, size = read_naive(trail.store.connection), end.batches
    check_proofs(trail.store.connection, naive, size)
    assert trail.store.head.hash == naive.root(size)
    logged = [anchor_of(trail)]
    trail.fill(60)
    logged.append(anchor_of(trail))
    trail.finish(trail.ask(FORGET, users=["3"]))
    assert trail.findings() == []
    check_anchors(trail.store.connection, anchors, logged)
    trail.store.close()


@pytest.mark.parametrize("schema", some(1, TREE))
def test_what_an_old_trail_was_stays_provable_whatever_is_done_after(
    schema: int, directory: Path
) -> None:
    anchors, end = make(directory / "a.db", schema)
    trail = Trail(directory, random.Random(schema))
    connection = trail.store.connection
    check_migrated(connection, anchors, end)
    root, logged = Tree(connection).root_at(256), [anchor_of(trail)]
    begun = begin_cycle(connection, 1)
    for work in (
        lambda: trail.fill(150),
        lambda: trail.finish(trail.ask(FORGET, users=["3"])),
        lambda: trail.fill(400, per_batch=4),
        lambda: trail.finish(trail.ask(PRUNE, before={TYPES[0]: 45 * DAY_NS})),
        lambda: trail.fill(20),
        lambda: trail.finish(trail.ask(FORGET, users=["4", "5"])),
        lambda: trail.finish(trail.ask(PRUNE, before=dict.fromkeys(TYPES, 12 * DAY_NS))),
        lambda: trail.finish(trail.ask(PRUNE, before=dict.fromkeys(TYPES, 45 * DAY_NS))),
        lambda: reopen(trail),
        lambda: trail.fill(20),
    ):
        work()
        connection = trail.store.connection
        assert trail.findings() == []
        check_anchors(connection, anchors, logged)
        logged.append(anchor_of(trail))
    assert all(not verdict.findings for verdict in cycle(connection, begun)), "by parts, since then"
    begun = begin_cycle(connection, 1)
    assert begun.parts > 1
    assert all(not verdict.findings for verdict in cycle(connection, begun))
    check_anchors(connection, anchors, logged)
    tree, head = Tree(connection), trail.store.head
    assert tree.root_at(256) == root, "though most of its batches are collapsed"
    proof = merkle.consistency_proof(256, head.batch, tree.block)
    assert merkle.is_consistent(256, head.batch, root, head.hash, proof)
    assert read_chained(connection) == end
    trail.store.close()


def collapsed(directory: Path) -> Trail:
    """A chain of 300 batches, all events of which are removed, and complete tiles collapsed."""
    make(directory / "a.db", TREE)
    trail = Trail(directory, random.Random(1))
    trail.store.transact(
        lambda connection, _: trail_clock.save(connection, Reading(50 * DAY_NS, "this boot", 0)), 1
    )
    trail.worker = trail.new_worker()
    trail.finish(trail.ask(PRUNE, before=dict.fromkeys(TYPES, 45 * DAY_NS)))
    (left,) = trail.store.connection.execute(
        "SELECT count(*) FROM batch WHERE id <= 256"
    ).fetchone()
    assert left < 100
    assert trail.findings() == []
    return trail


def test_a_batch_of_the_chain_that_stays_can_be_verified_after_its_neighbours_are_collapsed(
    directory: Path,
) -> None:
    """Its losses and numbers are in its link alone, which needs the hash of the batch before it."""
    trail = collapsed(directory)
    connection = trail.store.connection
    connection.execute("PRAGMA foreign_keys = OFF")
    staying = [
        batch
        for (batch,) in connection.execute(
            "SELECT id FROM batch WHERE id <= 300 AND (id > 256 OR EXISTS"
            " (SELECT 1 FROM loss WHERE batch = batch.id)) ORDER BY id"
        ).fetchall()
    ]
    assert staying[0] < 20 and len(staying) > 60
    alone = {batch for batch in staying if batch - 1 not in staying}
    assert len(alone) > 15 and 257 in alone
    others = connection.execute(
        "SELECT id FROM batch WHERE id <= 256 AND NOT EXISTS"
        " (SELECT 1 FROM loss WHERE batch = batch.id)"
    ).fetchall()
    assert {batch for (batch,) in others} == {batch - 1 for batch in alone}, "no more than needed"
    for batch in sorted({*alone, *(one - 1 for one in alone)}):
        for sql in (
            "UPDATE batch SET stored_ns = stored_ns + 1 WHERE id = ?",
            "UPDATE batch SET leaves_hash = zeroblob(32) WHERE id = ?",
            "UPDATE batch SET hash = zeroblob(32) WHERE id = ?",
            "INSERT INTO loss (batch, producer, first, last, cause, detected_ns)"
            " VALUES (?, 1, 5000, NULL, 'made up', 1)",
            "UPDATE loss SET cause = 'made up' WHERE batch = ?",
            "DELETE FROM loss WHERE batch = ?",
        ):
            connection.execute("SAVEPOINT tampered")
            if connection.execute(sql, (batch,)).rowcount:
                assert chain_findings(connection, batch), (batch, sql)
            connection.execute("ROLLBACK TO tampered")
            connection.execute("RELEASE tampered")
    trail.store.close()


def chain_findings(connection: Connection, batch: int) -> list[str]:
    """What the checks of the batches up to the next one, and of the tree, find; not the sums."""
    check = BatchesCheck(
        connection, Sequences(connection), lambda _first, _end: None, lambda _events: None
    )
    part = BatchRange(max(0, batch - 3), batch + 1)
    verdict = check.check(part).verdict
    TreeCheck(connection, verdict).check([part])
    return verdict.findings


def reopen(trail: Trail) -> None:
    trail.store.close()
    trail.open()


def anchor_of(trail: Trail) -> Anchor:
    anchor = parse(format_anchor(trail.store.head, trail.store.trail_id))
    assert anchor is not None and not anchor.chained
    return anchor


def check_anchors(connection: Connection, old: list[Anchor], new: list[Anchor]) -> None:
    """No anchor is contradicted; one of a batch whose row is gone cannot be compared."""
    found = compare(connection, [*old, *new])
    assert found.findings == []
    assert found.compared + found.pruned == len(old) + len(new)
    assert found.last is not None and found.last.head.batch == new[-1].head.batch
    there = connection.execute(
        "SELECT count(*) FROM batch WHERE id <= ?", (old[-1].head.batch,)
    ).fetchone()[0]
    assert compare(connection, old).compared == there > 20


def check_proofs(connection: Connection, naive: Naive, size: int) -> None:
    """The chain's batches are leaves: their proofs hold."""
    tree = Tree(connection)
    for index in (0, 1, 100, 255, 256, size - 1):
        proof = merkle.inclusion_proof(index, size, tree.block)
        leaf = naive.block(0, index)
        assert merkle.root_by_inclusion(index, size, leaf, proof) == naive.root(size)
    for old in (1, 100, 256, 257, size):
        assert tree.root_at(old) == naive.root(old)
        proof = merkle.consistency_proof(old, size, tree.block)
        assert merkle.is_consistent(old, size, naive.root(old), naive.root(size), proof)


# -- the statements themselves ---------------------------------------------------------------------


def test_nodes_of_all_levels_are_computed_and_none_of_a_tile_that_lacks_batches(
    directory: Path,
) -> None:
    """The statements of the migration over 65,536 tiles, whose hashes are made up."""
    connection = connect(directory / "a.db", KEY)
    add_functions(connection)
    connection.execute("CREATE TABLE node (level, position, hash NOT NULL)")
    above = [one for one in split(MIGRATIONS[TREE][1]) if "FROM node" in one]
    assert len(above) == 2
    hashes = [number.to_bytes(32, "big") for number in range(65_536 + 256)]
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO node VALUES (8, ?, ?)",
        [(place, bytearray(digest)) for place, digest in enumerate(hashes) if place != 65_537],
    )
    for statement in above:
        connection.execute(statement)
    connection.execute("COMMIT")
    found = connection.execute(
        "SELECT level, position, hash FROM node WHERE level > 8 ORDER BY level, position"
    ).fetchall()
    tiles = [merkle.root(hashes[first : first + 256]) for first in range(0, 65_536, 256)]
    expected = [(16, place, digest) for place, digest in enumerate(tiles)]
    assert found == [*expected, (24, 0, merkle.root(tiles))]
    connection.close()


def test_a_chain_that_lacks_a_batch_is_not_whole_after_the_migration_either(
    directory: Path,
) -> None:
    path = directory / "a.db"
    make(path, TREE)
    connection = connect(path, KEY)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("DELETE FROM batch WHERE id = 100")
    with pytest.raises(NotKept, match="run `logd verify`"):
        Store(path, KEY, 3, 10)
    assert (schema_version(connection), nodes(connection)) == (NEWEST, [])
    assert "batch 100 to 100: removed" in verify(connection).findings
    connection.close()
