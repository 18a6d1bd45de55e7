"""Per-producer ordering, without sockets or files: what becomes of each record of a datagram."""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logd.batch import LOST_BEGINNING_UNKNOWN, LOST_NOT_RECEIVED, Batch, Producer
from logd.ingest.ordering import Intake
from logd_wire.outbox.layout import WORD_CONFIRMED_POSITION, WORD_CONFIRMED_SEQUENCE
from logd_wire.schema import REPORT_READ
from logd_wire.wire import (
    KIND_AWAITED,
    RECORD_HEAD,
    datagram_head,
    decode_record,
    encode_farewell,
    encode_record,
    producer_seed,
)
from tests.logd.ordering_parts import (
    ID,
    UID,
    Shared,
    batch_of,
    datagram,
    losses,
    new_intake,
    new_producer,
    payload,
    sequences,
    whole,
)


def test_the_next_is_taken_an_old_one_ignored_and_many_in_one_datagram_are_many() -> None:
    producer, batch = new_producer(), batch_of()
    intake = new_intake(producer)
    intake.take_datagram(datagram(1), UID, 5, batch)
    intake.take_datagram(datagram(1), UID, 5, batch)
    several = datagram(2) + datagram(3)[16:] + datagram(4)[16:]
    intake.take_datagram(several, UID, 5, batch)
    assert sequences(batch) == [1, 2, 3, 4]
    assert (batch.duplicates, producer.pid) == (1, 5)


def test_thousands_of_old_records_in_a_datagram_are_recognised_by_their_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the first of each slice is decoded; what follows them is taken."""
    decoded = 0

    def counting(data: bytes, offset: int, seed: int) -> tuple[int, bytes, int]:
        nonlocal decoded
        decoded += 1
        return decode_record(data, offset, seed)

    producer, batch = new_producer(taken=3), batch_of()
    intake = new_intake(producer)
    monkeypatch.setattr("logd.ingest.ordering.decode_record", counting)
    old = (datagram(1)[16:] + datagram(3)[16:]) * 1000
    slices = whole(datagram_head(ID) + old + datagram(4)[16:] + datagram(5)[16:], intake, batch)
    assert sequences(batch) == [4, 5]
    assert batch.duplicates == 2000
    assert intake.ignored.duplicates.counts == {(UID, 5): 2000}
    assert decoded == slices + 2


def test_early_records_of_a_producer_with_an_outbox_are_recognised_by_their_heads() -> None:
    """After the first, a damaged record is skipped like a whole one."""
    producer, batch = new_producer(taken=3), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    broken = datagram(6)[16:-1] + b"x"
    early = datagram(6)[16:] + broken * 199
    assert whole(datagram_head(ID) + early + datagram(4)[16:], intake, batch) == 1
    assert sequences(batch) == [4] and producer.behind and losses(batch) == []
    assert intake.ignored.early.counts == {(UID, 5): 200}


@pytest.mark.parametrize(
    "head",
    [
        RECORD_HEAD.pack(8, 0, 0),  # no sequence is 0
        RECORD_HEAD.pack(8, 0, 2**63),  # nor so high
        RECORD_HEAD.pack(8, 0, 4),  # the next one, and damaged
        RECORD_HEAD.pack(40_000, 0, 1),  # longer than any
        RECORD_HEAD.pack(100, 0, 1),  # longer than what there is
        RECORD_HEAD.pack(0, 0, 1)[:10],  # not whole
    ],
)
def test_an_invalid_record_after_old_ones_is_refused(head: bytes) -> None:
    producer, batch = new_producer(taken=3), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    whole(datagram_head(ID) + datagram(1)[16:] * 3 + head + b"x" * 8, intake, batch)
    assert (batch.duplicates, len(batch.quarantine_entries), producer.taken) == (3, 1, 3)


def test_a_farewell_that_means_nothing_is_counted_by_its_sender() -> None:
    producer, batch = new_producer(taken=3), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    intake.take_datagram(encode_farewell(ID, 9, {}), UID, 5, batch)
    assert not batch and not producer.ended
    assert intake.ignored.farewells.counts == {(UID, 5): 1}


def test_a_farewell_that_comes_again_is_counted_by_its_sender() -> None:
    producer, batch = new_producer(taken=3), batch_of()
    intake = new_intake(producer)
    for last in (3, 3, 2):
        intake.take_datagram(encode_farewell(ID, last, {"malformed": 2}), UID, 5, batch)
    assert producer.ended and producer.refused == {"malformed": 2} and losses(batch) == []
    assert intake.ignored.farewells.counts == {(UID, 5): 2}


def test_only_what_is_not_on_the_disk_yet_is_waited_for() -> None:
    """Records that were stored long ago, sent as awaited, hurry no commit of others' events."""
    producer, batch = new_producer(taken=3), batch_of()
    intake = new_intake(producer)
    awaited = datagram_head(ID, KIND_AWAITED)
    intake.take_datagram(awaited + datagram(3)[16:], UID, 5, batch)
    assert batch.awaited == set()
    intake.take_datagram(awaited + datagram(4)[16:], UID, 5, batch)
    assert batch.awaited == {UID}
    batch.awaited.clear()
    intake.take_datagram(awaited + datagram(4)[16:], UID, 5, batch)
    assert batch.awaited == {UID}, "read from the outbox meanwhile, it is in this batch"


