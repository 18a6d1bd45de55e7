"""However many threads wait for the disk, one polls, and each is woken for its own event."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from logd_client import waiters
from logd_client.producer import Producer
from logd_client.waiters import (
    POLL_INTERVAL_MAX_S,
    ConfirmationWaiters,
    breaker_of_durable_waits,
)
from tests.support.instance import until

LONG_S = 60.0
THREADS = 200


class FakeProducer:
    """Confirms what the test sets, and counts the polls."""

    outbox: object = object()

    def __init__(self) -> None:
        self.number = 0
        self.polls = 0

    @property
    def confirmed(self) -> int:
        self.polls += 1
        return self.number


class Waiting:
    """Threads that wait for the sequences from `first` on, and their results."""

    def __init__(
        self, waits: ConfirmationWaiters, threads: int, timeout_s: float, first: int = 1
    ) -> None:
        self.results: dict[int, bool] = {}
        self._waits = waits
        self._deadline_s = time.monotonic() + timeout_s
        self._threads = [
            threading.Thread(target=self._wait, args=(n,), daemon=True)
            for n in range(first, first + threads)
        ]
        for thread in self._threads:
            thread.start()

    def _wait(self, number: int) -> None:
        self.results[number] = self._waits.wait(number, self._deadline_s)

    def join(self) -> dict[int, bool]:
        for thread in self._threads:
            thread.join(2 * LONG_S)
            assert not thread.is_alive(), "a thread still waits"
        return self.results


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer()


@pytest.fixture
def waits(producer: FakeProducer) -> ConfirmationWaiters:
    return ConfirmationWaiters(cast(Producer, producer), breaker_of_durable_waits())


def all_wait(waits: ConfirmationWaiters, threads: int) -> None:
    until(lambda: len(waits._waiting) == threads, "all of them wait")


@contextmanager
def without_help_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No lease runs out: a thread that is not woken sees nothing."""
    with monkeypatch.context() as patched:
        patched.setattr(waiters, "LEASE_S", 10 * LONG_S)
        yield


def test_200_threads_look_hardly_more_often_than_one(
    waits: ConfirmationWaiters, producer: FakeProducer
) -> None:
    """Each for itself would look every five milliseconds: 40,000 times in the second they wait."""
    seconds = 1.0
    started_s = time.monotonic()
    heard = Waiting(waits, THREADS, seconds).join()
    took_s = time.monotonic() - started_s
    assert heard == dict.fromkeys(range(1, THREADS + 1), False)
    each_for_itself = THREADS * took_s / POLL_INTERVAL_MAX_S
    assert producer.polls < each_for_itself / 5


def test_each_waiter_is_woken_when_its_own_sequence_is_reached(
    waits: ConfirmationWaiters, producer: FakeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_help_from_the_clock(monkeypatch):
        group = Waiting(waits, THREADS, LONG_S)
        all_wait(waits, THREADS)
        for number in (50, 51, 150):
            producer.number = number
            until(lambda n=number: len(group.results) == n, "those who can know")  # type: ignore[misc] # a lambda's default
            assert group.results == dict.fromkeys(range(1, number + 1), True)
        producer.number = THREADS
        assert group.join() == dict.fromkeys(range(1, THREADS + 1), True)


def test_when_the_poller_leaves_another_thread_takes_over(
    waits: ConfirmationWaiters, producer: FakeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_help_from_the_clock(monkeypatch):
        poller = Waiting(waits, 1, 0.2)
        until(lambda: waits._poller is not None, "it looks")
        first = waits._poller
        others = Waiting(waits, 5, LONG_S)
        all_wait(waits, 6)
        assert poller.join() == {1: False}
        until(lambda: waits._poller not in (None, first), "another looks")
        producer.number = 5
        assert others.join() == dict.fromkeys(range(1, 6), True)


def test_a_poller_that_is_done_at_once_promotes_the_next_one(
    waits: ConfirmationWaiters, producer: FakeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number rises between the last poll of one poller and the first of the next."""
    real_wake = waiters._Waiter.wake

    def wake(waiter: waiters._Waiter) -> None:
        if waiter.sequence == 2 and producer.number == 1:
            producer.number = 2
        real_wake(waiter)

    monkeypatch.setattr(waiters._Waiter, "wake", wake)
    with without_help_from_the_clock(monkeypatch):
        poller = Waiting(waits, 1, LONG_S)
        until(lambda: waits._poller is not None, "the first looks")
        others = Waiting(waits, 2, LONG_S, first=2)
        all_wait(waits, 3)
        producer.number = 1
        assert poller.join() == {1: True}
        until(lambda: others.results == {2: True}, "the second is done")
        producer.number = 3
        until(lambda: others.results == {2: True, 3: True}, "the third hears of it", LONG_S / 4)


def test_a_poller_that_is_held_up_is_followed_when_its_lease_runs_out(
    waits: ConfirmationWaiters, producer: FakeProducer
) -> None:
    """As when its thread stands still in a signal handler."""
    held_up = waiters._Waiter(99)
    held_up.thread = -1
    waits._waiting[held_up] = None
    waits._poller, waits._lease_until_s = held_up, time.monotonic() + waiters.LEASE_S
    group = Waiting(waits, 5, LONG_S)
    until(lambda: waits._poller is not held_up, "another looks")
    producer.number = 5
    assert group.join() == dict.fromkeys(range(1, 6), True)


def test_a_handler_that_waits_in_the_polling_thread_polls_by_itself(
    waits: ConfirmationWaiters, producer: FakeProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poller is a frame below it, so it must not wait to be woken by that."""
    inner: list[float] = []
    real_sleep = time.sleep

    def interrupted(seconds: float) -> None:
        if not inner:
            inner.append(time.monotonic())
            threading.Timer(0.05, setattr, (producer, "number", 2)).start()
            assert waits.wait(2, time.monotonic() + LONG_S / 4)
            inner.append(time.monotonic())
            producer.number = 3
        real_sleep(seconds)

    with without_help_from_the_clock(monkeypatch):
        monkeypatch.setattr(time, "sleep", interrupted)
        assert waits.wait(3, time.monotonic() + LONG_S / 4) is True
    began_s, heard_s = inner
    assert heard_s - began_s < LONG_S / 8, "it was woken then, not when its time was over"


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_wait_without_time_polls_once(
    waits: ConfirmationWaiters, producer: FakeProducer, timeout_s: float
) -> None:
    assert waits.wait(1, time.monotonic() + timeout_s) is False
    producer.number = 1
    assert waits.wait(1, time.monotonic() + timeout_s) is True
    assert producer.polls == 2


def test_at_the_end_every_waiter_gets_what_is_known_by_then(
    waits: ConfirmationWaiters, producer: FakeProducer
) -> None:
    group = Waiting(waits, 10, LONG_S)
    all_wait(waits, 10)
    producer.polls, producer.number = 0, 4
    waits.end()
    started_s = time.monotonic()
    assert group.join() == {n: n <= 4 for n in range(1, 11)}
    assert time.monotonic() - started_s < LONG_S / 2
    assert waits.wait(4, 0) is True
    assert waits.wait(5, time.monotonic() + LONG_S) is False


def test_without_an_outbox_no_thread_waits(
    waits: ConfirmationWaiters, producer: FakeProducer
) -> None:
    cast(Any, producer).outbox = None
    assert waits.wait(1, time.monotonic() + LONG_S) is False
    assert producer.polls == 1
