"""The outbox as bytes: one side writes, one reads, and neither disturbs the other."""

from __future__ import annotations

import struct
import sys
from collections import deque
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from logd_wire.outbox import layout, writer
from logd_wire.outbox.layout import (
    CONFIRMED_OFFSET,
    HEADER_BYTES,
    REFUSAL_CAUSES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_SEQUENCE,
    WORD_RING_BYTES,
    WORD_WRITTEN,
    Header,
    OutboxError,
    aligned,
    outbox_bytes,
    parse_header,
    read_ring,
)
from logd_wire.outbox.reader import READ_BYTES_FIRST, Page, RecordSearch, find_record, read_records
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.schema import PAYLOAD_BYTES_MAX
from logd_wire.wire import (
    RECORD_HEAD,
    OtherVersion,
    WireError,
    decode_record,
    encode_record,
    producer_seed,
)

PRODUCER = 0xFEDCBA9876543210
SEED = producer_seed(PRODUCER)
RING = RING_BYTES_MIN


class Outbox:
    """An outbox in memory: the producer's end of it, and the daemon's."""

    def __init__(self, ring_bytes: int = RING) -> None:
        self.file = bytearray(outbox_bytes(ring_bytes))
        self.writer = OutboxWriter(memoryview(self.file), PRODUCER, pid=1, now_ns=2)
        self.reads: list[int] = []
        self.position = 0
        self.taken = 0

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append(length)
        return bytes(self.file[offset : offset + length])

    def header(self) -> Header:
        return parse_header(bytes(self.file[:HEADER_BYTES]), len(self.file))

    def read(self, bytes_max: int = 10**9) -> list[bytes]:
        """Takes what is new, as the daemon does."""
        page = self.page(bytes_max)
        assert page.damage is None
        self.position = page.position
        self.taken += len(page.payloads)
        return page.payloads

    def page(self, bytes_max: int = 10**9, written: int | None = None) -> Page:
        header = self.header()
        return read_records(
            self.read_at,
            header.ring_bytes,
            SEED,
            self.position,
            after=self.taken,
            written=header.written if written is None else written,
            bytes_max=bytes_max,
        )

    def confirm(self) -> None:
        """Says that all that was taken is on disk."""
        words = struct.pack("=QQ", self.taken, self.position)
        self.file[CONFIRMED_OFFSET : CONFIRMED_OFFSET + 16] = words

    def damage(self, position: int) -> None:
        self.file[HEADER_BYTES + position % RING] ^= 0xFF


def payload(number: int, length: int = 100) -> bytes:
    return struct.pack("<Q", number).ljust(length, b".")


def record_bytes(length: int) -> int:
    return aligned(RECORD_HEAD.size + length)


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


