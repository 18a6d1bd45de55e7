"""The outbox as bytes: one side writes, one reads, and neither disturbs the other."""

from __future__ import annotations

import struct
import sys
from collections import deque
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from logd_wire.outbox import layout, writer
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    REFUSAL_CAUSES,
    WORD_CONFIRMED_SEQUENCE,
    WORD_WRITTEN,
    Header,
    read_ring,
)
from logd_wire.outbox.reader import READ_BYTES_FIRST, find_record, read_records
from logd_wire.schema import PAYLOAD_BYTES_MAX
from logd_wire.wire import (
    RECORD_HEAD,
)
from tests.shared.memory_outbox import PRODUCER, RING, SEED, Outbox, payload, record_bytes

# -- writing and reading -------------------------------------------------------------------------


def test_a_new_outbox_names_its_producer_and_is_empty() -> None:
    box = Outbox()
    assert box.header() == Header(PRODUCER, RING, 1, 2, 0, False, 0, 0, 0, {})
    assert box.read() == []
    assert box.writer.room_bytes == RING


def test_what_is_appended_is_read_in_order() -> None:
    box = Outbox()
    given_payloads = [payload(number, number) for number in range(8, 200)]
    for item in given_payloads:
        assert box.writer.append(item) is not None
    assert box.read() == given_payloads
    assert box.read() == []


def test_append_returns_the_very_bytes_of_the_ring() -> None:
    box = Outbox()
    record = box.writer.append(b"hello")
    assert record is not None
    assert box.file[HEADER_BYTES : HEADER_BYTES + len(record)] == record


def test_records_go_on_at_the_rings_start_for_ever() -> None:
    box = Outbox()
    for number in range(5000):
        assert box.writer.append(payload(number, 1000 + number % 7)) is not None
        assert box.read() == [payload(number, 1000 + number % 7)]
        box.confirm()
    assert box.position > 70 * RING


def test_a_full_ring_refuses_and_changes_nothing() -> None:
    box = Outbox()
    number = 0
    while box.writer.append(payload(number)) is not None:
        number += 1
    assert number == RING // record_bytes(100)
    before = bytes(box.file)
    assert box.writer.append(payload(number)) is None
    assert bytes(box.file) == before
    assert box.read() == [payload(index) for index in range(number)]


def test_a_ring_is_filled_to_its_last_byte() -> None:
    box = Outbox()
    for length in (PAYLOAD_BYTES_MAX, RING - record_bytes(PAYLOAD_BYTES_MAX) - RECORD_HEAD.size):
        assert box.writer.append(bytes(length)) is not None
    assert box.writer.room_bytes == 0
    assert len(box.read()) == 2


def test_confirmation_gives_room_again_and_only_for_what_is_confirmed() -> None:
    box = Outbox()
    while box.writer.append(payload(0)) is not None:
        pass
    box.read(bytes_max=1)
    assert box.writer.append(payload(1)) is None, "read is not confirmed"
    box.confirm()
    assert box.writer.append(payload(1)) is not None
    assert box.writer.append(payload(2)) is None


def test_a_confirmation_of_what_was_never_written_gives_no_room() -> None:
    box = Outbox()
    while box.writer.append(payload(0)) is not None:
        pass
    box.taken, box.position = 10**6, 10**9
    box.confirm()
    assert box.writer.append(payload(1)) is None


def test_a_reader_takes_no_more_than_it_has_room_for_and_continues_there() -> None:
    box = Outbox()
    for number in range(100):
        box.writer.append(payload(number))
    found: list[bytes] = []
    pages = 0
    record_bytes = RECORD_HEAD.size + len(payload(0))
    while part := box.read(bytes_max=10 * record_bytes):
        assert len(part) == 10
        found += part
        pages += 1
    assert found == [payload(number) for number in range(100)]
    assert pages == 10


@pytest.mark.parametrize("length", [8, 16, 1000, READ_BYTES_FIRST, PAYLOAD_BYTES_MAX])
def test_records_in_pieces_of_a_read_are_put_together(length: int) -> None:
    ring_bytes = 4 * 1024 * 1024
    box = Outbox(ring_bytes)
    number = 0
    while box.writer.append(payload(number, length)) is not None:
        number += 1
    assert box.read() == [payload(index, length) for index in range(number)]


