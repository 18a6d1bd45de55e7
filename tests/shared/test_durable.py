"""Durable events: stored, refused or unknown, and what the trail records of the unknown ones."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from benchmarks.harness import slow_flush
from logd_client import Client, Outcome, durable
from logd_client.durable import UNKNOWN_TYPE, UNRESOLVED_MAX
from logd_wire.outbox.layout import NOTE_BYTES_MAX
from logd_wire.schema import EVENT_TYPE_CHARS_MAX, INT64_MAX, USER_BYTES_MAX
from tests.shared.client_scene import (
    LONG_S,
    account,
    hold_waits,
    in_threads,
    notes,
)
from tests.support import client_parts as parts
from tests.support.instance import Instance, until
from tests.support.tally import Tally

FLUSH_MS = 80
THREADS = 200


# -- group commits -------------------------------------------------------------------------------


def test_200_threads_on_a_slow_disk_share_group_commits(
    instance: Instance, tally: Tally, directory: Path
) -> None:
    """One flush an event would make as many commits as there are events."""
    try:
        slow = slow_flush.environment(directory, FLUSH_MS)
    except slow_flush.NoCompiler as error:
        pytest.skip(f"no slow disk: {error}")
    instance.start(env=slow)
    outcomes: list[Outcome] = []
    with Client(instance.socket) as client:
        before = instance.status()

        def hand_in(n: int) -> None:
            for quiz in range(3):
                outcomes.append(
                    client.emit_durable(
                        "quiz_submitted", user=n, props={"quiz": quiz}, timeout_s=LONG_S
                    )
                )

        with in_threads(THREADS, hand_in):
            pass
        after = instance.status()
        stats = client.stats()
    assert outcomes == [Outcome.STORED] * (3 * THREADS)
    stored, commits = after["stored"] - before["stored"], after["commits"] - before["commits"]
    assert stored == 3 * THREADS
    assert commits >= 3, "a thread's second event comes after the commit of its first"
    assert stored / commits >= 20
    tally.say(
        f"durable: {stored} events of {THREADS} threads in {commits} commits of {FLUSH_MS} ms,"
        f" {stored / commits:.0f} events each"
    )
    account(tally, instance, stats)


# -- unknown -------------------------------------------------------------------------------------


def test_without_a_daemon_the_outcome_is_unknown_and_the_trail_says_so_right_behind_the_event(
    instance: Instance, tally: Tally
) -> None:
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", user=7, timeout_s=0.05) is Outcome.UNKNOWN
        assert client.emit("page_view")
        stats = client.stats()
        assert (stats["durable_unknown"], stats["unsettled"]) == (1, 1)
    instance.start()
    events = account(tally, instance, stats)
    assert [event["type"] for event in events] == ["quiz_submitted", UNKNOWN_TYPE, "page_view"]
    quiz, unknown, _ = events
    assert unknown["user"] == "7"
    assert unknown["props"] == {
        "producer": quiz["producer"], "sequence": quiz["sequence"], "type": "quiz_submitted",
    }  # fmt: skip


def test_whether_the_user_is_informed_is_recorded_in_the_trail(
    instance: Instance, tally: Tally
) -> None:
    with Client(instance.socket) as client:
        assert not client.emit_durable("quiz_submitted", timeout_s=0, tell_user=True)
        assert not client.emit_durable("quiz_submitted", timeout_s=0)
        assert not client.emit("quiz_submitted", durable=True, timeout_s=0)
        stats = client.stats()
    instance.start()
    unknown = [e for e in account(tally, instance, stats) if e["type"] == UNKNOWN_TYPE]
    assert [event["props"].get("user_told") for event in unknown] == [True, None, None]


def test_what_a_stopped_daemon_stores_later_is_settled_by_the_next_event(
    instance: Instance, tally: Tally
) -> None:
    daemon = instance.start()
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", user=7, timeout_s=LONG_S) is Outcome.STORED
        daemon.popen.send_signal(signal.SIGSTOP)
        assert client.emit_durable("quiz_submitted", user=8, timeout_s=0.05) is Outcome.UNKNOWN
        assert client.emit_durable("exam_handed_in", user=9, timeout_s=0) is Outcome.UNKNOWN
        daemon.popen.send_signal(signal.SIGCONT)
        assert client.flush(LONG_S)
        assert client.stats()["unsettled"] == 2
        assert client.emit("page_view")
        assert client.flush(LONG_S)
        stats = client.stats()
        assert (stats["durable_unknown"], stats["unsettled"]) == (2, 0)
    events = account(tally, instance, stats)
    assert notes(events) == [
        ("quiz_submitted", None, None),
        ("quiz_submitted", None, None), (UNKNOWN_TYPE, 2, None),
        ("exam_handed_in", None, None), (UNKNOWN_TYPE, 4, None),
        ("durable_settled", 2, "stored"), ("durable_settled", 4, "stored"),
        ("page_view", None, None),
    ]  # fmt: skip
    assert [event["user"] for event in events] == ["7", "8", "8", "9", "9", "8", "9", None]


def test_a_client_that_closes_settles_what_it_knows_by_then(
    instance: Instance, tally: Tally
) -> None:
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.UNKNOWN
        instance.start()
        assert client.flush(LONG_S)
    stats = client.stats()
    assert notes(account(tally, instance, stats))[1:] == [
        (UNKNOWN_TYPE, 1, None), ("durable_settled", 1, "stored"),
    ]  # fmt: skip


def test_only_so_many_unknown_ones_are_kept_in_mind(instance: Instance, tally: Tally) -> None:
    count = UNRESOLVED_MAX + 50
    with Client(instance.socket) as client:
        for _ in range(count):
            assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.UNKNOWN
        stats = client.stats()
        assert (stats["unsettled"], stats["durable_unknown"]) == (UNRESOLVED_MAX, count)
    instance.start()
    events = account(tally, instance, stats)
    assert [event["type"] for event in events] == ["quiz_submitted", UNKNOWN_TYPE] * count


# -- no room -------------------------------------------------------------------------------------


def test_an_event_without_room_behind_it_for_its_unknown_is_refused(
    instance: Instance, tally: Tally
) -> None:
    with Client(instance.socket, outbox_bytes=65536) as client:
        assert client.emit("page_view")
        while client.stats()["outbox"]["room_bytes"] >= NOTE_BYTES_MAX + 200:
            assert client.emit("page_view")
        # It alone would find room.
        props = {"text": "x" * 200}
        assert client.emit_durable("quiz_submitted", props=props, timeout_s=1) is Outcome.REFUSED
        stats = client.stats()
        assert stats["refused_by_cause"] == {"outbox_full": 1}
        assert client.emit("page_view"), "what was kept for it is given back"
        stats = client.stats()
    instance.start()
    assert UNKNOWN_TYPE not in {event["type"] for event in account(tally, instance, stats)}


def test_however_full_the_outbox_gets_meanwhile_the_trail_can_say_that_it_is_unknown(
    instance: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = hold_waits(monkeypatch)
    outcomes: list[Outcome] = []
    with Client(instance.socket, outbox_bytes=65536) as client:

        def hand_in(n: int) -> None:
            outcomes.append(client.emit_durable("quiz_submitted", user=n, tell_user=True))

        with in_threads(5, hand_in):
            until(lambda: client.stats()["accepted"] == 5, "all are accepted")
            while client.emit("page_view"):
                pass
            full.set()
        assert outcomes == [Outcome.UNKNOWN] * 5
        stats = client.stats()
        assert stats["refused_by_cause"] == {"outbox_full": 1}
    instance.start()
    events = account(tally, instance, stats)
    unknown = [event["props"]["sequence"] for event in events if event["type"] == UNKNOWN_TYPE]
    assert sorted(unknown) == [1, 2, 3, 4, 5]


def test_the_room_kept_is_enough_for_the_longest_type_and_user(instance: Instance) -> None:
    with Client(instance.socket) as client:
        longest = "t" * EVENT_TYPE_CHARS_MAX, "u" * USER_BYTES_MAX
        assert not client.emit_durable(longest[0], user=longest[1], timeout_s=0, tell_user=True)
        (ticket,) = parts.durable(client).unresolved.events
        assert ticket._place is not None
        ticket._place, ticket._label = (
            (ticket._place[0], INT64_MAX),
            f"{2**32 - 1}-{2**64 - 1:016x}",
        )
        before = client.stats()["outbox"]["used_bytes"]
        assert client.emit(UNKNOWN_TYPE, user=ticket.user, props=ticket.unknown_props())
        used = client.stats()["outbox"]["used_bytes"] - before
    assert used <= NOTE_BYTES_MAX < used + 64


def test_the_names_of_both_events_are_types(instance: Instance) -> None:
    assert (durable.UNKNOWN_TYPE, durable.SETTLED_TYPE) == ("durable_unknown", "durable_settled")
