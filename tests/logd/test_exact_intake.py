"""Ignored records, farewells and steps, at the exact numbers where a decision changes."""

from __future__ import annotations

import msgpack
import pytest

from logd.batch import LOST_BEGINNING_UNKNOWN, LOST_NOT_RECEIVED, Batch, Producer
from logd.ingest.drain import CHARGE_BYTES_MIN, CHARGE_DATAGRAMS, Datagram, Drain
from logd.ingest.ordering import SLICE_BYTES, Intake
from logd.ingest.step_budget import STEP_BYTES_MAX, STEP_RECORDS_MAX, STEP_S_MAX
from logd_wire.schema import PAYLOAD_BYTES_MAX
from logd_wire.wire import (
    DATAGRAM_BYTES_MAX,
    RECORD_HEAD,
    SEQUENCE_MAX,
    datagram_head,
    encode_farewell,
    encode_record,
    pack_payload,
    producer_seed,
)

ID, UID, PID, GAP = 7, 1000, 55, 1000
SEED = producer_seed(ID)


def producer_at(taken: int, *, has_outbox: bool) -> Producer:
    return Producer(UID, ID, SEED, stored=taken, taken=taken, pid=PID, has_outbox=has_outbox)


def take(producer: Producer, *records: bytes) -> tuple[Intake, Batch]:
    """Takes all records from one datagram, after a duplicate."""
    intake, batch = Intake(lambda _uid, _id: producer, GAP), Batch(100, 10**6)
    data = datagram_head(ID) + record(1) + b"".join(records)
    offset = intake.take_datagram(data, UID, PID, batch)
    while offset:  # a call decodes one slice
        offset = intake.take_datagram(data, UID, PID, batch, offset)
    return intake, batch


def record(sequence: int, extra: int = 0) -> bytes:
    props = {"text": "x" * extra} if extra else None
    payload = pack_payload(msgpack.Packer(), "page_view", 1, None, props)
    return encode_record(SEED, sequence, payload)


def test_what_is_known_is_counted_up_to_the_watermark_and_the_next_is_taken() -> None:
    for has_outbox in (False, True):
        producer = producer_at(5, has_outbox=has_outbox)
        intake, batch = take(producer, *map(record, (2, 5, 5, 6)))
        assert [sequence for _, sequence, _ in batch.events] == [6]
        assert (batch.duplicates, intake.ignored.duplicates.total) == (4, 4)
        assert (intake.ignored.early.total, producer.behind) == (0, False)
        assert intake.ignored.duplicates.counts == {(UID, PID): 4}


def test_what_lies_past_a_gap_is_early_with_an_outbox_and_a_loss_without() -> None:
    producer = producer_at(5, has_outbox=True)
    intake, batch = take(producer, *map(record, (7, 7, 8)))
    assert (intake.ignored.early.counts, producer.behind) == ({(UID, PID): 3}, True)
    assert (batch.events, batch.losses, batch.quarantine_entries) == ([], [], [])
    producer = producer_at(5, has_outbox=False)
    intake, batch = take(producer, *map(record, (7, 8)))
    assert (intake.ignored.early.total, producer.behind) == (0, False)
    assert [sequence for _, sequence, _ in batch.events] == [7, 8]
    assert [(loss.first, loss.last, loss.cause) for loss in batch.losses] == [
        (6, 6, LOST_NOT_RECEIVED)
    ]


@pytest.mark.parametrize("has_outbox", [False, True])
def test_a_record_that_is_cut_short_behind_ignored_ones_is_refused(has_outbox: bool) -> None:
    for cut in (1, len(record(3)) - RECORD_HEAD.size, len(record(3)) - 1):
        intake, batch = take(producer_at(5, has_outbox=has_outbox), record(2), record(3)[:-cut])
        assert len(batch.quarantine_entries) == 1, cut
        assert intake.ignored.duplicates.total == 2


def test_ignored_records_of_any_size_are_passed_over_to_the_last_byte() -> None:
    short = len(record(2, 300)) - RECORD_HEAD.size  # from 256 bytes on a text has the same head
    large = PAYLOAD_BYTES_MAX - short + 300
    assert len(record(2, large)) == RECORD_HEAD.size + PAYLOAD_BYTES_MAX
    intake, batch = take(producer_at(5, has_outbox=True), record(2, large), record(3))
    assert (intake.ignored.duplicates.total, batch.quarantine_entries) == (3, [])


