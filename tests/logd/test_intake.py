"""Order and repair without sockets, files or clocks: what becomes of each record."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logd.batch import (
    LOST_BEGINNING_UNKNOWN,
    LOST_CLAIMED,
    LOST_DAMAGED,
    LOST_NOT_RECEIVED,
    LOST_RESTORED,
    Batch,
    Producer,
)
from logd.ingest.ordering import Intake
from logd.ingest.outbox_reader import DamageSkip, NextRecordSearch, read_available
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_WRITTEN,
    Header,
    OutboxError,
    ReadAt,
    aligned,
    outbox_bytes,
    parse_header,
)
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.schema import REPORT_READ
from logd_wire.wire import (
    KIND_AWAITED,
    RECORD_HEAD,
    datagram_head,
    decode_record,
    encode_farewell,
    encode_record,
    pack_payload,
    producer_seed,
)

RING = 64 * 1024
ID = 7
UID = 1000


def payload(number: int) -> bytes:
    return pack_payload(msgpack.Packer(), "page_view", number, None, {"n": number})


def new_producer(taken: int = 0) -> Producer:
    return Producer(uid=UID, id=ID, seed=producer_seed(ID), stored=taken, taken=taken)


def new_intake(producer: Producer, gap_events_max: int = 1000) -> Intake:
    def introduce(_uid: int, _id: int) -> Producer:
        return producer

    return Intake(introduce, gap_events_max)


def sequences(batch: Batch) -> list[int]:
    return [sequence for _, sequence, _ in batch.events]


def losses(batch: Batch) -> list[tuple[int, int | None, str]]:
    return [(loss.first, loss.last, loss.cause) for loss in batch.losses]


class Shared:
    """An outbox in memory, as both sides see it."""

    def __init__(self, ring_bytes: int = RING) -> None:
        self.buffer = bytearray(outbox_bytes(ring_bytes))
        self.words = memoryview(self.buffer)[:HEADER_BYTES].cast("Q")
        self.writer = OutboxWriter(memoryview(self.buffer), ID, pid=1, now_ns=1)

    def write(self, count: int) -> None:
        for _ in range(count):
            assert self.writer.append(payload(self.writer.written + 1)) is not None

    def confirm(self, sequence: int) -> None:
        """As the daemon does after a commit of everything up to `sequence`."""
        position = sum(aligned(RECORD_HEAD.size + len(payload(n))) for n in range(1, sequence + 1))
        self.words[WORD_CONFIRMED_SEQUENCE] = sequence
        self.words[WORD_CONFIRMED_POSITION] = position

    def header(self) -> Header:
        return parse_header(bytes(self.buffer[:HEADER_BYTES]), len(self.buffer))

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.buffer[offset : offset + length])

    def damage(self, sequence: int) -> None:
        """Turns over a byte in the middle of a record."""
        self.buffer[HEADER_BYTES + sum(
            aligned(RECORD_HEAD.size + len(payload(n))) for n in range(1, sequence)
        ) + RECORD_HEAD.size] ^= 0xFF  # fmt: skip


def align(producer: Producer, header: Header, read_at: ReadAt, batch: Batch) -> None:
    """Finds the producer's place, in slices."""
    placement = NextRecordSearch(producer, header, read_at)
    while not placement.step(batch, 8192):
        pass


def resynchronise(producer: Producer, header: Header, read_at: ReadAt, batch: Batch) -> None:
    """Find the record after damage, in slices."""
    search = DamageSkip(producer, header, read_at)
    while not search.step(batch, 8192):
        pass


def batch_of(events_max: int = 100_000) -> Batch:
    return Batch(events_max, 10**8)


# -- datagrams -----------------------------------------------------------------------------------


def datagram(sequence: int) -> bytes:
    return datagram_head(ID) + encode_record(producer_seed(ID), sequence, payload(sequence))


