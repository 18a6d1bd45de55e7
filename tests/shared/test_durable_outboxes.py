"""Durable events of a client without an outbox, or whose outbox is removed or replaced."""

from __future__ import annotations

import os
import signal
import time

import pytest

from logd_client import Client, Outcome
from logd_client.durable import UNKNOWN_TYPE
from tests.shared.client_scene import (
    LONG_S,
    account,
    in_threads,
    notes,
    outbox_of,
)
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, Instance, until
from tests.support.tally import Tally


def test_without_an_outbox_it_is_unknown_at_once(instance: Instance, tally: Tally) -> None:
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        started_s = time.monotonic()
        assert client.emit_durable("quiz_submitted", timeout_s=LONG_S) is Outcome.UNKNOWN
        assert time.monotonic() - started_s < LONG_S / 2
    stats = client.stats()
    until(lambda: instance.status()["stored"] == 2, "both are stored")
    assert notes(account(tally, instance, stats))[1:] == [(UNKNOWN_TYPE, 1, None)]


def test_what_the_kernel_did_not_take_is_reported_with_the_next_event(
    instance: Instance, tally: Tally
) -> None:
    """Without an outbox, and the daemon stopped, until its queue is full."""
    daemon = instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        assert client.emit("page_view")
        until(lambda: instance.status()["stored"] == 1, "the daemon has its producer")
        daemon.popen.send_signal(signal.SIGSTOP)
        while client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.UNKNOWN:
            pass
        unknown = client.stats()["durable_unknown"]
        daemon.popen.send_signal(signal.SIGCONT)
        until(lambda: client.emit("page_view"), "the queue is read")
        stats = client.stats()
    until(lambda: instance.status()["stored"] == stats["accepted"], "all of it is stored")
    events = account(tally, instance, stats)
    named = [event["props"]["sequence"] for event in events if event["type"] == UNKNOWN_TYPE]
    quizzes = [event["sequence"] for event in events if event["type"] == "quiz_submitted"]
    assert named == quizzes
    assert len(named) == unknown > 0


def test_an_outbox_removed_under_a_durable_event_is_noticed_and_the_next_one_says_so(
    instance: Instance, tally: Tally
) -> None:
    """The daemon has the removed file open: it reads the event there, and confirms it."""
    daemon = instance.start()
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", timeout_s=LONG_S) is Outcome.STORED
        daemon.popen.send_signal(signal.SIGSTOP)
        outcomes: list[Outcome] = []

        def hand_in(_: int) -> None:
            outcomes.append(client.emit_durable("quiz_submitted", user=7, timeout_s=1.0))

        with in_threads(1, hand_in):
            until(lambda: client.stats()["accepted"] == 2, "the event is accepted")
            outbox_of(instance).unlink()
        assert outcomes == [Outcome.UNKNOWN]
        new = client.stats()["producer"]
        assert client.emit("page_view")
        daemon.popen.send_signal(signal.SIGCONT)
        assert client.flush(LONG_S)
        assert client.emit("page_view")
        stats = client.stats()
        assert stats["unsettled"] == 0
    events = account(tally, instance, stats)
    old = events[0]["producer"]
    by_new = [event for event in events if event["producer"].endswith(new)]
    assert notes(by_new) == [
        (UNKNOWN_TYPE, 2, None), ("page_view", None, None), ("durable_settled", 2, "stored"),
        ("page_view", None, None),
    ]  # fmt: skip
    assert [event["props"].get("producer") for event in by_new] == [old, None, old, None]
    assert [event["user"] for event in by_new] == ["7", None, "7", None]
    assert not old.endswith(new)


def test_what_an_outbox_confirmed_before_it_was_given_up_is_settled_as_stored(
    instance: Instance, tally: Tally
) -> None:
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", user=7, timeout_s=0) is Outcome.UNKNOWN
        old = client.stats()["producer"]
        # Closing any descriptor of it lets go of the lock: to the daemon this process is dead, so
        # it stores all of it and removes the file.
        outbox = outbox_of(instance)
        os.close(os.open(outbox, os.O_RDONLY))
        instance.start()
        until(lambda: not outbox.exists(), "the outbox is removed")
        assert client.emit_durable("exam_handed_in", user=8, timeout_s=0) is Outcome.UNKNOWN
        assert client.emit("page_view")
        assert client.flush(LONG_S)
    # Nothing went into the outbox without a name: it was looked at before.
    events = account(tally, instance, client.stats())
    settled = [
        (e["props"]["producer"].partition("-")[2], e["props"]["sequence"], e["props"]["outcome"])
        for e in events
        if e["type"] == "durable_settled"
    ]
    assert settled[0] == (old, 1, "stored")
    assert [(sequence, outcome) for _, sequence, outcome in settled[1:]] == [(2, "stored")]


def test_an_unknown_one_of_a_client_that_finds_an_outbox_later_is_closed(
    instance: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd_client.producer.OUTBOX_RETRY_INTERVAL_S", 0.0)
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.UNKNOWN
        old = client.stats()["producer"]
        parts.use_default_directory(client)
        assert client.emit("page_view")
        assert client.emit_durable("quiz_submitted", timeout_s=LONG_S) is Outcome.STORED
        stats = client.stats()
        assert stats["unsettled"] == 0
    events = account(tally, instance, stats)
    (settled,) = (event for event in events if event["type"] == "durable_settled")
    assert settled["props"]["producer"].endswith(old)
    assert (settled["props"]["sequence"], settled["props"]["outcome"]) == (1, "unknown")


def test_another_producer_s_numbers_vouch_for_nothing(
    instance: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread waits for number 3 of one whose outbox is removed; the next one gets past 3."""
    monkeypatch.setattr("logd_client.former_producers.REMOVED_WAIT_S", 0.2)
    outcomes: list[Outcome] = []
    with Client(instance.socket, outbox_bytes=65536) as client:
        assert client.emit("page_view") and client.emit("page_view")

        def hand_in(_: int) -> None:
            outcomes.append(client.emit_durable("quiz_submitted", timeout_s=5.0))

        with in_threads(1, hand_in):
            until(lambda: client.stats()["accepted"] == 3, "the event is accepted")
            outbox_of(instance).unlink()
            parts.producer(client).compare_due_s = 0.0
            old = client.stats()["producer"]
            until(
                lambda: client.emit("page_view") and client.stats()["producer"] != old,
                "another producer",
            )
            assert [client.emit("page_view") for _ in range(5)] == [True] * 5
        assert outcomes == [Outcome.UNKNOWN]
        assert client.emit("page_view")
        instance.start()
        assert client.flush(10.0) is False, "what was in the removed outbox is not on the disk"
        until(lambda: client.stats()["unsettled"] == 0 or not client.emit("page_view"), "settled")
        assert client.flush(LONG_S) is False
    # The first producer's events were in the removed outbox only, and no daemon was there: they are
    # lost, and the ledger has them by number.
    events = account(tally, instance, client.stats())
    assert ("durable_settled", 3, "unknown") in notes(events)
    assert instance.status()["lost"] == 3
