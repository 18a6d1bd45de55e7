"""Wake-up suppression: events of a producer that need not wake the daemon are read all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logd.batch import Producer
from logd.ingest.wakeups import Wakeups
from logd_client import Client
from logd_wire.outbox.layout import (
    RING_BYTES_MIN,
    WATCHED_NS_MAX,
    WORD_WATCHED_UNTIL_NS,
    outbox_bytes,
)
from logd_wire.outbox.writer import OutboxWriter
from tests.support import client_parts as parts
from tests.support.instance import Instance, until
from tests.support.tally import Tally

INTERVAL_S = 0.01
S = 10**9


def producer() -> Producer:
    return Producer(uid=1, id=2, seed=3)


def writer() -> tuple[OutboxWriter, memoryview]:
    buffer = memoryview(bytearray(outbox_bytes(RING_BYTES_MIN)))
    return OutboxWriter(buffer, 1, pid=2, now_ns=3), buffer[:4096].cast("Q")


def test_wakeups_are_suppressed_until_the_promised_time_and_not_after() -> None:
    box, words = writer()
    assert not box.suppresses_wakeups(5 * S)
    words[WORD_WATCHED_UNTIL_NS] = 5 * S
    assert box.suppresses_wakeups(5 * S - 1)
    assert not box.suppresses_wakeups(5 * S)


def test_a_promise_for_longer_than_any_daemon_makes_is_not_believed() -> None:
    """It comes from another clock or is forged: both would leave events unread."""
    box, words = writer()
    words[WORD_WATCHED_UNTIL_NS] = 5 * S
    assert not box.suppresses_wakeups(5 * S - WATCHED_NS_MAX - 1)
    assert box.suppresses_wakeups(5 * S - WATCHED_NS_MAX)
    words[WORD_WATCHED_UNTIL_NS] = 2**64 - 1
    assert not box.suppresses_wakeups(5 * S)


def test_the_last_look_comes_after_the_end_of_the_promise() -> None:
    watch, one = Wakeups(INTERVAL_S), producer()
    until_s = watch.suppress(one, 100.0, step_s=0.0) / S
    watch.record_idle_poll(one, polled_s=until_s - 0.001)
    watch.record_idle_poll(one, polled_s=until_s)
    assert one in watch, "what came just before the end may not be seen yet"
    watch.record_idle_poll(one, polled_s=until_s + 0.002)
    assert one not in watch
    assert not watch


def test_a_promise_outlasts_the_next_look_also_when_steps_take_long() -> None:
    watch = Wakeups(INTERVAL_S)
    for step_s in (0.0, 0.08, 0.3):
        next_look_s = 100.0 + INTERVAL_S + step_s
        assert watch.suppress(producer(), 100.0, step_s) > next_look_s * S
    assert watch.suppress(producer(), 100.0, step_s=60.0) <= 101 * S


def test_without_an_interval_nothing_is_promised() -> None:
    watch, one = Wakeups(0.0), producer()
    assert watch.suppress(one, 100.0, step_s=1.0) == 0
    assert one not in watch


def test_what_a_killed_predecessor_promised_is_kept() -> None:
    watch, one = Wakeups(INTERVAL_S), producer()
    watch.inherit(one, until_ns=100 * S + 5, now_s=99.5)
    watch.record_idle_poll(one, polled_s=99.9)
    assert one in watch
    watch.record_idle_poll(one, polled_s=100.1)
    assert one not in watch


@pytest.mark.parametrize("until_ns", [0, 99 * S, 200 * S, 2**64 - 1])
def test_what_is_over_or_no_daemons_promise_is_not_inherited(until_ns: int) -> None:
    watch, one = Wakeups(INTERVAL_S), producer()
    watch.inherit(one, until_ns, now_s=100.0)
    assert one not in watch


@given(st.floats(1.0, 1e8), st.floats(0.0, 2.0), st.floats(0.0, 2.5))
@settings(max_examples=300)
def test_a_producer_that_sends_no_wakeup_is_still_polled_by_the_daemon(
    now_s: float, step_s: float, later_s: float
) -> None:
    """Compares the client's reading of the header with the daemon's, at any moment."""
    watch, one = Wakeups(INTERVAL_S), producer()
    box, words = writer()
    words[WORD_WATCHED_UNTIL_NS] = watch.suppress(one, now_s, step_s)
    looked_s = now_s + later_s
    watch.record_idle_poll(one, looked_s)
    if box.suppresses_wakeups(int(looked_s * S)):
        assert one in watch


@pytest.fixture
def paced(instance: Instance) -> Instance:
    """A daemon that polls only because wake-ups are suppressed."""
    instance.configure(commit_interval_ms=400, look_interval_ms=60_000)
    instance.start()
    return instance


def account(tally: Tally, instance: Instance, stats: dict[str, Any]) -> None:
    """Both sums, and each event once and in order."""
    counts = {name: stats[name] for name in ("attempted", "accepted", "refused")}
    tally.account(instance.settle(), instance.events(), **counts)


@contextmanager
def watched(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Client, list[bytes]]]:
    """A client that need not wake the daemon, and the datagrams that it sends from then on.

    To it no time passes, so the promise that it was just given does not run out.
    """
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        assert client.flush(10)
        now_ns = time.monotonic_ns()
        parts.set_monotonic_ns(monkeypatch, client, lambda: now_ns)
        sent: list[bytes] = []
        made = parts.producer(client)
        send = made.send

        def noted(datagram: bytes) -> bool:
            sent.append(datagram)
            return send(datagram)

        monkeypatch.setattr(made, "send", noted)
        yield client, sent


def test_a_watched_client_sends_nothing_and_all_of_it_is_stored_soon(
    paced: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(paced, monkeypatch) as (client, sent):
        assert all(client.emit("page_view", user=1) for _ in range(50))
        assert sent == []
        assert client.flush(10), "nothing but the promise has brought the daemon to look"
        stats = client.stats()
    status = paced.settle()
    assert status["commits"] < 10
    account(tally, paced, stats)


def test_a_client_whose_promise_has_run_out_sends_again(
    paced: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(paced, monkeypatch) as (client, sent):
        parts.set_monotonic_ns(monkeypatch, client, lambda: 2**63)
        assert client.emit("page_view", user=1)
        assert len(sent) == 1
        monkeypatch.undo()
        assert client.flush(10)
        stats = client.stats()
    account(tally, paced, stats)


def commits(instance: Instance) -> int:
    """As `status` reports, but in far less than an interval."""
    with instance.database(read_only=True) as connection:
        query = "SELECT value FROM counter WHERE name = 'commits'"
        return int(connection.execute(query).fetchone()[0])


def test_a_durable_event_does_not_wait_for_the_interval(
    instance: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a commit that was just made, with a whole second to the next."""
    instance.configure(commit_interval_ms=1000, look_interval_ms=60_000)
    instance.start()
    with watched(instance, monkeypatch) as (client, sent):
        assert client.emit("page_view"), "watched: it waits in the outbox"
        before = commits(instance)
        assert client.emit("quiz_submitted", durable=True, timeout_s=10)
        assert [datagram[4] for datagram in sent] == [2]
        assert commits(instance) == before + 1, "one commit took both"
        stats = client.stats()
    assert stats["accepted"] == 3
    account(tally, instance, stats)


def test_events_of_a_watched_client_outlive_the_daemon_that_promised(
    paced: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(paced, monkeypatch) as (client, sent):
        assert client.emit("page_view", user=1)
        paced.kill()
        assert client.emit("page_view", user=2)
        assert sent == []
        paced.start()
        assert client.flush(10)
        stats = client.stats()
    account(tally, paced, stats)


def test_an_outbox_that_is_removed_is_not_watched_any_more(instance: Instance) -> None:
    """Its producer lives but was taken for dead: from now on only its datagrams arrive."""
    instance.configure(commit_interval_ms=1000)
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view")
        assert client.flush(10)
        words = parts.words(parts.outbox(client))
        path = next(Path(instance.config.outbox_directory).glob("*.outbox"))
        path.open("rb").close()  # closing any descriptor lets go of the lock
        until(lambda: not path.exists(), "the outbox is removed")
        assert words[WORD_WATCHED_UNTIL_NS] == 0