def test_a_gap_without_an_outbox_is_a_loss_by_number() -> None:
    producer, batch = new_producer(), batch_of()
    intake = new_intake(producer)
    for sequence in (1, 4, 9):
        intake.take_datagram(datagram(sequence), UID, 5, batch)
    assert sequences(batch) == [1, 4, 9]
    assert losses(batch) == [(2, 3, LOST_NOT_RECEIVED), (5, 8, LOST_NOT_RECEIVED)]


def test_a_gap_with_an_outbox_is_read_from_it_and_nothing_is_lost() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    shared.write(5)
    for sequence in (1, 4, 5):
        intake.take_datagram(datagram(sequence), UID, 5, batch)
    assert sequences(batch) == [1] and producer.behind
    assert shared.read(producer, batch, intake) is None
    assert sequences(batch) == [1, 2, 3, 4, 5]
    assert losses(batch) == []


def test_a_farewell_books_what_never_came_and_only_once() -> None:
    producer, batch = new_producer(), batch_of()
    intake = new_intake(producer)
    intake.take_datagram(datagram(1), UID, 5, batch)
    for _ in range(2):
        intake.take_datagram(encode_farewell(ID, 3, {"malformed": 2}), UID, 5, batch)
    assert losses(batch) == [(2, 3, LOST_NOT_RECEIVED)]
    assert producer.ended and producer.refused == {"malformed": 2}


def test_a_loss_is_booked_for_what_a_farewell_counts_and_not_twice() -> None:
    producer, batch = new_producer(taken=3), Batch(10, 10**6)
    intake = new_intake(producer)
    data = encode_farewell(ID, 9, {})
    for _ in range(2):
        intake.take_datagram(data, UID, 5, batch)
    assert losses(batch) == [(4, 9, LOST_NOT_RECEIVED)]


def test_an_old_client_of_a_new_database_continues_with_its_beginning_unknown() -> None:
    """Its first number is past every bound; if it were refused, all later ones would be too."""
    producer, batch = new_producer(), batch_of()
    intake = new_intake(producer, gap_events_max=100)
    for sequence in (5000, 5001, 9000, 5002):
        intake.take_datagram(datagram(sequence), UID, 5, batch)
    assert sequences(batch) == [5000, 5001, 5002]
    assert losses(batch) == [(1, None, LOST_BEGINNING_UNKNOWN)]
    assert [refusal.reason for refusal in batch.quarantine_entries] == [
        "sequence jumps: from 5001 to 9000"
    ]


def test_a_farewell_datagram_never_ends_a_producer_that_has_an_outbox() -> None:
    """Any process of its user may send one: its outbox would be taken for read to the end."""
    for last in (0, 5, 6, 50):
        producer, batch = new_producer(5), batch_of()
        producer.has_outbox = True
        intake = new_intake(producer)
        intake.take_datagram(encode_farewell(ID, last, {"malformed": 2}), UID, 5, batch)
        assert not batch
        assert (producer.ended, producer.taken, producer.refused) == (False, 5, {})


def test_a_sender_that_the_kernel_does_not_name_is_quarantined() -> None:
    """Queued before credentials were asked for: the same event comes again from its outbox."""
    producer, batch = new_producer(), batch_of()
    new_intake(producer).take_datagram(datagram(1), 65534, 0, batch)
    assert sequences(batch) == []
    assert [refusal.reason for refusal in batch.quarantine_entries] == ["sender unknown"]


# -- the bound on producers ----------------------------------------------------------------------


def test_producers_invented_without_end_stay_bounded() -> None:
    intake = Intake(lambda uid, n: Producer(uid, n, producer_seed(n)), 10)
    for number in range(25_000):
        record = encode_record(producer_seed(number), 1, payload(1))
        batch = batch_of()
        intake.take_datagram(datagram_head(number) + record, UID, 5, batch)
        for producer in batch.producers:
            producer.stored = producer.taken
        intake.trim(batch_of())  # as in the next step
    assert len(intake.producers) <= 10_000


def test_producers_that_only_repeat_what_is_stored_stay_bounded_too() -> None:
    """Ended producers, loaded again from the database: they make no batch, so none is committed."""
    intake = Intake(lambda uid, n: Producer(uid, n, producer_seed(n), 1, stored=1, taken=1), 10)
    batch = batch_of()
    for number in range(25_000):
        record = encode_record(producer_seed(number), 1, payload(1))
        intake.take_datagram(datagram_head(number) + record, UID, 5, batch)
        intake.trim(batch)
    assert (batch.duplicates, bool(batch)) == (25_000, False)
    assert len(intake.producers) <= 10_000