def test_one_late_event_is_read_with_one_small_read() -> None:
    box = Outbox()
    box.writer.append(payload(0))
    assert box.page().payloads == [payload(0)]
    assert box.reads == [READ_BYTES_FIRST]


def test_what_is_written_after_the_header_was_read_is_left_for_the_next_time() -> None:
    box = Outbox()
    box.writer.append(payload(0))
    box.writer.append(payload(1))
    assert box.page(written=1).payloads == [payload(0)]


def test_refusals_and_the_farewell_have_words_of_their_own() -> None:
    box = Outbox()
    for count, cause in enumerate(REFUSAL_CAUSES, start=1):
        box.writer.refused(cause, count)
    box.writer.farewell()
    header = box.header()
    assert header.refused == {cause: n for n, cause in enumerate(REFUSAL_CAUSES, start=1)}
    assert header.farewell
    assert box.writer.append(b"x") is not None


# -- rule 1: interrupted at any point ------------------------------------------------------------


class Interrupted(BaseException):
    """What a signal handler raises, in the middle of anything."""


class InterruptAt:
    """Raises at the n-th traced step of the outbox's code: before a line, or a bytecode."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.seen = 0

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> InterruptAt | None:
        if frame.f_code.co_filename not in (layout.__file__, writer.__file__):
            return None
        frame.f_trace_opcodes = True
        self.seen += 1
        if self.seen == self.step:
            sys.settrace(None)
            raise Interrupted
        return self


def interrupted_append(box: Outbox, item: bytes, step: int) -> bool:
    """One append, interrupted at that step; False when it ended before."""
    sys.settrace(InterruptAt(step))
    try:
        box.writer.append(item)
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("records_before", [0, 3, 546])
def test_an_append_interrupted_at_any_step_is_whole_or_was_never_there(records_before: int) -> None:
    step = 0
    while True:
        step += 1
        box = Outbox()
        for number in range(records_before):  # 546: the next one goes around the ring's end
            assert box.writer.append(payload(number)) is not None
            box.read()
        box.confirm()
        interrupted = interrupted_append(box, b"interrupted", step)
        accepted = box.writer.written - records_before
        for number in range(3):
            assert box.writer.append(payload(number)) is not None
        expected = [b"interrupted"] * accepted + [payload(number) for number in range(3)]
        assert (box.read(), box.writer.written) == (expected, records_before + len(expected))
        if not interrupted:
            break
    assert step > 50, "append was not traced"
    assert accepted == 1


def test_interrupted_again_and_again_it_leaves_no_hole() -> None:
    box = Outbox()
    found: list[bytes] = []
    # Every one of them meets what the one before left.
    for step in range(1, 400):
        interrupted_append(box, payload(step), step)
        found += box.read()
        box.confirm()
    numbers = [struct.unpack_from("<Q", item)[0] for item in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == box.writer.written > 100


class Words:
    """The header's words; the store of the sequence is interrupted before or after it happens."""

    def __init__(self, words: Any, before: bool) -> None:
        self.words = words
        self.before = before

    def __getitem__(self, index: int) -> int:
        return int(self.words[index])

    def __setitem__(self, index: int, value: int) -> None:
        if index == WORD_WRITTEN and self.before:
            raise Interrupted
        self.words[index] = value
        if index == WORD_WRITTEN:
            raise Interrupted


@pytest.mark.parametrize("before", [True, False])
def test_the_store_of_the_sequence_is_what_accepts_an_event(before: bool) -> None:
    box = Outbox()
    box.writer.append(payload(0))
    words = box.writer._words
    box.writer._words = Words(words, before)  # type: ignore[assignment] # stands in for them
    with pytest.raises(Interrupted):
        box.writer.append(payload(1))
    box.writer._words = words
    assert box.writer.written == (1 if before else 2)
    box.writer.append(payload(2))
    expected = [payload(0), payload(2)] if before else [payload(0), payload(1), payload(2)]
    assert box.read() == expected