def test_records_below_the_one_expected_are_damage_and_not_passed_over() -> None:
    """A ring full of them has no end: a reader that skipped them would read for ever."""
    box = Outbox()
    whole = encode_record(SEED, 1, payload(0, 1008))
    assert RING % len(whole) == 0
    box.file[HEADER_BYTES:] = whole * (RING // len(whole))
    page = read_records(box.read_at, RING, SEED, 0, after=1, written=2, bytes_max=10**6)
    assert page.payloads == [] and page.damage == "another record: 2 expected, 1 found"


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


# -- damage --------------------------------------------------------------------------------------


def test_a_torn_record_ends_the_reading_before_it() -> None:
    box = Outbox()
    for number in range(5):
        box.writer.append(payload(number))
    box.damage(2 * record_bytes(100) + 50)
    page = box.page()
    assert page.payloads == [payload(0), payload(1)]
    assert page.position == 2 * record_bytes(100)
    assert page.damage is not None
    assert "damaged" in page.damage


def test_a_header_that_counts_records_that_are_not_there_is_found_out() -> None:
    box = Outbox()
    box.writer.append(payload(0))
    memoryview(box.file)[:HEADER_BYTES].cast("Q")[WORD_WRITTEN] = 3
    page = box.page()
    assert page.payloads == [payload(0)]
    assert page.damage is not None


def test_a_file_cut_short_is_damage_and_no_crash() -> None:
    box = Outbox()
    for number in range(5):
        box.writer.append(payload(number))
    whole = bytes(box.file)
    for end in range(HEADER_BYTES, HEADER_BYTES + 5 * record_bytes(100) - 8, 4):
        cut = whole[:end]
        page = read_records(
            lambda offset, length, cut=cut: cut[offset : offset + length],  # type: ignore[misc]
            RING, SEED, 0, after=0, written=5, bytes_max=10**6,
        )  # fmt: skip
        assert page.damage is not None
        assert page.payloads == [payload(number) for number in range(len(page.payloads))]


def test_the_lowest_readable_record_is_found_after_damage() -> None:
    box = Outbox()
    for number in range(5):
        box.writer.append(payload(number))
    box.damage(0)
    assert find_record(box.read_at, RING, SEED, 1, 5) == (2, record_bytes(100))
    assert find_record(box.read_at, RING, SEED, 4, 5) == (4, 3 * record_bytes(100))
    assert find_record(box.read_at, RING, SEED, 6, 6) is None


@pytest.mark.parametrize("slice_bytes", [8, 24, 4096, 64 * 1024])
def test_a_search_in_slices_finds_what_one_in_one_go_finds(slice_bytes: int) -> None:
    box = Outbox()
    for number in range(1100):
        box.writer.append(payload(number, 100 + number % 400))
        box.read()
        box.confirm()
    for damaged in (0, 1000, 20_000):
        box.damage(box.position + damaged)
    written = box.writer.written
    for sequence_min in (1, written - 30, written, written + 1):
        search = RecordSearch(box.read_at, RING, SEED, sequence_min, written)
        steps = 1
        while not search.step(slice_bytes):
            steps += 1
        assert search.found == find_record(box.read_at, RING, SEED, sequence_min, written)
        assert steps >= RING // slice_bytes


def test_a_slice_is_short_whatever_the_ring_is_made_to_look_like() -> None:
    """Each multiple of eight looks like the head of a large record."""
    box = Outbox(1024 * 1024)
    box.file[HEADER_BYTES:] = (32_768).to_bytes(8, "little") * (1024 * 1024 // 8)
    search = RecordSearch(box.read_at, 1024 * 1024, SEED, 1, 2**62)
    checked = 0

    def counting(data: bytes, offset: int, seed: int) -> tuple[int, bytes, int]:
        nonlocal checked
        checked += 32_768
        return decode_record(data, offset, seed)

    with pytest.MonkeyPatch.context() as context:
        context.setattr("logd_wire.outbox.reader.decode_record", counting)
        assert not search.step(64 * 1024)
    # A byte of CRC costs an eighth of what one that is searched costs.
    assert 0 < checked <= 64 * 1024 * 8 + 32_768


def test_a_record_around_the_rings_end_is_found() -> None:
    box = Outbox()
    while box.position + record_bytes(1000) <= RING:
        box.writer.append(payload(0, 1000))
        box.read()
        box.confirm()
    box.writer.append(payload(1, 1000))
    sequence = box.writer.written
    assert find_record(box.read_at, RING, SEED, sequence, sequence) == (sequence, box.position)


def test_records_of_an_earlier_round_are_found_for_a_database_from_a_backup() -> None:
    box = Outbox()
    for number in range(2000):
        box.writer.append(payload(number))
        box.read()
        box.confirm()
    found = find_record(box.read_at, RING, SEED, 1, 2000)
    assert found is not None
    in_ring = RING // record_bytes(100)
    assert 2000 - in_ring < found[0] <= 2000 - in_ring + 2


@pytest.mark.parametrize(
    ("word", "value", "reason"),
    [
        (layout.WORD_MAGIC, 0, "not an outbox"),
        (layout.WORD_VERSION, 2, "other version"),
        (WORD_RING_BYTES, 0, "impossible ring"),
        (WORD_RING_BYTES, RING + 1, "impossible ring"),
        (WORD_RING_BYTES, RING + 8, "impossible ring"),
        (WORD_RING_BYTES, 2**64 - 8, "impossible ring"),
        (WORD_WRITTEN, 2**63, "impossible sequence"),
    ],
)
def test_a_header_that_no_producer_writes_is_refused(word: int, value: int, reason: str) -> None:
    box = Outbox()
    memoryview(box.file)[:HEADER_BYTES].cast("Q")[word] = value
    with pytest.raises(OutboxError if word != layout.WORD_VERSION else OtherVersion, match=reason):
        box.header()


@given(
    st.dictionaries(st.integers(0, 63), st.integers(0, 2**64 - 1), max_size=20),
    st.sampled_from([outbox_bytes(RING), 0, HEADER_BYTES]),
)
def test_a_header_of_arbitrary_words_is_refused_or_within_every_limit(
    changed: dict[int, int], file_bytes: int
) -> None:
    box = Outbox()
    words = memoryview(box.file)[:HEADER_BYTES].cast("Q")
    for word, value in changed.items():
        words[word] = value
    try:
        header = parse_header(words.tobytes(), file_bytes)
    except WireError:
        return
    assert header.ring_bytes == RING
    assert file_bytes == outbox_bytes(RING)
    assert header.written < 2**63
    assert all(0 < count < 2**63 for count in header.refused.values())


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
    box.writer._words = Words(words, before)  # type: ignore[assignment]
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
    box.writer._ring = watched  # type: ignore[assignment]
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