def test_a_producer_in_the_batch_at_hand_is_not_forgotten() -> None:
    """Loaded again, it would be stored as two."""
    intake = Intake(lambda uid, n: Producer(uid, n, producer_seed(n)), 10)
    batch, other = batch_of(), batch_of()
    for number in range(10, 7000):
        intake.producer(UID, number)
    intake.take_datagram(encode_farewell(1, 0, {"malformed": 1}), UID, 5, batch)
    (first,) = batch.producers
    for number in range(7000, 25_000):
        intake.producer(UID, number)
        intake.trim(batch)
    assert intake.producer(UID, 1) is first
    intake.trim(other)
    assert len(intake.producers) <= 10_000


def test_a_farewell_of_a_producer_that_sent_nothing_leaves_nothing() -> None:
    """Otherwise a datagram of 36 bytes would make a row for ever."""
    intake = Intake(lambda uid, n: Producer(uid, n, producer_seed(n)), 10)
    batch = batch_of()
    for number in range(100):
        intake.take_datagram(encode_farewell(number, 0, {}), UID, 5, batch)
    assert not batch
    assert intake.producers == {}
    intake.take_datagram(encode_farewell(7, 0, {"malformed": 2}), UID, 5, batch)
    (producer,) = batch.producers
    assert producer.ended and producer.refused == {"malformed": 2}


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(0, 5))
def test_whatever_arrives_in_whatever_order_no_number_is_taken_twice(
    arrivals: list[int], taken: int
) -> None:
    producer, batch = new_producer(taken), batch_of()
    intake = new_intake(producer)
    for sequence in arrivals:
        intake.take_datagram(datagram(sequence), UID, 5, batch)
    got = sequences(batch)
    lost = [n for first, last, _ in losses(batch) for n in range(first, (last or first) + 1)]
    assert got == sorted(set(got))
    assert sorted(got + lost) == list(range(taken + 1, producer.taken + 1))
    assert len(got) + batch.duplicates == len(arrivals)


# -- datagrams and outbox together, with a seed --------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_datagrams_and_outbox_together_store_each_event_once_and_in_order(seed: int) -> None:
    """Emits, drops, delays, commits, failed commits and restarts in a random order."""
    rng = random.Random(seed)
    shared = Shared()
    disk: list[int] = []
    queue: list[bytes] = []
    accepted = 0
    producer, batch = new_producer(), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)

    def commit() -> None:
        nonlocal batch
        disk.extend(sequences(batch))
        producer.stored = producer.taken
        if rng.random() < 0.8:  # else killed before the confirmation
            shared.words[WORD_CONFIRMED_SEQUENCE] = producer.stored
            shared.words[WORD_CONFIRMED_POSITION] = producer.position
        batch = batch_of()

    def restart() -> None:
        nonlocal producer, batch, intake
        producer, batch = new_producer(disk[-1] if disk else 0), batch_of()
        producer.has_outbox = True
        intake = new_intake(producer)
        if rng.random() < 0.5:
            queue.clear()  # no parent held the socket
        shared.locate_next(producer, batch)

    for _ in range(rng.randrange(200)):
        action = rng.random()
        if action < 0.5:
            record = shared.writer.append(payload(accepted + 1))
            if record is not None:
                accepted += 1
                if len(queue) < 5:
                    queue.append(datagram_head(ID) + record)
        elif action < 0.75 and queue:
            intake.take_datagram(queue.pop(0), UID, 5, batch)
        elif action < 0.85:
            shared.read(producer, batch, intake)
        elif action < 0.95:
            commit()
        else:
            restart()
    restart()
    assert shared.read(producer, batch, intake) is None
    commit()
    assert disk == list(range(1, accepted + 1))


# -- what only logd may log ----------------------------------------------------------------------


def reading(event_type: str = REPORT_READ, user: object = "7") -> bytes:
    return bytes(msgpack.packb([event_type, 5, user, b"\x80"]))


@pytest.mark.parametrize("road", ["datagram", "outbox"])
@pytest.mark.parametrize(
    ("own_uid", "payload", "stored"),
    [
        (UID, reading(), True),
        (UID + 1, reading(), False),
        (None, reading(), False),
        (UID, reading("trail_restored"), False),
        (UID, reading(user=""), False),
    ],
)
def test_a_report_read_event_is_accepted_from_logds_own_user_alone(
    road: str, own_uid: int | None, payload: bytes, stored: bool
) -> None:
    producer, batch = new_producer(), Batch(10, 10**6)
    intake = Intake(lambda _uid, _id: producer, 10, own_uid)
    if road == "datagram":
        data = datagram_head(ID) + encode_record(producer_seed(ID), 1, payload)
        intake.take_datagram(data, UID, 5, batch)
    else:
        intake.take_outbox_records(producer, [payload], batch)
    assert producer.taken == 1, "it uses up its number"
    assert sequences(batch) == ([1] if stored else [])
    assert len(batch.quarantine_entries) == (not stored)