class WatchedRing:
    """The ring; notes the header's sequence at each write into it."""

    def __init__(self, box: Outbox) -> None:
        self.box = box
        self.ring = box.writer._ring
        self.written_then: list[int] = []

    def __getitem__(self, index: slice) -> memoryview:
        return self.ring[index]

    def __setitem__(self, index: slice, value: bytes) -> None:
        self.written_then.append(self.box.writer.written)
        self.ring[index] = value


def test_the_record_is_complete_before_the_header_counts_it() -> None:
    box = Outbox()
    watched = WatchedRing(box)
    box.writer._ring = watched  # type: ignore[assignment] # stands in for it
    for number in range(1000):
        assert box.writer.append(payload(number)) is not None
        assert set(watched.written_then) == {number}
        watched.written_then.clear()
        box.read()
        box.confirm()


# -- any order of things -------------------------------------------------------------------------


class WriterAndReader(RuleBasedStateMachine):
    """A producer and a daemon over one outbox, and a plain queue as the reference."""

    @initialize()
    def begin(self) -> None:
        self.box = Outbox()
        self.waiting: deque[bytes] = deque()  # accepted, not yet read
        self.unconfirmed: deque[int] = deque()  # bytes of records accepted, not yet confirmed
        self.read_unconfirmed = 0
        self.accepted = 0

    @rule(length=st.integers(8, 9000) | st.integers(8, 200), times=st.integers(1, 40))
    def append(self, length: int, times: int) -> None:
        for _ in range(times):
            item = payload(self.accepted, length)
            fits = sum(self.unconfirmed) + record_bytes(length) <= RING
            assert (self.box.writer.append(item) is not None) is fits
            if fits:
                self.accepted += 1
                self.waiting.append(item)
                self.unconfirmed.append(record_bytes(length))

    @rule(length=st.integers(8, 3000), step=st.integers(1, 150))
    def append_interrupted(self, length: int, step: int) -> None:
        item = payload(self.accepted, length)
        before = self.box.writer.written
        interrupted_append(self.box, item, step)
        if self.box.writer.written > before:
            self.accepted += 1
            self.waiting.append(item)
            self.unconfirmed.append(record_bytes(length))

    @rule(bytes_max=st.integers(1, 70_000))
    def read(self, bytes_max: int) -> None:
        for item in self.box.read(bytes_max):
            assert item == self.waiting.popleft()
            self.read_unconfirmed += 1

    @rule()
    def confirm(self) -> None:
        self.box.confirm()
        for _ in range(self.read_unconfirmed):
            self.unconfirmed.popleft()
        self.read_unconfirmed = 0

    @rule()
    def another_daemon(self) -> None:
        """Starts with a watermark past the confirmed one, and passes over what is between."""
        header = self.box.header()
        page = read_records(
            self.box.read_at,
            RING,
            SEED,
            header.confirmed_position,
            after=header.confirmed_sequence,
            written=self.box.taken,
            bytes_max=RING,
        )
        assert (page.position, page.damage) == (self.box.position, None)

    @rule()
    def look_for_the_next(self) -> None:
        if self.waiting:
            found = find_record(
                self.box.read_at, RING, SEED, self.box.taken + 1, self.box.writer.written
            )
            assert found is not None
            assert found[0] == self.box.taken + 1

    @invariant()
    def all_accepted_is_read_or_waits(self) -> None:
        assert self.box.writer.written == self.accepted == self.box.taken + len(self.waiting)
        assert self.box.header().confirmed_sequence <= self.box.taken


TestWriterAndReader = WriterAndReader.TestCase
TestWriterAndReader.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_ring_is_read_across_its_end() -> None:
    box = Outbox()
    box.file[-4:] = b"abcd"
    box.file[HEADER_BYTES : HEADER_BYTES + 4] = b"efgh"
    assert read_ring(box.read_at, RING, 3 * RING - 4, 8) == b"abcdefgh"


def test_words_of_different_writers_lie_in_different_cache_lines() -> None:
    assert WORD_WRITTEN * 8 // 64 != WORD_CONFIRMED_SEQUENCE * 8 // 64
