"""Batches whose events are all removed: their rows go, and the tree's hashes stay."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.audit.verify_rows import Verdict
from logd.batch import LOST_NOT_RECEIVED, Batch
from logd.clock import readings
from logd.maintenance import collapse, event_removal, stored_times
from logd.reports.follow import common_events
from logd.storage import merkle, removal_log
from logd.storage.database import connect
from logd.storage.job_table import FORGET, PRUNE
from logd.storage.tree import NotKept, Tree, leaf_of
from tests.logd.made_up_trail import DAY_NS, KEY, TYPES, Trail
from tests.support.instance import short_directory

pytestmark = pytest.mark.usefixtures("clocks_from_1970")

ALL = dict.fromkeys(TYPES, 45 * DAY_NS)


def fill(trail: Trail, batches: int) -> None:
    """Adds small batches, and one in a hundred with a loss."""
    producer = trail.store.producer(2, 77)
    for number in range(batches):
        if number % 100 == 50:
            batch = Batch(10, 1000)
            producer.taken += 1
            batch.add_loss(producer, producer.taken, producer.taken, LOST_NOT_RECEIVED)
            trail.store.commit(batch, 5)
            batch.mark_committed()
        else:
            trail.commit([trail.event() for _ in range(trail.rng.randrange(1, 4))])


def rows(trail: Trail, table: str) -> int:
    return int(trail.store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def roots(trail: Trail) -> list[bytes]:
    """The root over the first n batches, for each n, from their rows alone."""
    made = merkle.Growing()
    found = [made.root()]
    for row in trail.store.connection.execute(
        "SELECT id, stored_ns, first_event, events, leaves_hash, hash FROM batch ORDER BY id"
    ):
        made.append(leaf_of(row, 0))
        found.append(made.root())
    return found


def test_a_pruned_tile_keeps_no_row_but_that_of_a_loss_and_every_256th_root(trail: Trail) -> None:
    fill(trail, 600)
    before = roots(trail)
    trail.finish(trail.ask(PRUNE, before=ALL))
    assert trail.findings() == []
    query = trail.store.connection.execute
    left = [batch for (batch,) in query("SELECT id FROM batch WHERE id <= 512 ORDER BY id")]
    lossy = [batch for (batch,) in query("SELECT batch FROM loss WHERE batch <= 512")]
    assert left == lossy and len(left) == 5
    assert rows(trail, "leaf") == 0
    nodes = query("SELECT count(*) FROM node WHERE level < 8").fetchone()[0]
    assert 5 <= nodes <= 2 * 8 * (len(left) + 2)
    tree = Tree(trail.store.connection)
    size = tree.size()
    kept = []
    for number, root in enumerate(before):
        try:
            assert tree.root_at(number) == root
            kept.append(number)
        except NotKept:
            assert number % 256 and number < 512
    assert {0, 256, 512, *range(513, 601)} <= set(kept)
    for old in (256, 512, 550):
        proof = merkle.consistency_proof(old, size, tree.block)
        assert merkle.is_consistent(old, size, before[old], tree.root_at(size), proof)
    for batch in lossy:
        leaf = query("SELECT hash FROM batch WHERE id = ?", (batch,)).fetchone()[0]
        proof = merkle.inclusion_proof(batch - 1, size, tree.block)
        assert merkle.root_by_inclusion(batch - 1, size, leaf, proof) == tree.root_at(size)
    counters = trail.counters()
    assert counters["stored"] == trail.store.next_event - 1
    assert counters["stored"] == rows(trail, "event") + counters["pruned"]
    assert counters["commits"] == size
    # The runs of a removal are there until its last batch is collapsed, and then none of them.
    assert rows(trail, "removed") > 100
    fill(trail, 300)
    trail.finish(trail.ask(PRUNE, before=ALL))
    assert trail.findings() == []
    (within,) = query("SELECT count(*) FROM removed WHERE first <= ?", (len(before),)).fetchone()
    assert within == 0


@pytest.mark.parametrize(
    "trail",
    [1, *(pytest.param(seed, marks=pytest.mark.long(minutes=0.1)) for seed in range(2, 9))],
    indirect=True,
)
def test_whatever_is_removed_in_whatever_order_the_trail_stays_whole(trail: Trail) -> None:
    rng = trail.rng
    known: dict[int, bytes] = {0: merkle.EMPTY}
    for _ in range(4):
        fill(trail, rng.randrange(100, 260))
        known[trail.store.head.batch] = trail.store.head.hash
        kind = rng.choice((PRUNE, PRUNE, FORGET))
        if kind == FORGET:
            trail.finish(trail.ask(FORGET, users=[rng.choice("012345")]))
        else:
            types = rng.sample(TYPES, rng.randrange(1, 5))
            moment = rng.randrange(1, 45) * DAY_NS
            trail.finish(trail.ask(PRUNE, before=dict.fromkeys(types, moment)))
        assert trail.findings() == []
        tree = Tree(trail.store.connection)
        for size, root in known.items():
            try:
                assert tree.root_at(size) == root
            except NotKept:
                assert size % 256
        head = trail.store.head
        trail.store.close()
        trail.open()
        assert trail.store.head == head, "the same after a start"
    trail.finish(trail.ask(PRUNE, before=ALL))
    trail.finish(trail.ask(PRUNE, before=ALL))
    assert trail.findings() == []
    losses = rows(trail, "loss")
    last = trail.store.head.batch >> 8 << 8
    (left,) = trail.store.connection.execute(
        "SELECT count(*) FROM batch WHERE id <= ? AND id NOT IN (SELECT batch FROM loss)"
        " AND NOT EXISTS (SELECT 1 FROM event WHERE id >= first_event"
        " AND id < first_event + events)",
        (last,),
    ).fetchone()
    assert (left, losses > 0) == (0, True)


@pytest.fixture(scope="module")
def collapsed() -> Iterator[Path]:
    """A trail of 600 batches that are collapsed as far as they can be, which verifies."""
    directory = short_directory()
    with pytest.MonkeyPatch.context() as patch:
        for module in (readings, stored_times):
            patch.setattr(module, "EARLIEST_NS", 0)
        trail = Trail(directory, random.Random(1))
        fill(trail, 600)
        trail.finish(trail.ask(PRUNE, before=ALL))
    assert trail.findings() == []
    trail.store.close()
    yield trail.path
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("UPDATE node SET hash = zeroblob(32) WHERE level < 8", "over batches 1 to 256 does not"),
        ("UPDATE node SET hash = zeroblob(32) WHERE level = 8", "to 256 does not follow"),
        ("DELETE FROM node WHERE level < 8 AND position = 0", "removed"),
        ("DELETE FROM node WHERE level = 8 AND position = 0", "1 nodes of level 8, 2 should be"),
        ("DELETE FROM batch WHERE id = 600", "removed"),
        ("DELETE FROM collapse", "are not there any more, the trail records that of 0"),
        ("UPDATE collapse SET batches = batches + 1", "does not record it"),
        ("UPDATE collapse SET events = events - 1", "does not record it"),
        ("UPDATE removal SET collapsed_events = collapsed_events + 1", "what it took out"),
        (
            "UPDATE removal SET collapsed_events = collapsed_events + 1, events = events + 1"
            " WHERE collapsed_events",
            "does not record it",
        ),
        ("INSERT INTO node VALUES (3, 70, zeroblob(32))", "do not belong to the tree"),
        ("INSERT INTO node VALUES (9, 0, zeroblob(32))", "do not belong to the tree"),
        ("INSERT INTO node VALUES (16, 0, zeroblob(32))", "1 nodes of level 16, 0 should be"),
    ],
)
def test_each_tampering_with_what_is_left_is_reported(
    collapsed: Path, trail: Trail, sql: str, expected: str
) -> None:
    trail.store.close()
    shutil.copy(collapsed, trail.path)
    trail.open()
    trail.store.connection.execute(sql)
    findings = trail.findings()
    assert any(expected in finding for finding in findings), findings


def test_what_is_collapsed_by_hand_is_reported(trail: Trail) -> None:
    """Whoever has the key can hide events behind a node; the trail then lacks the act."""
    fill(trail, 600)
    connection = trail.store.connection
    leaf = connection.execute("SELECT hash FROM batch WHERE id = 7").fetchone()[0]
    connection.execute("INSERT INTO node VALUES (0, 6, ?)", (leaf,))
    assert any("stands for it, though it is there" in found for found in trail.findings())
    connection.execute("DELETE FROM batch WHERE id = 7")
    assert any("1 batches with" in found for found in trail.findings())


def test_a_kill_between_two_steps_leaves_a_whole_trail_and_the_next_prune_goes_on(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collapse, "TILES_PER_STEP", 1)
    fill(trail, 800)
    trail.finish(trail.ask(PRUNE, before={}))
    for _ in collapse.collapse(trail.store, lambda: 5):
        pass
    assert rows(trail, "collapse") == 0, "nothing was removed"
    trail.finish(trail.ask(PRUNE, before=dict.fromkeys(TYPES[:2], 45 * DAY_NS)))
    whole = rows(trail, "collapse")
    job = trail.ask(PRUNE, before=ALL)
    while rows(trail, "collapse") == whole:
        trail.worker.step()
    assert trail.findings() == []
    trail.store.close()
    trail.open()
    trail.worker.poll()
    trail.finish(job)
    assert trail.findings() == []
    assert rows(trail, "batch") < 100


def test_trails_of_which_one_is_collapsed_are_compared_by_what_both_have(
    trail: Trail, directory: Path
) -> None:
    fill(trail, 520)
    copy = directory / "copy.db"
    trail.store.truncate_wal()
    copy.write_bytes(trail.path.read_bytes())
    trail.finish(trail.ask(PRUNE, before=ALL))
    other: Any = connect(copy, KEY)
    ours = trail.store.connection
    (events,) = other.execute("SELECT max(first_event + events) - 1 FROM batch").fetchone()
    assert common_events(other, ours) == common_events(ours, other) == events
    other.execute("UPDATE batch SET hash = zeroblob(32) WHERE id > 515")
    (events,) = other.execute(
        "SELECT first_event + events - 1 FROM batch WHERE id = 515"
    ).fetchone()
    assert common_events(other, ours) == events
    other.close()


def test_a_verdict_says_how_many_events_were_removed_after_a_collapse(trail: Trail) -> None:
    fill(trail, 300)
    trail.finish(trail.ask(PRUNE, before=ALL))
    from logd.audit.recomputed import temporary
    from logd.audit.verifier import Verifier

    with temporary(trail.store.connection):
        verdict: Verdict = Verifier(trail.store.connection, lambda _events: None).run()
    assert verdict.findings == []
    assert verdict.removed == trail.counters()["pruned"] > 0


@pytest.mark.parametrize("hidden_by", ["more events", "fewer collapsed", "a redaction"])
def test_a_partly_collapsed_removal_does_not_cover_another_event(
    trail: Trail, hidden_by: str
) -> None:
    """Whoever has the key can keep the event's hash, so that no root and no anchor changes."""
    fill(trail, 300)
    trail.finish(trail.ask(PRUNE, before=ALL))
    fill(trail, 5)
    connection = trail.store.connection
    (removal,) = connection.execute(
        "SELECT max(id) FROM removal WHERE waiting_events > 1"
    ).fetchone()
    (event,) = connection.execute(
        "SELECT max(first_event) FROM batch WHERE events > 1 AND id > 302"
    ).fetchone()
    names = event_removal._Names(connection)
    rows_ = event_removal._rows(connection, [event])
    removal_log.keep_leaves(connection, {event: names.leaf(rows_[0])})
    assert trail.findings() != []
    if hidden_by == "a redaction":
        changed = (*rows_[0][:6], b"\x80", rows_[0][7])
        connection.execute("UPDATE event SET props = x'80' WHERE id = ?", (event,))
        connection.execute(
            "INSERT INTO redacted VALUES (?, ?, ?)", (event, removal, names.leaf(changed))
        )
    else:
        event_removal._subtract_rollups(connection, rows_)
        connection.execute("DELETE FROM event WHERE id = ?", (event,))
        event_removal._narrow_blocks(connection, rows_)
        connection.execute("INSERT INTO removed VALUES (?, ?, ?)", (event, event, removal))
    if hidden_by == "more events":
        connection.execute("UPDATE removal SET events = events + 1 WHERE id = ?", (removal,))
        connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'pruned'")
    elif hidden_by == "fewer collapsed":
        connection.execute(
            "UPDATE removal SET waiting_events = waiting_events - 1 WHERE id = ?", (removal,)
        )
        connection.execute("UPDATE counter SET value = value - 1 WHERE name = 'stored'")
    assert verify(connection).findings != []


