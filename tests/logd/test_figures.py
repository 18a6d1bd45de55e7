"""Runtime statistics: rates, commit times, how long outboxes have room."""

from __future__ import annotations

import pytest

from logd import instance_lock
from logd.runtime_stats import (
    COMMIT_BOUNDS_S,
    FIVE_MINUTES_S,
    MINUTE_S,
    PACE_MIN_S,
    OutboxTotals,
    RuntimeStats,
    StatsRecorder,
    WriteRate,
    within_s,
)
from logd.status import text as status
from tests.faults.steady import Steady
from tests.support.instance import Instance, check_sums, until


def test_rates_are_of_the_last_minute_and_of_five_and_of_less_after_a_start() -> None:
    meter = StatsRecorder()
    figures = RuntimeStats()
    for second in range(int(FIVE_MINUTES_S) + 61):
        if second and second <= 300:
            meter.record_commit(events=60, lost=1, duration_s=0.01)
        assert meter.is_due(float(second))
        figures = meter.sample(float(second), at_ns=second)
        assert not meter.is_due(second + 0.9)
        if second == 30:
            assert (figures.events_per_s_1m, figures.events_per_s_5m) == (60, 60)
    assert figures.events_per_s_1m == 0  # of the last minute nothing
    assert figures.events_per_s_5m == pytest.approx(60 * 240 / 300)
    assert (figures.events, figures.lost, figures.commits) == (18_000, 300, 300)


def test_a_rate_has_as_many_digits_as_tell_something() -> None:
    assert [status.format_rate(value) for value in (0, 0.04, 0.25, 9.96, 10.4, 12_345.6)] == [
        "0", "0", "0.2", "10.0", "10", "12,346",
    ]  # fmt: skip


def test_commits_are_counted_by_how_long_they_took() -> None:
    meter = StatsRecorder()
    for duration_s in (0.0005, 0.001, 0.0011, 0.2, 60.0):
        meter.record_commit(1, 0, duration_s)
    figures = meter.sample(1.0, at_ns=1)
    assert figures.commits == 5 == sum(figures.commit_counts)
    assert figures.commit_counts[:2] == (2, 1)
    assert figures.commit_counts[COMMIT_BOUNDS_S.index(0.25)] == 1
    assert figures.commit_counts[-1] == 1  # past the last bound
    assert (figures.commit_last_s, figures.commit_longest_s) == (60.0, 60.0)
    assert figures.commit_s == pytest.approx(60.2026)


def test_what_a_part_of_the_commits_kept_to_is_a_bound_of_the_histogram() -> None:
    counts = [0] * (len(COMMIT_BOUNDS_S) + 1)
    assert within_s(counts, 0.5) is None
    counts[3], counts[4], counts[-1] = 98, 1, 1
    assert [within_s(counts, part) for part in (0.5, 0.98, 0.99, 1.0)] == [
        0.01, 0.01, 0.025, float("inf"),
    ]  # fmt: skip


def test_a_pace_is_of_the_last_minute_or_two_and_waits_for_ten_seconds() -> None:
    pace = WriteRate(0.0, 1000)
    assert pace.per_s(PACE_MIN_S - 1, 2000) == 0
    assert pace.per_s(PACE_MIN_S, 1100) == pytest.approx(100 / PACE_MIN_S)
    written = 1100
    for second in range(11, 300):
        written += 5
        rate = pace.per_s(float(second), written)
    assert rate == pytest.approx(5)
    for second in range(300, 300 + int(2 * MINUTE_S)):
        rate = pace.per_s(float(second), written)
    assert rate == 0  # it has gone quiet


def test_room_is_that_of_the_first_outbox_to_be_full() -> None:
    survey = OutboxTotals()
    survey.add(waiting=0, room_bytes=1000, event_bytes=0, per_s=0)  # never stored anything
    assert (survey.backlog, survey.room_s) == (0, None)
    survey.add(waiting=2, room_bytes=1000, event_bytes=100, per_s=2)
    assert survey.room_s == pytest.approx(4)
    survey.add(waiting=9, room_bytes=1000, event_bytes=100, per_s=1)
    assert survey.backlog == 11
    assert survey.room_s == pytest.approx(1)
    survey.add(waiting=0, room_bytes=1000, event_bytes=100, per_s=0.1)
    assert survey.room_s == pytest.approx(1)
    survey.add(waiting=50, room_bytes=1000, event_bytes=100, per_s=1)  # full already
    assert survey.room_s == 0


def test_the_figures_of_a_daemon_are_there_while_it_runs_and_afterwards(
    instance: Instance,
) -> None:
    def figures() -> RuntimeStats:
        return instance_lock.read_runtime_stats(instance.config.lock_file) or RuntimeStats()

    instance.start()
    with Steady(instance) as one, Steady(instance) as two:
        one.emit_stored(300)
        two.emit_stored(300)
        until(lambda: figures().outboxes == 2, "both outboxes are counted")
        assert figures().outboxes_bytes > 0
    check_sums(instance.settle(), attempted=600, accepted=600)
    until(lambda: figures().events == 600, "all of it is counted")
    found = figures()
    assert found.started_ns < found.at_ns
    assert found.events_per_s_1m == found.events_per_s_5m > 0
    assert 0 < found.commit_last_s <= found.commit_longest_s <= found.commit_s
    assert found.commits == sum(found.commit_counts) >= instance.status()["commits"]
    assert found.wal_bytes > 0
    assert found.queue_datagrams is not None
    instance.kill()
    assert figures().events == 600
