"""A batch: what it counts, what it has capacity for, and when it is full."""

from __future__ import annotations

import pytest

from logd.batch import (
    EXCERPT_BYTES_MAX,
    LOST_CLAIMED,
    LOST_DAMAGED,
    REASON_CHARS_MAX,
    Batch,
    Capacity,
    Loss,
    Producer,
    QuarantineEntry,
)
from logd_wire.schema import INT64_MAX
from logd_wire.wire import Event

EVENT = Event("page_view", 1, "7", b"")


def test_every_entry_and_its_bytes_are_counted() -> None:
    batch, producer, other = Batch(100, 10_000), Producer(1, 1, 0), Producer(1, 2, 0)
    assert not batch
    batch.add(producer, 1, EVENT, 100)
    batch.add(producer, 2, EVENT, 20)
    assert (batch.entries, batch.bytes, list(batch.producers)) == (2, 120, [producer])
    batch.extend(other, [(other, 1, EVENT), (other, 2, EVENT)], 30)
    batch.extend(Producer(1, 3, 0), [], 1000)  # nothing of it
    assert (batch.entries, batch.bytes, list(batch.producers)) == (4, 150, [producer, other])
    batch.add_quarantine(5, 6, "malformed", b"abc")
    assert (batch.entries, batch.bytes) == (5, 150 + 3 + 64)
    batch.add_loss(other, 3, 4, LOST_DAMAGED)
    assert (batch.entries, batch.bytes) == (6, 150 + 3 + 64 + 64)
    assert batch.events[1] == (producer, 2, EVENT)
    assert batch.losses == [Loss(other, 3, 4, LOST_DAMAGED)]


@pytest.mark.parametrize("what", ["event", "refusal", "loss", "note"])
def test_a_batch_with_anything_in_it_is_one(what: str) -> None:
    batch, producer = Batch(100, 10_000), Producer(1, 1, 0)
    assert bool(batch) is False
    if what == "event":
        batch.add(producer, 1, EVENT, 1)
    elif what == "refusal":
        batch.add_quarantine(1, 2, "malformed", b"")
        assert not batch.producers, "it is nobody's number"
    elif what == "loss":
        batch.add_loss(producer, 1, 1, LOST_DAMAGED)
    else:
        batch.touch(producer)
    if what != "refusal":
        assert list(batch.producers) == [producer]
    assert bool(batch) is True


def test_a_refusal_keeps_who_sent_what_and_whose_number_it_used_up() -> None:
    batch, producer = Batch(100, 10_000), Producer(1, 1, 0)
    data = bytes(range(256)) * 2
    batch.add_quarantine(5, 6, "r" * 500, data, producer, 7)
    assert batch.quarantine_entries == [
        QuarantineEntry(5, 6, "r" * REASON_CHARS_MAX, data[:EXCERPT_BYTES_MAX], 512, producer, 7)
    ]
    assert list(batch.producers) == [producer]
    assert batch.bytes == EXCERPT_BYTES_MAX + 64


def test_a_claim_beyond_the_bound_is_a_loss_without_a_number() -> None:
    batch, producer = Batch(100, 10_000, loss_events_max=10), Producer(1, 1, 0)
    batch.add_loss(producer, 5, 14, LOST_DAMAGED)
    batch.add_loss(producer, 15, 25, LOST_DAMAGED)
    batch.add_loss(producer, 30, None, LOST_DAMAGED)
    batch.add_loss(producer, INT64_MAX + 5, INT64_MAX + 5, LOST_CLAIMED)
    batch.add_loss(producer, 40, 41, LOST_CLAIMED)
    assert [(loss.first, loss.last, loss.events) for loss in batch.losses] == [
        (5, 14, 10),
        (15, None, None),
        (30, None, None),
        (INT64_MAX, INT64_MAX + 5, 6),
        (40, 41, 2),
    ]
    assert {loss.producer for loss in batch.losses} == {producer}
    assert (batch.lost(claimed=False), batch.lost(claimed=True)) == (10, 8)


def test_a_copy_has_other_events_and_everything_else() -> None:
    batch, producer = Batch(10, 1000, loss_events_max=2), Producer(1, 1, 0)
    batch.add(producer, 1, EVENT, 10)
    batch.add_loss(producer, 2, 2, LOST_DAMAGED)
    batch.add_quarantine(1, 2, "malformed", b"x")
    batch.duplicates = 3
    made = batch.copy([])
    assert (made.events, made.losses, made.quarantine_entries) == (
        [],
        batch.losses,
        batch.quarantine_entries,
    )
    assert (made.producers, made.duplicates) == (batch.producers, 3)
    assert made.producers is not batch.producers
    assert made.capacity() == Capacity(8, 1000)
    made.add_loss(producer, 10, 12, LOST_DAMAGED)
    assert made.losses[-1].last is None, "the bound of losses is the same"


def test_a_commit_moves_the_watermarks_of_all_that_it_touched() -> None:
    batch, producer, other = Batch(10, 1000), Producer(1, 1, 0), Producer(1, 2, 0)
    producer.taken, other.taken = 5, 7
    batch.touch(producer)
    batch.mark_committed()
    assert (producer.stored, other.stored) == (5, 0)


def test_room_is_what_is_left_and_never_less_than_a_part_that_is_asked_for() -> None:
    batch, producer = Batch(10, 100), Producer(1, 1, 0)
    assert batch.capacity() == Capacity(10, 100)
    batch.add(producer, 1, EVENT, 30)
    assert batch.capacity() == Capacity(9, 70)
    assert batch.capacity(at_least=4) == Capacity(9, 70)
    for number in range(2, 13):
        batch.add(producer, number, EVENT, 10)
    assert batch.capacity() == Capacity(0, 0)
    assert batch.capacity(at_least=4) == Capacity(2, 25)
    assert batch.capacity(at_least=3) == Capacity(3, 33)
    assert batch.capacity(at_least=100) == Capacity(1, 1)


def test_a_part_of_the_room_is_never_nothing() -> None:
    assert Capacity(10, 100).share(3) == Capacity(3, 33)
    assert Capacity(1, 2).share(3) == Capacity(1, 1)
    assert Capacity(0, 0).share(3) == Capacity(1, 1)
    assert [bool(Capacity(*pair)) for pair in ((1, 1), (0, 1), (1, 0))] == [True, False, False]


@pytest.mark.parametrize(("entries", "size"), [(5, 0), (0, 50)])
def test_it_is_filled_to_a_part_by_entries_or_by_bytes(entries: int, size: int) -> None:
    batch, producer = Batch(10, 100), Producer(1, 1, 0)
    for number in range(entries):
        batch.add(producer, number, EVENT, 0)
    batch.bytes = size
    assert batch.is_filled_to(1 / 2)
    assert not batch.is_filled_to(1)
    assert not batch.full
    half = Batch(11, 101)
    half.events, half.bytes = batch.events, size
    assert not half.is_filled_to(1 / 2), "one short of half"
    half.bytes = 101
    assert half.full


def test_a_producer_is_shown_as_uid_and_id() -> None:
    assert Producer(1000, 0xABC, 0).label == "1000-0000000000000abc"
