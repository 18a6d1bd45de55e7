"""A daemon that hangs holds few callers of durable events, once, and none of those who follow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from logd_client import Client, Outcome
from logd_client.durable import UNKNOWN_TYPE
from tests.faults.faulty_disk import faulty_disk
from tests.shared.client_scene import LONG_S, account, in_threads
from tests.shared.hung_daemon import (
    AT_ONCE_S,
    THREADS,
    TIMEOUT_S,
    Clocked,
    go_on,
    opened,
    stop,
    unsettled,
)
from tests.support import client_parts as parts
from tests.support.instance import NO_DIRECTORY, Instance, until
from tests.support.tally import Tally

# -- a daemon that hangs -------------------------------------------------------------------------


def test_after_a_timeout_nobody_waits_until_the_daemon_confirms_something(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client)
        for _ in range(20):
            assert clocked.hand_in() is Outcome.UNKNOWN
        assert sum(took_s for _, took_s in clocked.outcomes) < TIMEOUT_S / 2
        assert clocked.breaker == {"open": True, "skipped": 20}
        assert client.stats()["durable_unknown"] == 21
        go_on(instance)
        assert client.flush(LONG_S)
        assert not clocked.breaker["open"], "the flush has seen that the daemon is back"
        assert clocked.hand_in(timeout_s=LONG_S) is Outcome.STORED
        assert client.stats()["unsettled"] == 0
        stats = client.stats()
    events = account(tally, instance, stats)
    assert len([event for event in events if event["type"] == UNKNOWN_TYPE]) == 21
    assert unsettled(events) == set(), "what was not waited for is settled as well"


def test_the_next_event_sees_by_itself_that_the_daemon_is_back(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client)
        go_on(instance)
        outbox = parts.outbox(client)
        until(lambda: outbox.writer.confirmed == outbox.writer.written, "the daemon confirms")
        breaker = parts.producers(client).breaker
        assert breaker.is_open, "nobody has looked yet"
        assert clocked.hand_in(timeout_s=LONG_S) is Outcome.STORED
        assert not parts.producers(client).breaker.is_open, "the flush has seen it"
    account(tally, instance, client.stats())


def test_the_counts_say_that_it_is_closed_also_where_nobody_waits(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client)
        go_on(instance)
        until(lambda: not clocked.breaker["open"], "the counts show the daemon's return")
    account(tally, instance, client.stats())


def test_the_first_wave_holds_two_threads_and_frees_the_others(
    instance: Instance, tally: Tally
) -> None:
    """All eight wait before anything has timed out."""
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit_durable("quiz_submitted", timeout_s=LONG_S)
        stop(instance)
        clocked = Clocked(client)
        clocked.crowd()
        took = clocked.of(Outcome.UNKNOWN)
        assert len(took) == THREADS
        assert took[THREADS - 3] < TIMEOUT_S / 2 < TIMEOUT_S <= took[THREADS - 2]
        assert clocked.breaker == {"open": True, "skipped": THREADS - 2}
        go_on(instance)
        assert client.flush(LONG_S)
        assert client.emit("page_view")
        stats = client.stats()
    tally.say(
        f"a hung logd, {THREADS} threads at once: held for "
        + ", ".join(f"{seconds:.2f}" for seconds in took)
        + f" s of {TIMEOUT_S:.0f}"
    )
    assert unsettled(account(tally, instance, stats)) == set()


def test_how_many_threads_wait_on_is_the_applications_choice(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    stop(instance)
    with Client(instance.socket, durable_waiters=5) as client:
        clocked = Clocked(client)
        clocked.crowd(timeout_s=1.0)
        assert len([took_s for took_s in clocked.of(Outcome.UNKNOWN) if took_s >= 1.0]) == 5
    go_on(instance)
    account(tally, instance, client.stats())


def test_a_probe_waits_shortly_one_at_a_time_and_hears_of_a_return(
    instance: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd_client.waiters.PROBE_FIRST_S", 0.3)
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client)
        time.sleep(0.35)
        clocked.crowd(timeout_s=4.0)
        took = clocked.of(Outcome.UNKNOWN)
        assert len(took) == THREADS
        assert took[-2] < 0.5 <= took[-1] < 2.0, "one of them is the probe"
        assert clocked.breaker["open"]
        time.sleep(0.35)
        # The daemon comes back while the next probe waits. Before that nothing is confirmed.
        with in_threads(1, lambda _: clocked.hand_in(timeout_s=8.0)):  # type: ignore[arg-type] # its outcome is kept
            until(lambda: parts.producers(client).awaited, "it waits")
            assert clocked.hand_in() is Outcome.UNKNOWN
            go_on(instance)
        assert len(clocked.of(Outcome.STORED)) == 1
        assert not clocked.breaker["open"]
        assert client.flush(LONG_S)
    account(tally, instance, client.stats())


def test_a_daemon_that_is_killed_and_comes_back_closes_it(instance: Instance, tally: Tally) -> None:
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client)
        instance.kill()
        assert clocked.hand_in() is Outcome.UNKNOWN
        instance.start()
        instance.settle()
        assert clocked.hand_in(timeout_s=LONG_S) is Outcome.STORED
        assert not clocked.breaker["open"]
    assert unsettled(account(tally, instance, client.stats())) == set()


def test_another_daemon_in_its_place_closes_it(directory: Path, tally: Tally) -> None:
    """The path leads to another instance from now on: its confirmations are as good."""
    first, second = Instance(directory / "a"), Instance(directory / "b")
    link = directory / "logd.sock"
    link.symlink_to(first.socket)
    try:
        first.start()
        second.start()
        with Client(link) as client:
            clocked = opened(first, client)
            link.unlink()
            link.symlink_to(second.socket)
            until(lambda: clocked.hand_in() is Outcome.STORED, "the other daemon stores", 20)
            assert not clocked.breaker["open"]
            assert clocked.of(Outcome.UNKNOWN)[-1] < TIMEOUT_S / 2
        stats = client.stats()
        go_on(first)
        status = [instance.settle() for instance in (first, second)]
        assert stats["attempted"] == stats["accepted"] + stats["refused"]
        accounted = sum(
            found[name] for found in status for name in ("stored", "lost", "quarantined_events")
        )
        assert accounted == stats["accepted"]
    finally:
        first.close()
        second.close()


def test_larger_rings_that_follow_meanwhile_keep_it_open_and_close_it(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client)
        before = client.stats()["producer"]
        while client.stats()["producer"] == before:
            assert client.emit("page_view", props={"text": "x" * 2000})
        assert clocked.hand_in() is Outcome.UNKNOWN
        assert clocked.of(Outcome.UNKNOWN)[-1] < AT_ONCE_S
        assert clocked.breaker["open"]
        go_on(instance)
        assert client.flush(LONG_S)
        assert clocked.hand_in(timeout_s=LONG_S) is Outcome.STORED
    assert unsettled(account(tally, instance, client.stats())) == set()


# -- what is no sign of a hang -------------------------------------------------------------------


@pytest.mark.parametrize(("flush_ms", "threads"), [(84, THREADS), (1000, 2)])
def test_a_disk_that_is_slow_and_works_stores_durable_events_as_ever(
    instance: Instance, tally: Tally, directory: Path, flush_ms: int, threads: int
) -> None:
    """From a process's first event on; with a flush of a second, as many as wait on."""
    with faulty_disk(directory) as disk, Client(instance.socket) as client:
        instance.start(env=disk.env)
        disk.slow_flushes(flush_ms)
        clocked = Clocked(client)
        clocked.crowd(threads, events=3, timeout_s=5.0)
        assert [outcome for outcome, _ in clocked.outcomes] == [Outcome.STORED] * 3 * threads
        assert clocked.breaker == {"open": False, "skipped": 0}
        took = clocked.of(Outcome.STORED)
        # A crowd that is too large for it gives up early, and what it gave up on is stored.
        clocked.crowd(THREADS, timeout_s=TIMEOUT_S)
        stored = len(clocked.outcomes) - len(clocked.of(Outcome.UNKNOWN)) - 3 * threads
        early = [took_s for took_s in clocked.of(Outcome.UNKNOWN) if took_s < TIMEOUT_S / 2]
        assert len(early) == clocked.breaker["skipped"] <= THREADS - 2
        disk.heal()
        assert client.flush(LONG_S)
        assert client.emit("page_view")
        stats = client.stats()
    tally.say(
        f"durable events, each flush {flush_ms} ms longer: {threads} threads wait "
        f"{took[len(took) // 2]:.2f} s (median), all stored; of {THREADS} at once with a timeout of"
        f" {TIMEOUT_S:.0f} s {stored} stored, {len(early)} not waited for"
    )
    assert unsettled(account(tally, instance, stats)) == set()


