"""The circuit breaker alone: who waits for a silent peer, who does not, and who asks again."""

from __future__ import annotations

import threading

import pytest

from logd_wire.circuit_breaker import CircuitBreaker, Wait

TIMEOUT_S = 2.0
PATIENCE_S = 0.25
PROBE_S = 0.25
RETRY_S, RETRY_MAX_S = 1.0, 8.0


def wait_from(now_s: float, patience_s: float = PATIENCE_S) -> Wait:
    """The wait of a caller that comes then."""
    return Wait(now_s + TIMEOUT_S, patience_s, PROBE_S)


@pytest.fixture
def breaker() -> CircuitBreaker:
    """Two callers wait on."""
    return CircuitBreaker(2, RETRY_S, RETRY_MAX_S)


def opened(breaker: CircuitBreaker) -> float:
    """Opens the circuit by a timeout; the time of that."""
    first = wait_from(0.0)
    assert breaker.begin(first, 0.0)
    breaker.timed_out(first, TIMEOUT_S)
    breaker.end(first)
    assert breaker.is_open
    return TIMEOUT_S


def test_a_crowd_waits_for_the_patience_and_only_the_oldest_wait_on(
    breaker: CircuitBreaker,
) -> None:
    crowd = [wait_from(0.0) for _ in range(8)]
    assert all(breaker.begin(wait, 0.0) for wait in crowd)
    assert not any(breaker.must_end(wait, PATIENCE_S - 0.001) for wait in crowd)
    ended = [breaker.must_end(wait, PATIENCE_S) for wait in crowd]
    assert ended == [False] * 2 + [True] * 6
    assert [wait.skipped for wait in crowd] == ended
    for wait in crowd[2:]:
        breaker.end(wait)
    late = wait_from(1.0)
    assert not breaker.begin(late, 1.0) and late.skipped, "two are waiting already"
    breaker.end(crowd[0])
    assert breaker.begin(wait_from(1.0), 1.0), "there is a place again"
    assert not breaker.is_open, "none of them has timed out"


def test_whoever_moves_the_peer_ends_the_silence_for_all(breaker: CircuitBreaker) -> None:
    """A slow peer that gives a sign within each patience keeps every caller waiting."""
    crowd = [wait_from(0.0) for _ in range(8)]
    assert all(breaker.begin(wait, 0.0) for wait in crowd)
    for tenth in range(1, 20):
        assert not any(breaker.must_end(wait, tenth / 10) for wait in crowd)
        if tenth % 2:
            breaker.moved()


def test_a_timeout_in_silence_opens_it_and_the_next_ones_do_not_wait(
    breaker: CircuitBreaker,
) -> None:
    now_s = opened(breaker)
    for step in range(10):
        late = wait_from(now_s)
        assert not breaker.begin(late, now_s + step / 10)
        assert late.skipped
    breaker.moved()
    assert not breaker.is_open
    assert breaker.begin(wait_from(now_s), now_s + 1.0)


def test_a_timeout_that_was_not_silent_opens_nothing(breaker: CircuitBreaker) -> None:
    """The peer answers others: it is only slow with this one."""
    first = wait_from(0.0)
    assert breaker.begin(first, 0.0)
    breaker.moved()
    assert not breaker.must_end(first, 1.9)
    breaker.timed_out(first, TIMEOUT_S)
    assert not breaker.is_open


def test_a_short_timeout_makes_no_patient_caller_give_up(breaker: CircuitBreaker) -> None:
    hasty = Wait(0.01, 0.001, 0.001)
    assert breaker.begin(hasty, 0.0)
    breaker.timed_out(hasty, 0.01)
    breaker.end(hasty)
    assert breaker.is_open
    assert not breaker.begin(Wait(0.03, 0.001, 0.001), 0.02), "as hasty as the first"
    assert breaker.begin(wait_from(0.02), 0.02)


def test_one_probe_at_a_time_at_intervals_that_grow_up_to_a_bound(breaker: CircuitBreaker) -> None:
    start_s = now_s = opened(breaker)
    probes: list[float] = []
    while now_s < start_s + 60:
        probe = wait_from(now_s)
        if breaker.begin(probe, now_s):
            probes.append(now_s)
            other = wait_from(now_s)
            assert not breaker.begin(other, now_s), "one at a time"
            assert not breaker.must_end(probe, now_s + PROBE_S / 2)
            assert breaker.must_end(probe, now_s + PROBE_S)
            breaker.end(probe)
        now_s += 0.05
    gaps = [after - before for before, after in zip([start_s, *probes], probes, strict=False)]
    assert gaps[0] == pytest.approx(RETRY_S, abs=0.1)
    expected = [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, RETRY_MAX_S, RETRY_MAX_S]
    assert gaps[1:6] == pytest.approx([PROBE_S + gap for gap in expected], abs=0.1)


def test_probes_start_over_after_the_peer_was_back(breaker: CircuitBreaker) -> None:
    now_s = opened(breaker) + 100
    assert breaker.begin(wait_from(now_s), now_s)
    breaker.moved()
    second = wait_from(now_s)
    assert breaker.begin(second, now_s)
    breaker.timed_out(second, now_s + TIMEOUT_S)
    now_s += TIMEOUT_S + RETRY_S
    assert not breaker.begin(wait_from(now_s), now_s - 0.01)
    assert breaker.begin(wait_from(now_s), now_s)
    now_s += PROBE_S + RETRY_S
    assert not breaker.begin(wait_from(now_s), now_s - 0.01)
    assert breaker.begin(wait_from(now_s), now_s)


def test_a_wait_whose_end_was_never_told_keeps_its_place_for_its_timeout_only(
    breaker: CircuitBreaker,
) -> None:
    """A signal handler that raises may skip the call of `end`."""
    assert breaker.begin(wait_from(0.0), 0.0)
    assert breaker.begin(wait_from(0.0), 0.0)
    assert not breaker.begin(wait_from(1.0), 1.0)
    assert breaker.begin(wait_from(9.0), 9.0)


def test_at_least_one_caller_waits(breaker: CircuitBreaker) -> None:
    for number in (0, -1):
        breaker = CircuitBreaker(number, RETRY_S, RETRY_MAX_S)
        first, second = wait_from(0.0), wait_from(0.0)
        assert breaker.begin(first, 0.0) and breaker.begin(second, 0.0)
        assert [breaker.must_end(first, 1.0), breaker.must_end(second, 1.0)] == [False, True]


def test_thousands_of_threads_get_one_probe(breaker: CircuitBreaker) -> None:
    now_s = opened(breaker) + RETRY_S
    together = threading.Barrier(50)
    admitted: list[bool] = []

    def ask() -> None:
        together.wait()
        admitted.extend(breaker.begin(wait_from(now_s), now_s) for _ in range(40))

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 2000
    assert sum(admitted) == 1