def test_a_removed_event_among_collapsed_ones_is_reported_and_ends_a_prune(trail: Trail) -> None:
    fill(trail, 900)
    trail.finish(trail.ask(PRUNE, before=ALL))
    connection = trail.store.connection
    (removal,) = connection.execute(
        "SELECT max(id) FROM removal WHERE collapsed_events > 1"
    ).fetchone()
    (event,) = connection.execute("SELECT first_event + 1 FROM batch WHERE id = 751").fetchone()
    connection.execute("INSERT INTO removed VALUES (?, ?, ?)", (event, event, removal))
    connection.execute(
        "UPDATE removal SET collapsed_events = collapsed_events - 1 WHERE id = ?", (removal,)
    )
    findings = trail.findings()
    assert any("removals record that of" in finding for finding in findings), findings
    for steps, _ in enumerate(collapse.collapse(trail.store, lambda: 45 * DAY_NS)):
        assert steps < 20, "a tile is looked at once"


def test_a_redaction_stays_verified_when_a_redacted_event_is_collapsed(trail: Trail) -> None:
    """The place of a collapsed redaction cannot be given to another event."""
    fill(trail, 300)
    connection = trail.store.connection
    redacted = [
        row[0] for row in connection.execute("SELECT id FROM event ORDER BY id LIMIT 5").fetchall()
    ]
    steps = event_removal.Steps(trail.store, lambda: 45 * DAY_NS)
    steps.redact(dict.fromkeys(redacted, b"\x80"), lambda _connection: None)
    trail.finish(trail.ask(PRUNE, before=ALL))
    fill(trail, 5)
    assert trail.findings() == []
    assert rows(trail, "collapse") > 0
    (removal,) = connection.execute("SELECT id FROM removal WHERE kind = 'erased'").fetchone()
    (event,) = connection.execute(
        "SELECT max(first_event) FROM batch WHERE events > 1 AND id > 302"
    ).fetchone()
    names = event_removal._Names(connection)
    row = event_removal._rows(connection, [event])[0]
    removal_log.keep_leaves(connection, {event: names.leaf(row)})
    connection.execute("UPDATE event SET props = x'80' WHERE id = ?", (event,))
    leaf = names.leaf((*row[:6], b"\x80", row[7]))
    connection.execute("DELETE FROM redacted WHERE event = ?", (redacted[0],))
    connection.execute("INSERT INTO redacted VALUES (?, ?, ?)", (event, removal, leaf))
    findings = verify(connection).findings
    assert any("what it took out was changed" in finding for finding in findings), findings