def test_what_is_read_from_an_outbox_is_counted_with_its_bytes_and_refusals() -> None:
    producer = producer_at(5, has_outbox=True)
    intake, batch = Intake(lambda _uid, _id: producer, GAP), Batch(100, 10**6)
    good = pack_payload(msgpack.Packer(), "page_view", 1, None, None)
    more = pack_payload(msgpack.Packer(), "page_view", 1, "7", {"n": 1})
    intake.take_outbox_records(producer, [good, b"\xc1", more], batch)
    assert [sequence for _, sequence, _ in batch.events] == [6, 8]
    ((uid, pid, refused, sequence),) = (
        (one.uid, one.pid, one.excerpt, one.sequence) for one in batch.quarantine_entries
    )
    assert (uid, pid, refused, sequence) == (UID, PID, b"\xc1", 7)
    assert batch.bytes == len(good) + len(more) + 1 + 64
    assert producer.taken == 8


def test_a_gap_is_a_loss_up_to_the_most_events_that_may_be_missing() -> None:
    for taken in (0, 5):
        for missing in (1, GAP - 1, GAP):
            producer, batch = producer_at(taken, has_outbox=False), Batch(100, 10**6)
            data = datagram_head(ID) + record(taken + missing + 1)
            assert offered(producer, data, batch) == taken + missing + 1
            assert [(loss.first, loss.last, loss.cause) for loss in batch.losses] == [
                (taken + 1, taken + missing, LOST_NOT_RECEIVED)
            ]
    producer, batch = producer_at(5, has_outbox=False), Batch(100, 10**6)
    assert offered(producer, datagram_head(ID) + record(5 + GAP + 2), batch) == 5
    assert [one.reason for one in batch.quarantine_entries] == [
        f"sequence jumps: from 5 to {5 + GAP + 2}"
    ]
    producer, batch = producer_at(0, has_outbox=False), Batch(100, 10**6)
    assert offered(producer, datagram_head(ID) + record(GAP + 2), batch) == GAP + 2
    assert [(loss.first, loss.last, loss.cause) for loss in batch.losses] == [
        (1, None, LOST_BEGINNING_UNKNOWN)
    ]


@pytest.mark.parametrize(
    ("data", "pid", "reason"),
    [
        (
            b"?" * (DATAGRAM_BYTES_MAX + 1),
            PID,
            f"oversize datagram: {DATAGRAM_BYTES_MAX + 1} bytes",
        ),
        (datagram_head(ID) + record(1), 0, "sender unknown"),
        (datagram_head(ID), PID, "datagram without a record"),
    ],
)
def test_a_datagram_that_is_refused_whole_is_refused_by_its_sender_with_the_reason(
    data: bytes, pid: int, reason: str
) -> None:
    batch = Batch(100, 10**6)
    intake = Intake(lambda _uid, _id: producer_at(0, has_outbox=False), GAP)
    assert intake.take_datagram(data, UID, pid, batch) == 0
    assert [(one.uid, one.pid, one.reason, one.bytes) for one in batch.quarantine_entries] == [
        (UID, pid, reason, len(data))
    ]
    assert (batch.events, intake.producers) == ([], {})


def test_another_users_producer_id_is_refused_unless_it_was_heard_of_before() -> None:
    data, batch = datagram_head(ID) + record(1), Batch(100, 10**6)
    owner = UID + 1
    intake = Intake(lambda uid, one: Producer(uid, one, SEED, has_outbox=uid == owner), GAP)
    known = intake.producer(UID, ID)
    intake.producer(owner, ID)
    intake.take_datagram(data, UID, PID, batch)
    assert (known.taken, batch.quarantine_entries) == (1, [])
    intake.take_datagram(data, UID + 2, PID, batch)
    assert [(one.uid, one.reason) for one in batch.quarantine_entries] == [
        (UID + 2, f"another user's producer id: it has an outbox of uid {owner}")
    ]
    assert (UID + 2, ID) not in intake.producers


def test_a_datagram_of_the_largest_size_is_taken() -> None:
    large = encode_record(SEED, 1, bytes(PAYLOAD_BYTES_MAX))
    count, rest = divmod(DATAGRAM_BYTES_MAX - len(datagram_head(ID) + record(1)), len(large))
    assert rest >= RECORD_HEAD.size
    last = encode_record(SEED, 1, bytes(rest - RECORD_HEAD.size))
    intake, batch = take(producer_at(5, has_outbox=True), large * count, last)
    assert (batch.quarantine_entries, intake.ignored.duplicates.total) == ([], count + 2)


def test_behind_a_record_that_is_taken_the_next_is_decoded_whatever_its_number() -> None:
    intake, batch = take(producer_at(5, has_outbox=True), record(6), unchecked(2))
    assert (len(batch.events), len(batch.quarantine_entries)) == (1, 1)
    assert intake.ignored.duplicates.total == 1


