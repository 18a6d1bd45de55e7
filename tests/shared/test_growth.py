"""A small ring first, then larger ones: memory in proportion to what is logged, in order."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd_client import Client
from logd_client.durable import DurableEvent
from logd_client.growth import RETRY_INTERVAL_S, Growth, first_ring_bytes, next_ring_bytes
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    NOTE_BYTES_MAX,
    RING_BYTES_MAX,
    RING_BYTES_MIN,
    WORD_FOLLOWS,
    WORD_GROWTH_BYTES,
    Header,
    parse_header,
)
from tests.shared.client_scene import confirm_all
from tests.support import client_parts as parts
from tests.support.instance import Instance, check_sums

MIB = 1024 * 1024
TEXT = {"text": "x" * 1000}


def files(instance: Instance) -> list[Path]:
    """The outboxes, smallest first."""
    paths = instance.config.outbox_directory.glob("*.outbox")
    return sorted(paths, key=lambda path: path.stat().st_size)


def taken_bytes(instance: Instance) -> int:
    return sum(path.stat().st_blocks * 512 for path in files(instance))


def header_of(client: Client) -> Header:
    outbox = parts.outbox(client)
    return parse_header(parts.words(outbox).tobytes(), HEADER_BYTES + outbox.writer.ring_bytes)


def fill(client: Client) -> int:
    """Emits until it is refused; how many events were accepted."""
    accepted = 0
    while client.emit("page_view", props={**TEXT, "n": accepted}):
        accepted += 1
    return accepted


def grow(client: Client) -> int:
    """Emits until a larger ring has followed; how many events were accepted."""
    assert client.emit("page_view")
    first = parts.current(client)
    accepted = 1
    while parts.current(client) is first:
        assert client.emit("page_view", props=TEXT)
        accepted += 1
    return accepted


# -- sizes ---------------------------------------------------------------------------------------


@given(st.integers(-1, 2 * RING_BYTES_MAX))
def test_all_rings_together_take_no_more_than_the_room_and_nearly_all_of_it(room: int) -> None:
    most = min(max(room, RING_BYTES_MIN), RING_BYTES_MAX) & -8
    ring, former_bytes = first_ring_bytes(room), 0
    assert ring >= RING_BYTES_MIN
    for _ in range(10):
        following = next_ring_bytes(ring, former_bytes, room)
        if not following:
            break
        assert following > ring
        assert following % 8 == 0
        former_bytes, ring = former_bytes + ring, following
    assert former_bytes + ring == most


@given(st.integers(RING_BYTES_MIN, RING_BYTES_MAX), st.integers(0, RING_BYTES_MAX))
def test_a_ring_is_only_followed_by_a_larger_one(room: int, former_bytes: int) -> None:
    """Two that are full in turn would follow each other for ever."""
    ring = first_ring_bytes(room)
    following = next_ring_bytes(ring, former_bytes, room)
    assert following == 0 or following > ring
    assert following == 0 or former_bytes + ring + following <= room
    assert (following == 0) == (Growth(room).left_bytes(ring, former_bytes) == 0)


def test_a_client_of_the_default_room_grows_in_two_steps() -> None:
    assert first_ring_bytes(8 * MIB) == 64 * 1024
    assert next_ring_bytes(64 * 1024, 0, 8 * MIB) == 512 * 1024
    assert next_ring_bytes(512 * 1024, 64 * 1024, 8 * MIB) == 8 * MIB - 576 * 1024


# -- growing -------------------------------------------------------------------------------------


def test_what_a_process_logs_decides_what_it_takes_of_memory(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        assert taken_bytes(instance) == HEADER_BYTES + 64 * 1024
        accepted = 1 + fill(client)
        made = files(instance)
        rings = [path.stat().st_size - HEADER_BYTES for path in made]
        assert rings == [64 * 1024, 512 * 1024, 8 * MIB - 576 * 1024]
        assert sum(rings) == 8 * MIB
        assert all(path.stat().st_blocks * 512 == path.stat().st_size for path in made)
        stats = client.stats()
        assert (stats["accepted"], stats["pending"]) == (accepted, accepted)
        assert stats["outbox"]["used_bytes"] > 8 * MIB - 4096
        assert stats["outbox"]["room_bytes"] < 1100
        instance.start()
        assert client.flush(30)
        assert client.stats()["pending"] == 0
    status = instance.settle()
    assert status["stored"] == accepted
    check_sums(status, attempted=accepted + 1, accepted=accepted, refused=1)
    events = [event["props"]["n"] for event in instance.events()[1:]]
    assert events == list(range(accepted - 1)), "in the order in which they were logged"


def test_room_and_use_are_reported_for_all_rings_together(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=MIB) as client:
        assert client.emit("page_view")
        outbox = client.stats()["outbox"]
        assert outbox["used_bytes"] + outbox["room_bytes"] == MIB
        grow(client)
        outbox = client.stats()["outbox"]
        # The end of the first ring was too short for the event that came next.
        assert 0 <= MIB - outbox["used_bytes"] - outbox["room_bytes"] < 1100


def test_the_next_ring_names_the_one_before_and_the_bytes_that_may_follow(
    instance: Instance,
) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        first = header_of(client)
        assert (first.follows, first.growth_bytes) == (0, 8 * MIB - 64 * 1024)
        assert first.room_bytes == 8 * MIB
        grow(client)
        second = header_of(client)
        assert (second.follows, second.growth_bytes) == (first.producer_id, 8 * MIB - 576 * 1024)
        fill(client)
        third = header_of(client)
        assert (third.follows, third.growth_bytes) == (second.producer_id, 0)


def test_a_former_ring_that_was_removed_takes_none_of_the_room(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=MIB) as client:
        grow(client)
        room = client.stats()["outbox"]["room_bytes"]
        for path in files(instance):
            path.unlink()
        parts.producer(client).compare_due_s = 0.0
        assert client.emit("page_view")
        outbox = client.stats()["outbox"]
        assert outbox["room_bytes"] + outbox["used_bytes"] == MIB > room
        assert header_of(client).growth_bytes == MIB - 64 * 1024


def test_a_child_begins_with_a_small_ring_whatever_its_parent_had(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=MIB) as client:
        grow(client)
        child = os.fork()
        if child == 0:
            ok = client.emit("page_view") and header_of(client).ring_bytes == RING_BYTES_MIN
            os._exit(0 if ok and header_of(client).follows == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_change_that_a_signal_handler_cuts_short_leaves_the_ring_that_there_is(
    instance: Instance,
) -> None:
    """It counts among the former ones already, and all of it is confirmed before the next call."""
    with Client(instance.socket, outbox_bytes=MIB) as client:
        assert client.emit("page_view")
        producer = parts.producer(client)
        assert producer.outbox is not None
        parts.former_producers(client).add(producer, time.monotonic(), outgrown=True)
        confirm_all(producer.outbox)
        assert client.emit("page_view")
        assert parts.current(client) is producer
        assert list(parts.former_producers(client)) == []
        stats = client.stats()
        assert (stats["accepted"], stats["confirmed"], stats["pending"]) == (2, 1, 1)


# -- memory that cannot be had -------------------------------------------------------------------


class Memory:
    """Room for outboxes of that size at most, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.most, self.tries = most, 0
        self._allocate = os.posix_fallocate
        monkeypatch.setattr(os, "posix_fallocate", self.allocate)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        self.tries += 1
        if length > HEADER_BYTES + self.most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._allocate(fd, offset, length)


