"""Each flush takes 80 ms longer, and that is where the signals hit."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from benchmarks.harness import slow_flush
from logd_client import Client
from tests.faults.scene import MakeScene, check_confirmed
from tests.support.instance import DEADLINE_S, Instance, Process, check_streams, until
from tests.support.tally import Tally

FLUSH_MS = 80


@pytest.fixture
def slow_disk(directory: Path) -> dict[str, str]:
    """The environment of a process whose flushes take long."""
    try:
        return slow_flush.environment(directory, FLUSH_MS)
    except slow_flush.NoCompiler as reason:
        pytest.skip(f"no slow disk: {reason}")


def in_a_flush(daemon: Process | None) -> bool:
    """Whether it is in the middle of one: nothing else in the daemon sleeps by the clock."""
    assert daemon is not None
    return "nanosleep" in Path(f"/proc/{daemon.popen.pid}/wchan").read_text()


def test_sigterm_in_a_slow_commit_stores_all_that_was_accepted_by_then(
    make_scene: MakeScene, slow_disk: dict[str, str], tally: Tally
) -> None:
    scene = make_scene(30, ("outbox", "outbox"), env=slow_disk)
    for _ in range(2):
        scene.go_on()
        until(lambda: in_a_flush(scene.daemon), "a flush")
        accepted = scene.crowd.accepted
        scene.daemon.popen.send_signal(signal.SIGTERM)
        assert scene.daemon.popen.wait(DEADLINE_S) == 0
        assert scene.instance.status()["stored"] >= accepted
        check_confirmed(scene.instance)
        scene.restart()
    scene.finish(tally)


def test_killed_or_stopped_in_the_middle_of_a_flush_nothing_is_confirmed_that_is_not_stored(
    make_scene: MakeScene, slow_disk: dict[str, str], tally: Tally
) -> None:
    """What was written and not yet flushed is there for the next daemon; it is stored once."""
    scene = make_scene(31, ("outbox", "outbox"), env=slow_disk)
    for kill in range(3):
        scene.go_on()
        until(lambda: in_a_flush(scene.daemon), "a flush")
        time.sleep(scene.rng.random() * FLUSH_MS / 1000)  # anywhere in it
        if kill == 1:
            scene.daemon.popen.send_signal(signal.SIGSTOP)
            scene.go_on()
            scene.daemon.popen.send_signal(signal.SIGCONT)
        if kill == 2:
            scene.daemon.popen.send_signal(signal.SIGTERM)
        scene.kill_daemon()
        scene.kills["daemon"] += 1
        scene.restart()
        scene.check_sums_meanwhile()
    scene.finish(tally)


def test_what_durable_called_stored_is_stored_when_the_daemon_is_killed_in_the_next_flush(
    instance: Instance, slow_disk: dict[str, str], tally: Tally
) -> None:
    instance.start(slow_disk)
    stop = threading.Event()
    told: dict[str, int] = dict.fromkeys("abcdefgh", 0)
    with Client(instance.socket) as client:

        def work(name: str) -> None:
            number = 1
            while not stop.is_set():
                if client.emit(
                    "quiz_submitted", user=name, props={"number": number}, durable=True,
                    timeout_s=DEADLINE_S,
                ):  # fmt: skip
                    told[name] = number
                number += 1

        threads = [threading.Thread(target=work, args=(name,)) for name in told]
        for thread in threads:
            thread.start()
        try:
            for kill in (1, 2):
                until(lambda n=kill: min(told.values()) >= 3 * n, "durable events")  # type: ignore[misc] # a lambda's default
                until(lambda: in_a_flush(instance.daemon), "a flush")
                instance.kill()
                heard = dict(told)  # nobody is told anything any more
                stored = {(event["user"], event["props"]["number"]) for event in instance.events()}
                for name, number in heard.items():
                    assert {(name, n) for n in range(1, number + 1)} <= stored
                instance.start(slow_disk)
        finally:
            stop.set()
            for thread in threads:
                thread.join(DEADLINE_S)
        stats = client.stats()
    status, events = instance.settle(), instance.events()
    tally.account(
        status, events, attempted=stats["attempted"], accepted=stats["accepted"],
        refused=stats["refused"], kills=2,
    )  # fmt: skip
    check_streams(events)
    assert sum(told.values()) == status["stored"] and status["lost"] == 0
    assert stats["unsettled"] == 0
