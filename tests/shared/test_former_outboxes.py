"""Outboxes that were removed, retired or given up: what they hold is followed, and counted once."""

from __future__ import annotations

import os
from typing import Any

import pytest

from logd_client import Client, Outcome
from logd_client.producer import Producer
from logd_client.succession import REFUSED_OUTBOXES_MAX
from logd_wire.outbox.layout import (
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_GIVEN_UP,
    WORD_RETIRED,
)
from tests.shared.client_scene import check_stats, confirm_all, in_threads, retire_present
from tests.support import client_parts as parts
from tests.support.instance import Instance, check_sums, until


def test_an_event_that_a_retired_outbox_holds_unread_is_written_to_the_next_one(
    instance: Instance,
) -> None:
    """It was written after the daemon had looked for the last time: it is accepted all the same."""
    with Client(instance.socket) as client:
        retire_present(client)
        assert client.emit("page_view", user="2")
        stats = client.stats()
        assert (stats["accepted"], stats["confirmed"], stats["pending"]) == (2, 1, 1)
    instance.start()
    assert instance.settle()["stored"] == 1  # the first was confirmed in the header
    assert [event["user"] for event in instance.events()] == ["2"]


def test_a_durable_event_confirmed_while_its_successor_is_made_keeps_its_number(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        outbox, make = parts.outbox(client), parts.producers(client).make
        parts.producer(client).sends, parts.producer(client).compare_due_s = False, 0.0
        os.close(parts.descriptor(outbox))

        def slow(*arguments: Any) -> Producer:
            confirm_all(outbox)
            return make(*arguments)

        monkeypatch.setattr(parts.producers(client), "make", slow)
        assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.STORED
        assert client.stats()["durable_unknown"] == 0


def test_only_the_event_of_the_producer_just_left_is_moved_with_a_call(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one is retired at the same time: its event is moved too, not in this one's stead."""
    with Client(instance.socket) as client:
        first = retire_present(client, removed=False)
        assert client.emit("page_view", user="in the first")
        second = parts.outbox(client)
        parts.producer(client).sends = False
        os.close(parts.descriptor(second))
        parts.producer(client).compare_due_s = 0.0
        make = parts.producers(client).make

        def slow(*arguments: Any) -> Producer:
            parts.path(first).unlink()
            confirm_all(second)
            parts.words(second)[WORD_CONFIRMED_POSITION] = second.writer.bytes_written
            return make(*arguments)

        with monkeypatch.context() as context:
            context.setattr(parts.producers(client), "make", slow)
            assert client.emit("page_view", user="in the second")
        assert client.emit("page_view", user="later")
        ring = parts.ring(parts.outbox(client))
        found = [text in ring for text in (b"in the first", b"in the second", b"later")]
        assert found == [True, False, True]
        stats = client.stats()
        assert (stats["accepted"], stats["confirmed"]) == (4, 2)


def test_what_a_former_outbox_holds_unread_is_written_again_by_flush(instance: Instance) -> None:
    with Client(instance.socket) as client:
        outbox = retire_present(client, removed=False)
        assert client.emit("page_view")
        parts.path(outbox).unlink()
        instance.start()
        assert client.flush(30)
        assert client.stats()["confirmed"] == 2


def test_a_durable_event_that_is_written_again_is_waited_for_where_it_is(
    instance: Instance,
) -> None:
    outcomes: list[Outcome] = []
    with Client(instance.socket) as client:
        outbox = retire_present(client, removed=False)
        with in_threads(
            1, lambda _: outcomes.append(client.emit_durable("quiz_submitted", timeout_s=30))
        ):
            until(lambda: len(parts.producers(client).awaited) == 1, "it waits")
            parts.path(outbox).unlink()
            instance.start()
            assert client.emit("page_view")
        assert outcomes == [Outcome.STORED]
        assert client.flush(30)
        assert client.stats()["durable_unknown"] == 0


def test_confirmations_of_what_was_never_written_are_not_counted(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        parts.words(parts.outbox(client))[WORD_CONFIRMED_SEQUENCE] = 1000
        stats = client.stats()
        assert (stats["confirmed"], stats["pending"]) == (1, 0)


@pytest.mark.parametrize("removed", [True, False])
def test_an_outbox_that_is_given_up_is_followed_and_nothing_of_it_written_again(
    instance: Instance, removed: bool
) -> None:
    """The daemon has booked the rest as lost: written again, an event would be counted twice."""
    with Client(instance.socket) as client:
        assert client.emit("page_view", user="first")
        assert client.emit("page_view", user="unread")
        outbox = parts.outbox(client)
        words = parts.words(outbox)
        words[WORD_CONFIRMED_SEQUENCE] = 1
        words[WORD_CONFIRMED_POSITION] = outbox.writer.bytes_written // 2
        words[WORD_GIVEN_UP] = 1
        if removed:
            words[WORD_RETIRED] = 1
            parts.path(outbox).unlink()
        assert client.emit("page_view", user="next")
        successor = parts.outbox(client)
        assert successor is not outbox
        assert client.emit("page_view", user="last")
        ring = parts.ring(successor)
        assert [text in ring for text in (b"unread", b"next", b"last")] == [False, True, True]
        stats = client.stats()
        assert (stats["accepted"], stats["confirmed"], stats["pending"]) == (4, 1, 3)


def test_each_refusal_is_reported_by_one_producer_of_a_client(instance: Instance) -> None:
    """The daemon adds up what all of them report."""
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        for _ in range(3):
            assert not client.emit("Not A Type")
        assert client.flush()
        os.close(parts.descriptor(parts.outbox(client)))
        parts.producer(client).sends, parts.producer(client).compare_due_s = True, 0.0
        assert client.emit("page_view")
        assert not client.emit("Not A Type")
        assert client.stats()["refused"] == 4
    until(lambda: instance.status()["outboxes"] == 0, "both ends are stored")
    assert instance.status()["refused_by_clients"] == 4


def test_the_farewell_for_an_outbox_that_is_lost_has_its_refusals(instance: Instance) -> None:
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        assert not client.emit("Not A Type")
        parts.path(parts.outbox(client)).unlink()
        parts.producer(client).sends, parts.producer(client).compare_due_s = True, 0.0
        assert client.emit("page_view")
        instance.start()
        assert not client.emit("Not A Type")
        parts.former_producers(client)._check_due_s = 0.0
        until(
            lambda: client.emit("page_view") and instance.status()["lost"] == 1,
            "its loss is booked",
        )
    until(lambda: instance.status()["outboxes"] == 0, "its end is stored")
    assert instance.status()["refused_by_clients"] == 2


def test_a_client_whose_outboxes_are_refused_does_not_fill_memory_with_them(
    instance: Instance,
) -> None:
    with Client(instance.socket) as client:
        for number in range(1, 10):
            if client.emit("page_view", user=number) and client.stats()["outbox"]["reason"] is None:
                parts.words(parts.outbox(client))[WORD_GIVEN_UP] = 1
            parts.producer(client).retry_outbox_after_s = 0.0
        files = list(instance.config.outbox_directory.glob("*.outbox"))
        assert len(files) == REFUSED_OUTBOXES_MAX
        assert "logd quarantine" in client.stats()["outbox"]["reason"]
        assert client.stats()["refused_by_cause"] == {"undelivered": 6}


def test_a_client_whose_outbox_was_removed_continues_with_another_and_counts_both(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no daemon there, what was in the removed file is lost: the ledger has it by number."""
    monkeypatch.setattr("logd_client.former_producers.REMOVED_WAIT_S", 0.2)
    monkeypatch.setattr("logd_client.client.REMOVED_WAIT_S", 0.2)
    with Client(instance.socket, outbox_bytes=65536) as client:
        assert client.emit("page_view")
        for path in instance.config.outbox_directory.glob("*.outbox"):
            path.unlink()
        parts.producer(client).compare_due_s = 0.0
        accepted = 1
        while client.emit("page_view"):
            accepted += 1
        assert accepted > 300, "the other outbox is filled"
        instance.start()
        assert client.flush(20) is False
        stats = check_stats(client, accepted=accepted, confirmed=accepted - 1, pending=1)
        assert len(list(instance.config.outbox_directory.glob("*.outbox"))) == 1
    until(lambda: instance.status()["lost"] == 1, "its farewell is booked")
    status = instance.settle()
    assert status["stored"] == accepted - 1
    check_sums(status, attempted=stats["attempted"], accepted=accepted, refused=stats["refused"])


def test_stats_can_be_asked_of_an_outbox_that_nothing_is_written_to_yet(
    instance: Instance,
) -> None:
    """Its producer followed another, so events were accepted, but none in this one."""
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        producers = parts.producers(client)
        producers.replace_producer(parts.producer(client), producers.make())
        assert client.stats()["outbox"]["room_s"] is None
        check_stats(client, accepted=1, refused_by_cause={}, pending=1)