def test_without_memory_for_a_larger_ring_the_one_there_is_serves_and_is_tried_again(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(monkeypatch, RING_BYTES_MIN)
    now_s = 1000.0
    with Client(instance.socket, environment=parts.by_clock(lambda: now_s)) as client:
        accepted = fill(client)
        assert accepted > 50
        assert memory.tries == 2, "the first ring, and a larger one"
        for _ in range(20):
            assert not client.emit("page_view", props=TEXT)
        assert memory.tries == 2, "not at each refusal"
        assert any("No space left" in record.getMessage() for record in caplog.records)
        assert len(files(instance)) == 1
        assert header_of(client).growth_bytes == 0, "the daemon's figures do not count on it"
        stats = client.stats()
        assert stats["refused_by_cause"] == {"outbox_full": 21}
        assert stats["outbox"]["room_bytes"] < 1100
        now_s += RETRY_INTERVAL_S
        assert not client.emit("page_view", props=TEXT)
        assert memory.tries == 3
        memory.most = 8 * MIB
        now_s += RETRY_INTERVAL_S
        assert client.emit("page_view", props={**TEXT, "n": accepted})
        assert len(files(instance)) == 2
        assert client.stats()["outbox"]["room_bytes"] > 7 * MIB
        assert client.emit("page_view", props={**TEXT, "n": accepted + 1})
        attempted = client.stats()["attempted"]
        monkeypatch.undo()
        instance.start()
        assert client.flush(30)
    status = instance.settle()
    check_sums(status, attempted=attempted, accepted=accepted + 2, refused=22)
    numbers = [event["props"]["n"] for event in instance.events()]
    assert numbers == list(range(accepted + 2))


def test_the_ring_there_is_takes_again_what_the_daemon_makes_room_for(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memory(monkeypatch, RING_BYTES_MIN)
    with Client(instance.socket) as client:
        fill(client)
        first = parts.current(client)
        instance.start()
        assert client.flush(30)
        assert client.emit("page_view", props=TEXT)
        assert parts.current(client) is first
        assert client.flush(30)


# -- durable events ------------------------------------------------------------------------------


def waiting(client: Client, **event: Any) -> DurableEvent:
    """A durable event whose caller waits."""
    ticket = DurableEvent(tell_user=False)
    assert client._emitter.accept("quiz_submitted", None, event, None, ticket)
    return ticket


def test_note_space_of_durable_events_is_reserved_in_the_ring_that_follows(
    instance: Instance,
) -> None:
    with Client(instance.socket, outbox_bytes=MIB) as client:
        first_ticket = waiting(client)
        first = parts.outbox(client).writer
        assert first.reserved_bytes == NOTE_BYTES_MAX
        grow(client)
        second_ticket = waiting(client)
        second = parts.outbox(client).writer
        assert (first.reserved_bytes, second.reserved_bytes) == (0, 2 * NOTE_BYTES_MAX)
        fill(client)
        for ticket in (first_ticket, second_ticket):
            parts.durable(client)._record_unknown(ticket)
            assert ticket.unknown_recorded, "though the ring is full"
            parts.durable(client).release(ticket, False)
        assert second.reserved_bytes == 0


def test_a_durable_event_that_needs_a_larger_ring_has_its_room_there(instance: Instance) -> None:
    with Client(instance.socket, outbox_bytes=MIB) as client:
        assert client.emit("page_view")
        first = parts.current(client)
        while parts.current(client) is first:
            waiting_for = waiting(client, **TEXT)
        assert parts.outbox(client).writer.reserved_bytes >= NOTE_BYTES_MAX
        assert waiting_for.sequence == 1


# -- what an emit costs ----------------------------------------------------------------------------


def test_former_rings_are_checked_at_intervals_and_not_by_each_emit(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    clock = parts.by_clock(lambda: now_s)
    with Client(instance.socket, outbox_bytes=MIB, environment=clock) as client:
        grow(client)
        assert client.emit("page_view")
        looks = 0
        settle = parts.durable(client).record_resolved

        def counted() -> None:
            nonlocal looks
            looks += 1
            settle()

        monkeypatch.setattr(parts.durable(client), "record_resolved", counted)
        for _ in range(10):
            assert client.emit("page_view")
        assert looks == 0
        now_s += 1.0
        assert client.emit("page_view")
        assert looks == 1


def test_words_of_growth_are_the_producers_alone(instance: Instance) -> None:
    """A child of the process writes to none of its parent's."""
    with Client(instance.socket) as client:
        grow(client)
        writer = parts.outbox(client).writer
        words = parts.words(parts.outbox(client))
        assert words[WORD_GROWTH_BYTES]
        before = words[WORD_FOLLOWS], words[WORD_GROWTH_BYTES]
        child = ctypes.PyDLL(None).fork()  # without hooks: with its parent's mapping
        if child == 0:
            writer.no_growth()
            os._exit(parts.producer(client).mark[0])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (words[WORD_FOLLOWS], words[WORD_GROWTH_BYTES]) == before
