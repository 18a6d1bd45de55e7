"""Durable events whose process is killed, forks, closes its client or handles a signal."""

from __future__ import annotations

import json
import signal

from logd_client import Client, Outcome
from logd_client.durable import UNKNOWN_TYPE
from tests.shared.client_scene import (
    CHILD,
    LONG_S,
    account,
    in_threads,
    notes,
    run_child,
)
from tests.support.instance import Instance, Process, until
from tests.support.tally import Tally


def test_a_process_killed_right_after_an_unknown_outcome_leaves_a_trail_that_records_it(
    instance: Instance, tally: Tally
) -> None:
    process = Process(
        "-c",
        CHILD
        + "outcome = c.emit_durable('quiz_submitted', user=7, timeout_s=0.01, tell_user=True)\n"
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


def test_a_process_killed_while_it_waits_has_no_outcome_and_the_trail_records_none(
    instance: Instance, tally: Tally
) -> None:
    process = Process(
        "-c",
        CHILD + "c.emit_durable('quiz_submitted', timeout_s=600)\n",
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
        CHILD + "for n in range(10**9):\n"
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


def test_a_child_forked_in_the_middle_of_a_wait_knows_nothing_and_claims_nothing(
    instance: Instance, tally: Tally
) -> None:
    """The handler forks while the main thread waits; both processes go on from there."""
    parent_accepted = run_child(
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
    got = run_child(
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
    stats = run_child(
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
