"""The rows of a batch, computed without a database."""

from __future__ import annotations

from logd.batch import LOST_CLAIMED, Batch, Producer
from logd.storage import batch_hash, batch_rows, merkle
from logd.storage.batch_rows import LastRows
from logd_wire.wire import Event

LAST = LastRows(4, 100, merkle.Growing(4, [b"h" * 32]), producer=7, quarantine=3)
TYPES = {"login": 1, "page_view": 2}


def made(key: int, row: int | None = None) -> Producer:
    producer = Producer(uid=1000, id=key, seed=0)
    producer.row = row
    return producer


def filled(*producers: Producer) -> Batch:
    batch = Batch(100, 10**6)
    for producer in producers:
        for kind in TYPES:
            producer.taken += 1
            batch.add(producer, producer.taken, Event(kind, 5, "7", b"\x80"), 1)
    return batch


def test_rows_are_numbered_from_the_last_ones() -> None:
    known, new = made(1, row=2), made(2)
    batch = filled(known, new)
    batch.add_quarantine(1000, 9, "too large", b"x" * 10, new, 3)
    batch.add_loss(known, 3, 4, LOST_CLAIMED)
    rows = batch_rows.build(batch, TYPES, LAST, 6, "boot", quarantine_rows_max=10)
    assert rows.ids == {known: 2, new: 8}
    assert [row[0] for row in rows.new_producers] == [8]
    assert [row[-1] for row in rows.known_producers] == [2]
    assert rows.events[::8] == [101, 102, 103, 104]
    assert rows.events[4::8] == [1, 2, 1, 2]
    assert rows.batch is not None
    assert rows.batch[:4] == (5, 6, 101, 4)
    assert rows.losses == [(5, 2, 3, 4, LOST_CLAIMED, 6)]
    assert (rows.quarantine[0], rows.quarantine[5]) == (4, 8)
    salts = rows.events[7::8]
    assert rows.leaves == [
        merkle.leaf_hash(
            batch_hash.event_data(bytes(salt), number, label, sequence, 5, kind, "7", b"\x80")
        )
        for number, (salt, label, sequence, kind) in enumerate(
            zip(
                salts,
                (known.label, known.label, new.label, new.label),
                (1, 2, 1, 2),
                [*TYPES, *TYPES],
                strict=True,
            ),
            start=101,
        )
    ]
    assert rows.last == LastRows(5, 104, merkle.Growing(5, [b"h" * 32, rows.batch[-1]]), 8, 4)


def test_late_events_use_up_an_id_and_are_hashed_but_not_stored() -> None:
    batch, late = filled(made(1), made(2)), frozenset({0, 2})
    rows = batch_rows.build(batch, TYPES, LAST, 6, "boot", late=late, quarantine_rows_max=10)
    assert rows.events[::8] == [102, 104]
    assert len(rows.leaves) == 4
    assert rows.batch is not None
    assert rows.batch[4] == merkle.root(rows.leaves)
    assert rows.last.event == 104
    runs = batch_rows.stored_runs(101, batch, late)
    assert list(runs) == [(102, batch.events[1:2]), (104, batch.events[3:])]
    assert list(batch_rows.stored_runs(101, batch, frozenset())) == [(101, batch.events)]


def test_a_batch_without_events_or_losses_has_no_row_and_leaves_the_tree() -> None:
    batch = Batch(100, 10**6)
    batch.add_quarantine(1000, 9, "no record", b"x")
    rows = batch_rows.build(batch, TYPES, LAST, 6, "boot", quarantine_rows_max=10)
    assert (rows.batch, rows.leaves, rows.events) == (None, [], [])
    assert rows.last == LastRows(4, 100, LAST.tree, 7, 4)


def test_of_the_quarantine_only_the_newest_rows_are_made() -> None:
    batch = Batch(100, 10**6)
    for number in range(5):
        batch.add_quarantine(1000, 9, str(number), b"x")
    rows = batch_rows.build(batch, TYPES, LAST, 6, "boot", quarantine_rows_max=2)
    assert rows.quarantine[::9] == [7, 8]
    assert (rows.quarantine_first, rows.last.quarantine) == (7, 8)


def test_the_256th_batch_completes_a_node_of_the_tree() -> None:
    last = LastRows()
    leaves, nodes = [], []
    for number in range(512):
        batch = Batch(100, 10**6)
        producer = made(1, row=1)
        batch.add(producer, number + 1, Event("login", 5, "7", b"\x80"), 1)
        rows = batch_rows.build(batch, TYPES, last, 6, "boot", quarantine_rows_max=2)
        assert rows.batch is not None
        leaves.append(rows.batch[-1])
        nodes += rows.nodes
        last = rows.last
    assert nodes == [(8, n, merkle.root(leaves[256 * n : 256 * (n + 1)])) for n in (0, 1)]
    assert last.tree.root() == merkle.root(leaves)