def test_the_next_is_taken_an_old_one_ignored_and_many_in_one_datagram_are_many() -> None:
    producer, batch = new_producer(), batch_of()
    intake = new_intake(producer)
    intake.take_datagram(datagram(1), UID, 5, batch)
    intake.take_datagram(datagram(1), UID, 5, batch)
    several = datagram(2) + datagram(3)[16:] + datagram(4)[16:]
    intake.take_datagram(several, UID, 5, batch)
    assert sequences(batch) == [1, 2, 3, 4]
    assert (batch.duplicates, producer.pid) == (1, 5)


def whole(data: bytes, intake: Intake, batch: Batch, uid: int = UID, pid: int = 5) -> int:
    """All of a datagram; in how many slices."""
    slices, offset = 1, intake.take_datagram(data, uid, pid, batch)
    while offset:
        slices, offset = slices + 1, intake.take_datagram(data, uid, pid, batch, offset)
    return slices


def test_thousands_of_old_records_in_a_datagram_are_told_from_their_heads(
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


def test_early_records_of_a_producer_with_an_outbox_are_told_from_their_heads() -> None:
    """Behind the first one, a broken one is as early as a whole one."""
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
def test_behind_old_records_what_is_wrong_is_refused_as_ever(head: bytes) -> None:
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
    assert read_available(producer, shared.header(), shared.read_at, batch, intake) is None
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


def test_an_old_client_of_a_new_database_goes_on_with_its_beginning_unknown() -> None:
    """Its first number is past every bound; were it refused, so would be all that follow."""
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


def test_producers_invented_without_end_stay_bounded() -> None:
    intake = Intake(lambda uid, n: Producer(uid, n, producer_seed(n)), 10)
    for number in range(25_000):
        record = encode_record(producer_seed(number), 1, payload(1))
        batch = batch_of()
        intake.take_datagram(datagram_head(number) + record, UID, 5, batch)
        for producer in batch.producers:
            producer.stored = producer.taken
        intake.trim(batch_of())  # as in the next turn
    assert len(intake.producers) <= 10_000


def test_producers_that_only_repeat_what_is_stored_stay_bounded_too() -> None:
    """Ended ones, introduced again from the database: they make no batch, so none is committed."""
    intake = Intake(lambda uid, n: Producer(uid, n, producer_seed(n), 1, stored=1, taken=1), 10)
    batch = batch_of()
    for number in range(25_000):
        record = encode_record(producer_seed(number), 1, payload(1))
        intake.take_datagram(datagram_head(number) + record, UID, 5, batch)
        intake.trim(batch)
    assert (batch.duplicates, bool(batch)) == (25_000, False)
    assert len(intake.producers) <= 10_000


def test_a_producer_in_the_batch_at_hand_is_not_forgotten() -> None:
    """Introduced again, it would be stored as two."""
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


def test_a_farewell_of_one_that_said_nothing_leaves_nothing() -> None:
    """Else a datagram of 36 bytes would make a row for ever."""
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


# -- an outbox found at start: the three places of a watermark -----------------------------------


@pytest.mark.parametrize(
    ("watermark", "confirmed", "taken", "lost"),
    [
        (40, 40, range(41, 101), []),  # equal: the common case
        (60, 40, range(61, 101), []),  # ahead: killed between commit and confirmation
        (100, 40, range(0), []),  # ahead, with everything committed
        (0, 0, range(1, 101), []),  # never seen before
        (10, 40, range(11, 101), []),  # behind: restored, and the ring still has it
        (0, 100, range(1, 101), []),
    ],
)
def test_an_outbox_is_read_on_from_where_the_database_stands(
    watermark: int, confirmed: int, taken: range, lost: list[tuple[int, int, str]]
) -> None:
    shared, producer, batch = Shared(), new_producer(watermark), batch_of()
    producer.has_outbox = True
    shared.write(100)
    shared.confirm(confirmed)
    align(producer, shared.header(), shared.read_at, batch)
    damage = read_available(producer, shared.header(), shared.read_at, batch, new_intake(producer))
    assert damage is None
    assert sequences(batch) == list(taken)
    assert losses(batch) == lost
    assert producer.taken == 100


def test_a_restored_database_lacks_what_the_ring_has_written_over() -> None:
    shared, producer, batch = Shared(), new_producer(3), batch_of()
    position = 0
    for number in range(1, 5001):
        if shared.writer.append(payload(number)) is None:
            shared.words[WORD_CONFIRMED_SEQUENCE] = number - 1
            shared.words[WORD_CONFIRMED_POSITION] = shared.writer.bytes_written
            position = shared.writer.bytes_written
            assert shared.writer.append(payload(number)) is not None
    assert position > RING
    align(producer, shared.header(), shared.read_at, batch)
    read_available(producer, shared.header(), shared.read_at, batch, new_intake(producer))
    ((first, last, cause),) = losses(batch)
    assert (first, cause) == (4, LOST_CLAIMED) and last is not None
    assert sequences(batch) == list(range(last + 1, 5001))


@pytest.mark.parametrize(
    ("known", "booked"),
    [
        (0, [(4, 5000, LOST_CLAIMED)]),
        (3, [(4, 5000, LOST_CLAIMED)]),
        (100, [(4, 100, LOST_RESTORED), (101, 5000, LOST_CLAIMED)]),
        (5000, [(4, 5000, LOST_RESTORED)]),
        (9000, [(4, 5000, LOST_RESTORED)]),
    ],
)
def test_what_no_database_of_ours_had_is_claimed_and_the_rest_restored(
    known: int, booked: list[tuple[int, int, str]]
) -> None:
    """A header is its writer's own: that it says 5,000 were stored shows nothing."""
    shared, producer, batch = Shared(), new_producer(3), batch_of()
    producer.replaced = known
    shared.words[WORD_WRITTEN] = shared.words[WORD_CONFIRMED_SEQUENCE] = 5000
    align(producer, shared.header(), shared.read_at, batch)
    assert losses(batch) == booked
    assert (batch.lost(claimed=False), batch.lost(claimed=True)) == (
        sum(last - first + 1 for first, last, cause in booked if cause == LOST_RESTORED),
        sum(last - first + 1 for first, last, cause in booked if cause == LOST_CLAIMED),
    )
    assert (producer.taken, producer.position) == (5000, 0)


def test_a_claim_beyond_the_bound_is_one_of_unknown_extent() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    shared.words[WORD_WRITTEN] = shared.words[WORD_CONFIRMED_SEQUENCE] = 2**62
    align(producer, shared.header(), shared.read_at, batch)
    assert losses(batch) == [(1, None, LOST_CLAIMED)]


@pytest.mark.parametrize(("watermark", "confirmed"), [(0, 400), (300, 40), (0, 0)])
@pytest.mark.parametrize("arrives_after", [0, 1, 2, 9])
def test_datagrams_that_arrive_while_a_place_is_looked_for_change_nothing_of_the_end(
    watermark: int, confirmed: int, arrives_after: int
) -> None:
    """They continue the sequence: what is then looked for is another record."""
    shared, producer, batch = Shared(), new_producer(watermark), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    shared.write(500)
    shared.confirm(confirmed)
    placement = NextRecordSearch(producer, shared.header(), shared.read_at)
    steps = 0
    while not placement.step(batch, 2048):
        if steps == arrives_after:
            for number in range(watermark + 1, watermark + 6):
                intake.take_datagram(datagram(number), UID, 5, batch)
        steps += 1
    assert read_available(producer, shared.header(), shared.read_at, batch, intake) is None
    assert sequences(batch) == list(range(watermark + 1, 501))
    assert losses(batch) == []


def test_a_damaged_record_that_comes_as_a_datagram_ends_the_search_for_it() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    shared.write(500)
    shared.damage(20)
    align(producer, shared.header(), shared.read_at, batch)
    assert read_available(producer, shared.header(), shared.read_at, batch, intake)
    search = DamageSkip(producer, shared.header(), shared.read_at)
    assert not search.step(batch, 1024)
    intake.take_datagram(datagram(20), UID, 5, batch)
    assert search.step(batch, 1024)
    assert read_available(producer, shared.header(), shared.read_at, batch, intake) is None
    assert sequences(batch) == list(range(1, 501)) and losses(batch) == []


def test_what_is_written_over_while_it_is_looked_for_is_looked_for_again() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    shared.write(500)
    shared.confirm(500)
    header = shared.header()
    placement = NextRecordSearch(producer, header, shared.read_at)
    while not placement.step(batch, 4096):
        if shared.buffer[HEADER_BYTES]:
            shared.buffer[HEADER_BYTES : HEADER_BYTES + 64] = bytes(64)  # the lowest is gone
    read_available(producer, header, shared.read_at, batch, new_intake(producer))
    ((first, last, cause),) = losses(batch)
    assert (first, cause) == (1, LOST_CLAIMED) and last is not None and last <= 2
    assert sequences(batch) == list(range(last + 1, 501))


@pytest.mark.parametrize(
    ("written", "confirmed", "watermark"),
    [(5, 9, 0), (5, 0, 6), (2**63, 0, 0), (10**9, 0, 0)],
    ids=["confirmed past written", "written behind watermark", "too large", "more than it holds"],
)
def test_impossible_numbers_are_refused(written: int, confirmed: int, watermark: int) -> None:
    shared, producer = Shared(), new_producer(watermark)
    shared.words[WORD_WRITTEN] = written
    shared.words[WORD_CONFIRMED_SEQUENCE] = confirmed
    with pytest.raises(OutboxError):
        align(producer, shared.header(), shared.read_at, batch_of())


@pytest.mark.parametrize(("sequence", "position"), [(1, 2**64 - 8), (1, 2**40), (2, 12), (0, 8)])
def test_an_impossible_position_is_refused(sequence: int, position: int) -> None:
    """Word 17 is untrusted: no arithmetic on it may exceed what a word can hold."""
    shared, producer, batch = Shared(), new_producer(), batch_of()
    shared.write(3)
    shared.words[WORD_CONFIRMED_SEQUENCE] = sequence
    shared.words[WORD_CONFIRMED_POSITION] = position
    with pytest.raises(OutboxError, match="impossible position"):
        align(producer, shared.header(), shared.read_at, batch)
    assert (producer.taken, producer.position, bool(batch)) == (0, 0, False)


def wrongly_placed(watermark: int, position: int) -> tuple[Shared, Producer]:
    """An outbox of five, three of them confirmed, with a position that is possible and wrong."""
    shared, producer = Shared(), new_producer(watermark)
    producer.has_outbox = True
    shared.write(5)
    shared.words[WORD_CONFIRMED_SEQUENCE] = 3
    shared.words[WORD_CONFIRMED_POSITION] = position
    return shared, producer


@pytest.mark.parametrize(("watermark", "position"), [(0, 0), (2, 0), (2, 8)])
def test_where_a_confirmed_record_would_lie_before_the_beginning_it_is_refused(
    watermark: int, position: int
) -> None:
    shared, producer = wrongly_placed(watermark, position)
    batch = batch_of()
    with pytest.raises(OutboxError, match="impossible position: -"):
        align(producer, shared.header(), shared.read_at, batch)
    assert (producer.taken, bool(batch)) == (watermark, False)


@pytest.mark.parametrize(("watermark", "position"), [(0, 8), (3, 0), (3, 8), (0, 8000), (3, 8000)])
def test_from_a_possible_position_that_is_wrong_all_is_found_again(
    watermark: int, position: int
) -> None:
    shared, producer = wrongly_placed(watermark, position)
    batch = batch_of()
    intake = new_intake(producer)
    align(producer, shared.header(), shared.read_at, batch)
    if watermark == 3:  # believed, until what lies there is read
        assert read_available(producer, shared.header(), shared.read_at, batch, intake) is not None
        resynchronise(producer, shared.header(), shared.read_at, batch)
    assert read_available(producer, shared.header(), shared.read_at, batch, intake) is None
    assert (sequences(batch), losses(batch)) == (list(range(watermark + 1, 6)), [])


def test_a_ring_cut_short_is_refused_by_a_search_too() -> None:
    shared, producer = Shared(), new_producer()
    shared.write(3)
    shared.confirm(3)
    header = shared.header()
    del shared.words, shared.writer
    with pytest.raises(OutboxError, match="truncated"):
        align(producer, header, lambda *_: b"\0" * 100, batch_of())


def test_a_damaged_record_is_booked_and_what_follows_is_read() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    shared.write(50)
    shared.damage(20)
    align(producer, shared.header(), shared.read_at, batch)
    assert "CRC" in str(read_available(producer, shared.header(), shared.read_at, batch, intake))
    resynchronise(producer, shared.header(), shared.read_at, batch)
    assert read_available(producer, shared.header(), shared.read_at, batch, intake) is None
    assert losses(batch) == [(20, 20, LOST_DAMAGED)]
    assert sequences(batch) == [*range(1, 20), *range(21, 51)]


def test_damage_to_the_end_books_the_rest_and_gives_up() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    intake = new_intake(producer)
    shared.write(3)
    shared.damage(3)
    assert read_available(producer, shared.header(), shared.read_at, batch, intake)
    resynchronise(producer, shared.header(), shared.read_at, batch)
    assert losses(batch) == [(3, 3, LOST_DAMAGED)]
    assert producer.taken == 3


def test_a_torn_read_of_a_live_ring_is_repeated_before_it_is_believed() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    shared.write(10)
    reads = 0

    def torn_once(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        data = bytearray(shared.read_at(offset, length))
        if reads == 1:
            data[300] ^= 1
        return bytes(data)

    assert read_available(producer, shared.header(), torn_once, batch, new_intake(producer)) is None
    assert sequences(batch) == list(range(1, 11))


def test_reading_stops_when_the_batch_is_full_and_goes_on_with_the_next() -> None:
    shared, producer = Shared(), new_producer()
    intake = new_intake(producer)
    shared.write(100)
    first = Batch(100_000, bytes_max=len(payload(1)) * 10)
    read_available(producer, shared.header(), shared.read_at, first, intake)
    assert 0 < len(first.events) < 100
    second = batch_of(events_max=30)
    read_available(producer, shared.header(), shared.read_at, second, intake)
    assert len(second.events) == 30
    third = batch_of()
    read_available(producer, shared.header(), shared.read_at, third, intake)
    assert sequences(first) + sequences(second) + sequences(third) == list(range(1, 101))


# -- both roads at once, with a seed -------------------------------------------------------------


Step = Callable[[], None]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_both_roads_together_store_each_event_once_and_in_order(seed: int) -> None:
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
        align(producer, shared.header(), shared.read_at, batch)

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
            read_available(producer, shared.header(), shared.read_at, batch, intake)
        elif action < 0.95:
            commit()
        else:
            restart()
    restart()
    assert read_available(producer, shared.header(), shared.read_at, batch, intake) is None
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
def test_that_a_report_was_read_is_believed_of_logds_own_user_alone(
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


def test_a_loss_is_booked_for_what_a_farewell_counts_and_not_twice() -> None:
    producer, batch = new_producer(taken=3), Batch(10, 10**6)
    intake = new_intake(producer)
    data = encode_farewell(ID, 9, {})
    for _ in range(2):
        intake.take_datagram(data, UID, 5, batch)
    assert losses(batch) == [(4, 9, LOST_NOT_RECEIVED)]
