"""Durable events: stored, refused or unknown, and what the trail records of the unknown ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import slow_flush
from logd_client import Client, Outcome, durable
from logd_client.durable import UNKNOWN_TYPE, UNRESOLVED_MAX, DurableEvent
from logd_wire.outbox.layout import NOTE_BYTES_MAX
from logd_wire.outbox.names import SUFFIX
from logd_wire.schema import EVENT_TYPE_CHARS_MAX, INT64_MAX, USER_BYTES_MAX
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, ROOT, Instance, Process, until
from tests.support.tally import Tally

FLUSH_MS = 80
THREADS = 200
# Long enough to differ from "at once" on any machine, short enough to fail within a test.
LONG_S = 60.0


@contextmanager
def in_threads(count: int, work: Callable[[int], None]) -> Iterator[list[threading.Thread]]:
    """Threads that are gone at the end."""
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive(), "a thread still waits"


def account(
    tally: Tally, instance: Instance, stats: dict[str, Any], *, kills: int = 0
) -> list[dict[str, Any]]:
    """Both sums, with what the client counted, once it is closed; the trail."""
    status = instance.settle()
    events = instance.events()
    counts = {name: stats[name] for name in ("attempted", "accepted", "refused")}
    tally.account(status, events, **counts, kills=kills)
    return events


def notes(events: list[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    """What the trail records: each event's type, and which sequence and outcome it names."""
    return [
        (event["type"], event["props"].get("sequence"), event["props"].get("outcome"))
        for event in events
    ]


def outbox_of(instance: Instance) -> Path:
    (path,) = instance.config.outbox_directory.glob(f"*{SUFFIX}")
    return path


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
        before = json.loads(instance.cli("status", "--json"))

        def hand_in(n: int) -> None:
            for quiz in range(3):
                outcomes.append(
                    client.emit_durable(
                        "quiz_submitted", user=n, props={"quiz": quiz}, timeout_s=LONG_S
                    )
                )

        with in_threads(THREADS, hand_in):
            pass
        # Not by a look of this process: closing the outbox would let go of the client's lock.
        after = json.loads(instance.cli("status", "--json"))
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


