"""Reading outboxes, without files: where it begins, and what follows damage."""

from __future__ import annotations

import pytest

from logd.batch import LOST_CLAIMED, LOST_DAMAGED, LOST_RESTORED, Batch, Producer
from logd.ingest.outbox_reader import DamageSkip, NextRecordSearch, read_available
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_WRITTEN,
    OutboxError,
)
from tests.logd.ordering_parts import (
    RING,
    UID,
    Shared,
    batch_of,
    datagram,
    losses,
    new_intake,
    new_producer,
    payload,
    sequences,
)

# -- where reading begins: the three places of a watermark ----------------------------------------


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
    shared.locate_next(producer, batch)
    damage = shared.read(producer, batch)
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
    shared.locate_next(producer, batch)
    shared.read(producer, batch)
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
    """A header is under its writer's control: its claim that 5,000 were stored proves nothing."""
    shared, producer, batch = Shared(), new_producer(3), batch_of()
    producer.replaced = known
    shared.words[WORD_WRITTEN] = shared.words[WORD_CONFIRMED_SEQUENCE] = 5000
    shared.locate_next(producer, batch)
    assert losses(batch) == booked
    assert (batch.lost(claimed=False), batch.lost(claimed=True)) == (
        sum(last - first + 1 for first, last, cause in booked if cause == LOST_RESTORED),
        sum(last - first + 1 for first, last, cause in booked if cause == LOST_CLAIMED),
    )
    assert (producer.taken, producer.position) == (5000, 0)


def test_a_claim_beyond_the_bound_is_one_of_unknown_extent() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    shared.words[WORD_WRITTEN] = shared.words[WORD_CONFIRMED_SEQUENCE] = 2**62
    shared.locate_next(producer, batch)
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
    assert shared.read(producer, batch, intake) is None
    assert sequences(batch) == list(range(watermark + 1, 501))
    assert losses(batch) == []


def test_a_damaged_record_that_comes_as_a_datagram_ends_the_search_for_it() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    shared.write(500)
    shared.damage(20)
    shared.locate_next(producer, batch)
    assert shared.read(producer, batch, intake)
    search = DamageSkip(producer, shared.header(), shared.read_at)
    assert not search.step(batch, 1024)
    intake.take_datagram(datagram(20), UID, 5, batch)
    assert search.step(batch, 1024)
    assert shared.read(producer, batch, intake) is None
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
        shared.locate_next(producer, batch_of())


@pytest.mark.parametrize(("sequence", "position"), [(1, 2**64 - 8), (1, 2**40), (2, 12), (0, 8)])
def test_an_impossible_position_is_refused(sequence: int, position: int) -> None:
    """Word 17 is untrusted: no arithmetic on it may exceed what a word can hold."""
    shared, producer, batch = Shared(), new_producer(), batch_of()
    shared.write(3)
    shared.words[WORD_CONFIRMED_SEQUENCE] = sequence
    shared.words[WORD_CONFIRMED_POSITION] = position
    with pytest.raises(OutboxError, match="impossible position"):
        shared.locate_next(producer, batch)
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
        shared.locate_next(producer, batch)
    assert (producer.taken, bool(batch)) == (watermark, False)


@pytest.mark.parametrize(("watermark", "position"), [(0, 8), (3, 0), (3, 8), (0, 8000), (3, 8000)])
def test_from_a_possible_position_that_is_wrong_all_is_found_again(
    watermark: int, position: int
) -> None:
    shared, producer = wrongly_placed(watermark, position)
    batch = batch_of()
    intake = new_intake(producer)
    shared.locate_next(producer, batch)
    if watermark == 3:  # believed, until what lies there is read
        assert shared.read(producer, batch, intake) is not None
        shared.skip_damage(producer, batch)
    assert shared.read(producer, batch, intake) is None
    assert (sequences(batch), losses(batch)) == (list(range(watermark + 1, 6)), [])


def test_a_ring_cut_short_is_refused_by_a_search_too() -> None:
    shared, producer = Shared(), new_producer()
    shared.write(3)
    shared.confirm(3)
    search = NextRecordSearch(producer, shared.header(), lambda *_: b"\0" * 100)
    with pytest.raises(OutboxError, match="truncated"):
        search.step(batch_of(), 8192)


# -- damage ----------------------------------------------------------------------------------------


def test_a_damaged_record_is_booked_and_what_follows_is_read() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    producer.has_outbox = True
    intake = new_intake(producer)
    shared.write(50)
    shared.damage(20)
    shared.locate_next(producer, batch)
    assert "CRC" in str(shared.read(producer, batch, intake))
    shared.skip_damage(producer, batch)
    assert shared.read(producer, batch, intake) is None
    assert losses(batch) == [(20, 20, LOST_DAMAGED)]
    assert sequences(batch) == [*range(1, 20), *range(21, 51)]


def test_damage_to_the_end_books_the_rest_and_gives_up() -> None:
    shared, producer, batch = Shared(), new_producer(), batch_of()
    intake = new_intake(producer)
    shared.write(3)
    shared.damage(3)
    assert shared.read(producer, batch, intake)
    shared.skip_damage(producer, batch)
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


def test_reading_stops_when_the_batch_is_full_and_continues_with_the_next() -> None:
    shared, producer = Shared(), new_producer()
    intake = new_intake(producer)
    shared.write(100)
    first = Batch(100_000, bytes_max=len(payload(1)) * 10)
    shared.read(producer, first, intake)
    assert 0 < len(first.events) < 100
    second = batch_of(events_max=30)
    shared.read(producer, second, intake)
    assert len(second.events) == 30
    third = batch_of()
    shared.read(producer, third, intake)
    assert sequences(first) + sequences(second) + sequences(third) == list(range(1, 101))