def test_a_caller_with_more_patience_than_the_one_that_timed_out_waits(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client, timeout_s=0.02)
        with in_threads(1, lambda _: clocked.hand_in(timeout_s=LONG_S)):  # type: ignore[arg-type] # its outcome is kept
            until(lambda: parts.producers(client).awaited, "it waits")
            go_on(instance)
        assert [outcome for outcome, _ in clocked.outcomes] == [Outcome.STORED]
    account(tally, instance, client.stats())


def test_without_an_outbox_it_is_no_matter_of_the_breaker(instance: Instance, tally: Tally) -> None:
    instance.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        clocked = Clocked(client)
        clocked.crowd(4, timeout_s=LONG_S)  # the kernel's queue holds so many
        assert len(clocked.of(Outcome.UNKNOWN)) == 4
        assert clocked.of(Outcome.UNKNOWN)[-1] < LONG_S / 8
        assert clocked.breaker == {"open": False, "skipped": 0}
    stats = client.stats()
    until(lambda: instance.status()["stored"] == stats["accepted"], "all are stored")
    account(tally, instance, stats)


def test_a_wall_clock_that_jumps_is_no_timeout(
    instance: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        clocked = opened(instance, client)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert clocked.hand_in() is Outcome.UNKNOWN
        go_on(instance)
        assert client.flush(LONG_S)
        monkeypatch.setattr(time, "time", lambda: 1e12)
        assert clocked.hand_in(timeout_s=LONG_S) is Outcome.STORED
    account(tally, instance, client.stats())