def test_whether_the_user_is_told_is_recorded_in_the_trail(
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


def test_a_process_killed_right_after_it_was_told_unknown_leaves_a_trail_that_says_so(
    instance: Instance, tally: Tally
) -> None:
    process = Process(
        "-c",
        "import os, signal, sys\nfrom logd_client import Client\n"
        "c = Client(sys.argv[1])\n"
        "outcome = c.emit_durable('quiz_submitted', user=7, timeout_s=0.01, tell_user=True)\n"
        "assert outcome.value == 'unknown'\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        instance.socket,
    )
    assert process.popen.wait(LONG_S) == -signal.SIGKILL, process.lines
    process.close()
    instance.start()
    events = account(tally, instance, {"attempted": 2, "accepted": 2, "refused": 0}, kills=1)
    assert notes(events) == [("quiz_submitted", None, None), (UNKNOWN_TYPE, 1, None)]
    assert events[1]["props"]["user_told"] is True


def test_a_process_killed_while_it_waits_told_nobody_and_the_trail_says_no_more(
    instance: Instance, tally: Tally
) -> None:
    process = Process(
        "-c",
        "import sys\nfrom logd_client import Client\n"
        "c = Client(sys.argv[1])\n"
        "c.emit_durable('quiz_submitted', timeout_s=600)\n",
        instance.socket,
    )
    until(lambda: instance.status()["pending"] == 1, "the event is accepted")
    process.end(signal.SIGKILL)
    process.close()
    instance.start()
    events = account(tally, instance, {"attempted": 1, "accepted": 1, "refused": 0}, kills=1)
    assert notes(events) == [("quiz_submitted", None, None)]


def test_daemon_and_client_killed_together_settle_nothing_twice(
    instance: Instance, tally: Tally
) -> None:
    """The daemon dies with the event stored or not; its successor's trail is whole either way."""
    instance.start()
    process = Process(
        "-u", "-c",
        "import sys\nfrom logd_client import Client\n"
        "c = Client(sys.argv[1])\n"
        "for n in range(10**9):\n"
        "    c.emit_durable('quiz_submitted', timeout_s=0)\n"
        "    if n == 200: print('far enough', file=sys.stderr)\n",
        instance.socket,
    )  # fmt: skip
    until(lambda: process.says("far enough"), "some events")
    assert instance.daemon is not None
    process.popen.send_signal(signal.SIGKILL)
    instance.daemon.popen.send_signal(signal.SIGKILL)
    process.close()
    instance.kill()
    pending = instance.status()
    accepted = pending["stored"] + pending["pending"]
    instance.start()
    stats = {"attempted": accepted, "accepted": accepted, "refused": 0}
    events = account(tally, instance, stats, kills=2)
    # With the producer: a client whose first ring is full continues as another one.
    unknown, settled = (
        [(e["props"]["producer"], e["props"]["sequence"]) for e in events if e["type"] == kind]
        for kind in (UNKNOWN_TYPE, "durable_settled")
    )
    assert len(set(unknown)) == len(unknown) > 0
    assert len(set(settled)) == len(settled)
    assert set(settled) <= set(unknown)
    assert set(unknown) <= {
        (e["producer"], e["sequence"]) for e in events if e["type"] == "quiz_submitted"
    }


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
    full = threading.Event()

    def until_full(*_: object) -> bool:
        assert full.wait(LONG_S)
        return False

    monkeypatch.setattr(DurableEvent, "wait", until_full)
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


# -- no outbox, another outbox -------------------------------------------------------------------


def test_without_an_outbox_it_is_unknown_at_once(instance: Instance, tally: Tally) -> None:
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        started_s = time.monotonic()
        assert client.emit_durable("quiz_submitted", timeout_s=LONG_S) is Outcome.UNKNOWN
        assert time.monotonic() - started_s < LONG_S / 2
    stats = client.stats()
    until(lambda: instance.status()["stored"] == 2, "both are stored")
    assert notes(account(tally, instance, stats))[1:] == [(UNKNOWN_TYPE, 1, None)]


def test_what_the_kernel_did_not_take_is_said_with_the_next_event(
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
    monkeypatch.setattr("logd_client.formers.REMOVED_WAIT_S", 0.2)
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


# -- closed, forked, interrupted -----------------------------------------------------------------


def test_a_client_closed_meanwhile_ends_the_wait_and_says_so_before_its_farewell(
    instance: Instance, tally: Tally
) -> None:
    outcomes: list[Outcome] = []
    client = Client(instance.socket)

    def hand_in(n: int) -> None:
        outcomes.append(client.emit_durable("quiz_submitted", user=n, timeout_s=10 * LONG_S))

    with in_threads(3, hand_in):
        until(lambda: client.stats()["accepted"] == 3, "all are accepted")
        client.close()
    assert outcomes == [Outcome.UNKNOWN] * 3
    stats = client.stats()
    assert stats["refused"] == 0
    instance.start()
    events = account(tally, instance, stats)
    assert [event["type"] for event in events] == ["quiz_submitted"] * 3 + [UNKNOWN_TYPE] * 3
    assert {event["props"]["sequence"] for event in events[3:]} == {1, 2, 3}
    until(lambda: instance.status()["outboxes"] == 0, "the outbox is done with")


CHILD = """
import json, os, signal, sys, threading
from logd_client import Client, Outcome
c = Client(sys.argv[1])
"""


def run(code: str, instance: Instance) -> Any:
    """Runs code with a client `c`; what it prints, from JSON."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + code, instance.socket],
        cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_child_forked_in_the_middle_of_a_wait_knows_nothing_and_claims_nothing(
    instance: Instance, tally: Tally
) -> None:
    """The handler forks while the main thread waits; both processes go on from there."""
    parent_accepted = run(
        "child = code = None\n"
        "def fork(*_):\n"
        "    global child, code\n"
        "    child = os.fork()\n"
        "    if child: code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "signal.signal(signal.SIGALRM, fork)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "outcome = c.emit_durable('quiz_submitted', timeout_s=1)\n"
        "if child == 0:\n"
        "    ok = outcome is Outcome.UNKNOWN and c.stats()['accepted'] == 1\n"
        "    c.close()\n"
        "    os._exit(0 if ok and c.stats()['unsettled'] == 0 else 1)\n"
        "print(json.dumps([outcome.value, c.stats()['accepted'], code]))\n",
        instance,
    )
    assert parent_accepted == ["unknown", 2, 0], "the last is the child's: it keeps nothing in mind"
    instance.start()
    events = account(tally, instance, {"attempted": 3, "accepted": 3, "refused": 0})
    (quiz,) = (event for event in events if event["type"] == "quiz_submitted")
    notes = [event for event in events if event["type"] == UNKNOWN_TYPE]
    assert len({event["producer"] for event in notes}) == 2, "the parent's and the child's"
    assert [event["props"]["producer"] for event in notes] == [quiz["producer"]] * 2


def test_a_signal_handler_may_wait_in_the_middle_of_a_wait(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    got = run(
        "inner = []\n"
        "def handler(*_):\n"
        "    inner.append(c.emit_durable('from_handler', timeout_s=30).value)\n"
        "signal.signal(signal.SIGALRM, handler)\n"
        "outer = []\n"
        "while len(inner) < 20:\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.0008)\n"
        "    outer.append(c.emit_durable('outer', timeout_s=30).value)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "print(json.dumps([inner, outer, c.stats()]))\n",
        instance,
    )
    inner, outer, stats = got
    # In the middle of an emit a handler is refused; in the middle of a wait it is not.
    assert set(inner) <= {"stored", "refused"}
    assert "stored" in inner
    assert set(outer) == {"stored"}
    assert stats["refused_by_cause"].get("reentered", 0) == inner.count("refused")
    account(tally, instance, stats)


def test_a_signal_handler_that_raises_in_a_wait_leaves_the_other_threads_to_their_waiting(
    instance: Instance, tally: Tally
) -> None:
    """The main thread looks for all of them, and is thrown out of it."""
    instance.start()
    assert instance.daemon is not None
    instance.daemon.popen.send_signal(signal.SIGSTOP)
    process = Process(
        "-u", "-c",
        CHILD + "class Abort(BaseException): pass\n"
        "def abort(*_): raise Abort\n"
        "signal.signal(signal.SIGALRM, abort)\n"
        "got = []\n"
        "def work(): got.append(c.emit_durable('from_thread', timeout_s=60).value)\n"
        "threads = [threading.Thread(target=work) for _ in range(20)]\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
        "for thread in threads: thread.start()\n"
        "try:\n"
        "    c.emit_durable('from_main', timeout_s=60)\n"
        "except Abort:\n"
        "    print('aborted', file=sys.stderr)\n"
        "for thread in threads: thread.join()\n"
        "stats = c.stats()\n"
        "print(json.dumps([got, stats, c._producers.current.outbox.writer.reserved_bytes]))\n",
        instance.socket,
    )  # fmt: skip
    try:
        until(lambda: process.says("aborted"), "the main thread is out")
        instance.daemon.popen.send_signal(signal.SIGCONT)
        out, _ = process.popen.communicate(timeout=LONG_S)
        got, stats, reserved = json.loads(out)
    finally:
        process.close()
    assert got == ["stored"] * 20
    assert reserved == 0
    account(tally, instance, stats)


def test_of_a_durable_event_that_a_handler_cut_short_nothing_is_claimed(
    instance: Instance, tally: Tally
) -> None:
    """It may be stored; its caller got the handler's exception and no outcome."""
    stats = run(
        "class Abort(Exception): pass\n"
        "def abort(*_): raise Abort\n"
        "signal.signal(signal.SIGALRM, abort)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "try:\n"
        "    c.emit_durable('quiz_submitted', timeout_s=60)\n"
        "    assert False\n"
        "except Abort: pass\n"
        "c.emit('page_view')\n"
        "print(json.dumps(c.stats()))\n",
        instance,
    )
    assert (stats["durable_unknown"], stats["unsettled"]) == (0, 0)
    instance.start()
    events = account(tally, instance, stats)
    assert [event["type"] for event in events] == ["quiz_submitted", "page_view"]


def test_the_names_of_both_events_are_types(instance: Instance) -> None:
    assert (durable.UNKNOWN_TYPE, durable.SETTLED_TYPE) == ("durable_unknown", "durable_settled")
