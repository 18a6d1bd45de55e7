"""Real processes, killed with -9: nothing accepted is lost, nothing stored twice, order is kept."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support.instance import (
    ROOT,
    Instance,
    check_streams,
    check_sums,
    emitters,
    until,
)
from tests.support.tally import Tally


def test_three_kills_of_the_daemon_lose_none_of_80000_events(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with emitters(instance, count=4, events=20_000) as running:
        for accepted in (12_000, 32_000, 52_000):
            until(lambda n=accepted: sum(e.accepted for e in running) >= n, "events")  # type: ignore[misc] # a lambda's default
            instance.kill()
            instance.start()
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
        accepted = sum(e.accepted for e in running)
    status = instance.settle()
    assert accepted == 80_000
    events = instance.events()
    tally.account(
        status, events, attempted=80_000 + refused, accepted=80_000, refused=refused, kills=3
    )
    assert (status["stored"], status["lost"], status["quarantined"]) == (80_000, 0, 0)
    assert sum(check_streams(events).values()) == 80_000
    # A process may have had several rings: its events are in order across them.
    for name in ("e0", "e1", "e2", "e3"):
        numbers = [event["props"]["number"] for event in events if event["user"] == name]
        assert numbers == list(range(1, 20_001))
    assert instance.stop() == 0
    instance.cli("verify")


def test_what_a_killed_emitter_got_accepted_is_stored(instance: Instance, tally: Tally) -> None:
    instance.start()
    with emitters(instance, count=1, events=10**9) as (emitter,):
        until(lambda: emitter.accepted >= 5_000, "events")
        emitter.process.end(signal.SIGKILL)
        accepted, refused = emitter.accepted, emitter.refused
    status, events = instance.settle(), instance.events()
    tally.account(
        status, events, attempted=accepted + refused, accepted=accepted, refused=refused,
        killed=1, kills=1,
    )  # fmt: skip
    assert sum(check_streams(events).values()) == status["stored"]
    assert status["lost"] == 0
    until(lambda: instance.status()["outboxes"] == 0, "the dead producer's outbox is removed")


def test_emitters_and_daemon_killed_together_lose_nothing_that_was_accepted(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with emitters(instance, count=3, events=10**9) as running:
        until(lambda: all(e.accepted >= 3_000 for e in running), "events")
        assert instance.daemon is not None
        for process in (*(e.process for e in running), instance.daemon):
            process.popen.send_signal(signal.SIGKILL)
        for process in (*(e.process for e in running), instance.daemon):
            process.end()
        accepted = sum(e.accepted for e in running)
        refused = sum(e.refused for e in running)
    before = instance.status()
    check_sums(before, attempted=accepted + refused, accepted=accepted, refused=refused, killed=3)
    instance.kill()
    instance.start()  # with no emitter running
    status, events = instance.settle(), instance.events()
    tally.account(
        status, events, attempted=accepted + refused, accepted=accepted, refused=refused,
        killed=3, kills=4,
    )  # fmt: skip
    assert status["lost"] == status["quarantined"] == 0
    check_streams(events)
    assert instance.stop() == 0
    instance.cli("verify")


def test_events_emitted_before_the_first_daemon_ever_ran_are_stored(
    instance: Instance, tally: Tally
) -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom logd_client import Client\nclient = Client(sys.argv[1])\n"
            "assert all(client.emit('page_view', props={'n': n}) for n in range(1000))",
            instance.socket,
        ],
        cwd=ROOT,
        check=True,
    )
    assert instance.status()["pending"] == 1000
    instance.start()
    status, events = instance.settle(), instance.events()
    tally.account(status, events, attempted=1000, accepted=1000)
    assert (status["stored"], status["lost"]) == (1000, 0)
    assert check_streams(events) and instance.stop() == 0


def test_a_daemon_killed_five_times_wherever_it_is_stores_nothing_twice(
    instance: Instance, tally: Tally
) -> None:
    """Each is followed by a start. Kills at chosen points are in test_predecessors.py."""
    instance.start()
    with emitters(instance, count=2, events=15_000) as running:
        for kill in range(1, 6):
            until(lambda n=kill: sum(e.accepted for e in running) >= 5_000 * n, "events")  # type: ignore[misc] # a lambda's default
            instance.kill()
            instance.start()
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
    status, events = instance.settle(), instance.events()
    tally.account(
        status, events, attempted=30_000 + refused, accepted=30_000, refused=refused, kills=5
    )
    assert sum(check_streams(events).values()) == 30_000
    instance.cli("verify")