@pytest.mark.parametrize(
    ("kept", "known", "left"), [(0, 9, 9), (0, 10, 5), (2, 11, 11), (2, 12, 7)]
)
def test_idle_producers_past_a_bound_are_halved_beside_those_to_keep(
    kept: int, known: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.ingest.ordering.PRODUCERS_MAX", 10)
    intake = Intake(lambda uid, one: Producer(uid, one, 0), GAP)
    producers = [intake.producer(UID, number) for number in range(known)]
    intake.trim(Batch(1, 1), keep=set(producers[:kept]))
    assert list(intake.producers.values()) == producers[:left]
    intake.drop(producers[-1])
    intake.drop(producers[-1])  # dropped before, or never heard of


def offered(producer: Producer, data: bytes, batch: Batch) -> int:
    """Takes the datagram; returns the producer's sequence afterwards."""
    Intake(lambda _uid, _id: producer, GAP).take_datagram(data, UID, PID, batch)
    return producer.taken


def farewell(producer: Producer, last: int, refused: dict[str, int] | None = None) -> Batch:
    intake, batch = Intake(lambda _uid, _id: producer, GAP), Batch(100, 10**6)
    intake.take_datagram(encode_farewell(ID, last, refused or {}), UID, PID, batch)
    return batch


@pytest.mark.parametrize("missing", [0, 1, GAP])
def test_a_farewell_records_what_is_missing_by_number(missing: int) -> None:
    producer = producer_at(5, has_outbox=False)
    batch = farewell(producer, 5 + missing, {"malformed": 2})
    lost = [(loss.first, loss.last, loss.cause) for loss in batch.losses]
    assert lost == ([(6, 5 + missing, LOST_NOT_RECEIVED)] if missing else [])
    assert (producer.taken, producer.ended) == (5 + missing, True)
    assert producer.refused == {"malformed": 2}


def test_a_farewell_that_claims_too_much_is_refused_with_its_claim_and_nothing_else() -> None:
    producer = producer_at(5, has_outbox=False)
    batch = farewell(producer, 5 + GAP + 1)
    ((uid, pid, reason, excerpt),) = (
        (one.uid, one.pid, one.reason, one.excerpt) for one in batch.quarantine_entries
    )
    claim = f"farewell claims too much: {GAP + 1} events"
    assert (uid, pid, reason, excerpt) == (UID, PID, claim, b"")
    assert (producer.ended, batch.losses) == (False, [])


def test_a_farewell_of_a_producer_that_has_a_row_ends_that_row() -> None:
    producer = producer_at(0, has_outbox=False)
    producer.row = 3
    assert list(farewell(producer, 0).producers) == [producer]
    stranger = producer_at(0, has_outbox=False)
    assert list(farewell(stranger, 0).producers) == []
    assert stranger.ended


def unchecked(sequence: int, length: int = 0) -> bytes:
    """A record whose CRC is wrong: decoded, it is refused."""
    return RECORD_HEAD.pack(length, 0, sequence) + b"x" * length


@pytest.mark.parametrize("length", [0, 1, PAYLOAD_BYTES_MAX])
@pytest.mark.parametrize(
    ("sequence", "duplicates", "early"), [(1, 2, 0), (5, 2, 0), (7, 1, 1), (SEQUENCE_MAX, 1, 1)]
)
def test_what_is_passed_over_is_judged_by_its_number_alone(
    sequence: int, duplicates: int, early: int, length: int
) -> None:
    producer = producer_at(5, has_outbox=True)
    intake, batch = take(producer, unchecked(sequence, length))
    assert batch.quarantine_entries == []
    assert (intake.ignored.duplicates.total, intake.ignored.early.total) == (duplicates, early)
    assert (batch.duplicates, producer.behind) == (duplicates, early > 0)


@pytest.mark.parametrize(
    ("sequence", "has_outbox"),
    [(0, True), (6, True), (SEQUENCE_MAX + 1, True), (7, False), (SEQUENCE_MAX, False)],
)
def test_what_counts_for_something_is_decoded_and_not_passed_over(
    sequence: int, has_outbox: bool
) -> None:
    producer = producer_at(5, has_outbox=has_outbox)
    intake, batch = take(producer, unchecked(sequence))
    assert len(batch.quarantine_entries) == 1
    assert (intake.ignored.duplicates.total, intake.ignored.early.total) == (1, 0)


def test_ignored_records_are_passed_over_up_to_the_end_of_a_slice() -> None:
    intake, batch = Intake(lambda _uid, _id: producer_at(5, has_outbox=True), GAP), Batch(9, 999)
    known = record(2)
    data = datagram_head(ID) + known * 5
    intake.slice_bytes = 3 * len(known)
    offset = intake.take_datagram(data, UID, PID, batch)
    assert (offset, batch.duplicates) == (len(data) - 2 * len(known), 3)
    assert (intake.take_datagram(data, UID, PID, batch, offset), batch.duplicates) == (0, 5)


def drained(datagrams: list[Datagram], batch: Batch) -> tuple[Drain, int]:
    producer = producer_at(0, has_outbox=False)
    drain = Drain(lambda: 0.0)
    assert drain.more is False
    intake = Intake(lambda _uid, _id: producer, GAP)
    return drain, drain.take(datagrams, intake, batch, set())


def test_a_step_counts_its_datagrams_and_a_cut_one_is_refused_by_its_sender() -> None:
    whole = datagram_head(ID) + record(1)
    batch = Batch(100, 10**6)
    drain, count = drained([(whole, UID, PID, False), (b"cut", UID + 1, PID, True)], batch)
    assert (count, drain.more, drain.held) == (2, False, None)
    assert [(one.uid, one.pid, one.reason, one.excerpt) for one in batch.quarantine_entries] == [
        (UID + 1, PID, "oversize datagram", b"cut")
    ]


def test_a_step_ends_at_its_part_of_a_batch_and_holds_nothing_that_it_has_taken() -> None:
    batch = Batch(8, 10**6)  # datagrams may fill a fourth of it
    queue = [(datagram_head(ID) + record(n), UID, PID, False) for n in range(1, 6)]
    drain, count = drained(queue, batch)
    assert (count, drain.more, drain.held) == (2, True, None)
    assert [sequence for _, sequence, _ in batch.events] == [1, 2]


class Slowly:
    """A clock that each reading advances."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.mark.parametrize(
    ("size", "count", "charged"),
    [
        (CHARGE_BYTES_MIN, 1, True),
        (CHARGE_BYTES_MIN - 1, CHARGE_DATAGRAMS - 1, False),
        (CHARGE_BYTES_MIN - 1, CHARGE_DATAGRAMS, True),
    ],
)
def test_a_large_datagram_is_charged_at_once_and_of_small_ones_each_sixteenth(
    size: int, count: int, charged: bool
) -> None:
    """By this clock a single charge uses up the step."""
    drain = Drain(Slowly(STEP_S_MAX))
    intake = Intake(lambda _uid, _id: producer_at(0, has_outbox=False), GAP)
    queue = [(b"?" * size, UID, PID, False)] * count
    assert drain.take(queue, intake, Batch(10**6, 10**9), set()) == count
    assert drain.more is charged


@pytest.mark.parametrize("size", [CHARGE_BYTES_MIN - 1, 2 * CHARGE_BYTES_MIN])
def test_datagrams_are_charged_with_all_of_their_bytes(size: int) -> None:
    """One sender has half of a step, and the datagram past it is held undecoded."""
    at_once = 1 if size >= CHARGE_BYTES_MIN else CHARGE_DATAGRAMS
    charges = -(-STEP_BYTES_MAX // 2 // (at_once * size))
    queue = [(b"?" * size, UID, PID, False)] * 2000
    drain, count = drained(queue, Batch(10**6, 10**9))
    assert count == charges * at_once + 1
    assert (drain.more, drain.held) == (True, (queue[0], 0))


def test_slices_of_a_datagram_are_charged_with_its_bytes_once() -> None:
    extra = PAYLOAD_BYTES_MAX // 4
    data = datagram_head(ID) + record(1, extra) * 7
    assert SLICE_BYTES < len(data) <= DATAGRAM_BYTES_MAX
    batch = Batch(10**6, 10**9)
    drain, count = drained([(data, UID, PID, False)] * 2000, batch)
    assert (count, drain.more) == (-(-STEP_BYTES_MAX // 2 // len(data)), True)
    assert drain.held is not None and drain.held[1] > SLICE_BYTES, "the rest of the last one"


def test_what_was_judged_in_former_steps_is_not_charged_again() -> None:
    drain = Drain(lambda: 0.0)
    intake, batch = Intake(lambda _uid, _id: producer_at(0, has_outbox=False), GAP), Batch(9, 10**6)
    intake.ignored.duplicates.add(UID, PID, STEP_RECORDS_MAX)
    batch.add_quarantine(UID, PID, "", b"")
    drain.take([(b"?" * CHARGE_BYTES_MIN, UID, PID, False)], intake, batch, set())
    assert drain.more is False
