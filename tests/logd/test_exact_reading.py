"""Reading, placing and resynchronising outboxes, at the exact numbers where a decision changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from logd.batch import LOST_CLAIMED, LOST_DAMAGED, LOST_RESTORED, Batch, Capacity
from logd.ingest.outbox_reader import (
    DamageSkip,
    NextRecordSearch,
    _position,
    check_numbers,
    read_available,
    ring_events_max,
)
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_CONFIRMED_SEQUENCE,
    WORD_WRITTEN,
    Header,
    OutboxError,
    ReadAt,
    aligned,
)
from logd_wire.wire import RECORD_BYTES_MAX, RECORD_HEAD
from tests.logd.ordering_parts import (
    RING,
    Shared,
    batch_of,
    losses,
    new_intake,
    new_producer,
    payload,
    position_of,
    sequences,
)


def test_where_the_place_is_confirmed_nothing_is_read_to_find_it() -> None:
    shared, producer, batch = Shared(), new_producer(3), batch_of()
    shared.write(5)
    shared.confirm(3)

    def refuse(offset: int, length: int) -> bytes:
        raise AssertionError(f"read at {offset}")

    assert NextRecordSearch(producer, shared.header(), refuse).step(batch, 1024) is True
    assert (producer.position, losses(batch)) == (position_of(4), [])


def test_a_damaged_record_ends_the_way_to_the_watermark_before_it() -> None:
    shared, producer, batch = Shared(), new_producer(4), batch_of()
    shared.write(5)
    shared.confirm(1)
    shared.damage(3)
    assert NextRecordSearch(producer, shared.header(), shared.read_at).step(batch, 1024) is True
    assert (producer.taken, producer.position) == (4, position_of(3))


def test_the_way_to_the_watermark_is_gone_in_steps() -> None:
    shared, producer, batch = Shared(), new_producer(4), batch_of()
    shared.write(5)
    placement = NextRecordSearch(producer, shared.header(), shared.read_at)
    assert [placement.step(batch, 1) for _ in range(4)] == [False, False, False, True]
    assert producer.position == position_of(5)


def place(shared: Shared, taken: int, replaced: int = 0) -> tuple[int, int, Batch]:
    """What became of a producer whose outbox confirms more than the database has."""
    producer, batch = new_producer(taken), batch_of()
    producer.replaced = replaced
    placement = NextRecordSearch(producer, shared.header(), shared.read_at)
    for _ in range(RING // 1024 + 2):
        if placement.step(batch, 1024):
            return producer.taken, producer.position, batch
    raise AssertionError("it has searched the ring more than once")


def test_the_last_confirmed_record_is_taken_where_the_ring_still_has_it() -> None:
    shared = Shared()
    shared.write(6)
    shared.confirm(5)
    taken, position, batch = place(shared, 4)
    assert (taken, position, losses(batch)) == (4, position_of(5), [])


def test_a_single_event_that_is_gone_is_booked_and_under_its_cause() -> None:
    for replaced, cause in ((0, LOST_CLAIMED), (4, LOST_CLAIMED), (5, LOST_RESTORED)):
        shared = Shared()
        shared.words[WORD_WRITTEN] = shared.words[WORD_CONFIRMED_SEQUENCE] = 5
        taken, position, batch = place(shared, 4, replaced)
        assert (taken, position, losses(batch)) == (5, 0, [(5, 5, cause)])


def torn(shared: Shared, sequence: int, reads: int) -> ReadAt:
    """Reads of the ring, of which the first few show the record damaged."""
    left = [reads]

    def read_at(offset: int, length: int) -> bytes:
        data = bytearray(shared.read_at(offset, length))
        if left[0] > 0:
            left[0] -= 1
            data[HEADER_BYTES + position_of(sequence) + RECORD_HEAD.size - offset] ^= 0xFF
        return bytes(data)

    return read_at


def test_a_torn_read_is_repeated_once_and_then_it_is_damage() -> None:
    for reads, taken in ((0, 3), (1, 3), (2, 0)):
        shared, producer, batch = Shared(), new_producer(), batch_of()
        shared.write(3)
        read_at = torn(shared, 1, reads)
        damage = read_available(producer, shared.header(), read_at, batch, new_intake(producer))
        assert (damage is None, producer.taken) == (taken == 3, taken)


def test_what_was_read_before_a_torn_record_counts_against_the_room() -> None:
    one = RECORD_HEAD.size + len(payload(1))
    for room, taken in (
        (Capacity(2, RING), 2),
        (Capacity(RING, 2 * one), 3),
        (Capacity(RING, one), 1),
    ):
        shared, producer, batch = Shared(), new_producer(), batch_of()
        shared.write(5)
        read_at = torn(shared, 2, 1)
        assert (
            read_available(producer, shared.header(), read_at, batch, new_intake(producer), room)
            is None
        )
        assert (producer.taken, producer.position) == (taken, position_of(taken + 1)), room


def test_nothing_is_read_without_room_or_without_an_event() -> None:
    shared, producer = Shared(), new_producer()
    shared.write(1)

    def refuse(offset: int, length: int) -> bytes:
        raise AssertionError(f"read at {offset}")

    for full in (Batch(0, 100), Batch(100, 0)):
        assert read_available(producer, shared.header(), refuse, full, new_intake(producer)) is None
        assert sequences(full) == []
    producer.taken = 1
    assert (
        read_available(producer, shared.header(), refuse, batch_of(), new_intake(producer)) is None
    )


def test_a_search_behind_damage_ends_once_it_has_found_what_follows() -> None:
    for written, position in ((3, position_of(3)), (2, position_of(2))):
        shared, producer, batch = Shared(), new_producer(1), batch_of()
        producer.position = position_of(2)
        shared.write(written)
        shared.damage(2)
        search = DamageSkip(producer, shared.header(), shared.read_at)
        assert search.step(batch, RING) is True
        assert losses(batch) == [(2, 2, LOST_DAMAGED)]
        assert (producer.taken, producer.position) == (2, position)


def test_a_record_that_is_whole_by_now_is_not_lost() -> None:
    shared, producer, batch = Shared(), new_producer(1), batch_of()
    shared.write(3)
    assert DamageSkip(producer, shared.header(), shared.read_at).step(batch, RING) is True
    assert (losses(batch), producer.taken, producer.position) == ([], 1, position_of(2))


# -- what a header claims

HEADER = Header(7, 1024, 1, 1, 0, False, 10, 5000, 0, {})  # confirmed: 10 at position 5,000


@pytest.mark.parametrize(
    ("sequence", "offset", "position"),
    [
        (11, 5000 % 1024, 5000),
        (11, 5000 % 1024 + 8, 5008),
        (11, 5000 % 1024 - 8, 5000 + 1024 - 8),
        (10, 5000 % 1024 - 8, 4992),
        (10, 5000 % 1024, 5000 - 1024),
        (9, 5000 % 1024 + 8, 5000 - 1024 + 8),
    ],
)
def test_a_position_is_the_one_at_that_offset_on_the_side_of_its_sequence(
    sequence: int, offset: int, position: int
) -> None:
    assert _position((sequence, offset), HEADER) == position


def test_a_position_before_the_first_byte_is_refused_and_byte_nought_is_one() -> None:
    early = replace(HEADER, confirmed_position=16)
    assert _position((9, 0), early) == 0
    with pytest.raises(OutboxError) as refused:
        _position((9, 24), early)
    assert str(refused.value) == str(OutboxError("impossible position", f"{24 - 1024}"))
    assert refused.value.args == OutboxError("impossible position", f"{24 - 1024}").args


MOST = ring_events_max(HEADER)  # 1,024 bytes hold no more records than heads


LONGEST = aligned(RECORD_BYTES_MAX)


SOUND = replace(HEADER, written=10 + MOST, confirmed_position=10 * LONGEST)


@pytest.mark.parametrize(
    ("header", "taken", "problem"),
    [
        (SOUND, 0, None),
        (SOUND, 10 + MOST, None),
        (replace(SOUND, written=10), 10, None),
        (
            replace(SOUND, written=9),
            0,
            ("impossible sequence", "more is confirmed than written"),
        ),
        (
            SOUND,
            11 + MOST,
            ("numbers behind its watermark", f"{10 + MOST}, taken {11 + MOST}"),
        ),
        (
            replace(SOUND, confirmed_position=10 * LONGEST + 8),
            0,
            ("impossible position", f"{10 * LONGEST + 8}"),
        ),
        (replace(SOUND, confirmed_position=4), 0, ("impossible position", "4")),
        (
            replace(SOUND, written=11 + MOST),
            10,
            ("impossible sequence", f"{MOST + 1} events in 1024 bytes"),
        ),
        (replace(SOUND, written=11 + MOST), 11, None),
    ],
)
def test_numbers_of_a_header_are_sound_up_to_what_its_ring_can_hold(
    header: Header, taken: int, problem: tuple[str, str] | None
) -> None:
    if problem is None:
        check_numbers(header, taken)
        return
    with pytest.raises(OutboxError) as refused:
        check_numbers(header, taken)
    assert str(refused.value) == str(OutboxError(*problem))
