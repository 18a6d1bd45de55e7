"""Shares of a step, and checks of clocks, at the exact values where a decision changes."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from logd.batch import Batch, Capacity, Producer
from logd.clock import readings
from logd.clock.event_age import ALL, LATE_MAX_NS, NONE, SOME, past
from logd.clock.readings import (
    BACK_MAX_NS,
    DAY_NS,
    EARLIEST_NS,
    HOUR_NS,
    JUMP_MIN_NS,
    STEP_MAX_NS,
    SYNCHRONISED_AFTER_NS,
    Reading,
)
from logd.ingest import step_budget
from logd.ingest.scheduling import (
    SHARED_EVENTS_MAX,
    SHARED_OUTBOXES_MAX,
    OpenFileQuota,
    ReadRequest,
    schedule,
)
from logd.ingest.step_budget import ForcedCommits, StepBudget
from logd.ingest.user_tasks import UserTasks
from logd.ingest.wakeups import _MARGIN_S, Wakeups
from logd_wire.outbox.layout import WATCHED_NS_MAX
from logd_wire.wire import Event

EVENT = Event("page_view", 1, None, b"")


# -- a step's budget -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "size"), [(step_budget.STEP_RECORDS_MAX, 0), (0, step_budget.STEP_BYTES_MAX)]
)
def test_a_part_is_used_up_exactly_at_its_bound(records: int, size: int) -> None:
    budget = StepBudget(lambda: 0.0)
    assert budget.exhausted is False, "also before the first step"
    step = 1 if size else 0, 0 if size else 1  # of what is not at its bound: one
    budget.charge(1, records // 2 - step[1], size // 2 - step[0])
    assert budget.over == set()
    budget.charge(1, step[1], step[0])
    assert (budget.over, budget.exhausted) == ({1}, False)
    budget.charge(2, records // 2 - step[1], size // 2 - step[0])
    assert (budget.over, budget.exhausted) == ({1}, False)
    budget.charge(3, step[1], step[0])
    assert (budget.over, budget.exhausted) == ({1}, True)


def test_time_is_charged_from_the_beginning_of_the_step_and_once() -> None:
    now_s = [5.0]
    budget = StepBudget(lambda: now_s[0])
    budget.begin()
    now_s[0] += step_budget.STEP_S_MAX * 0.4
    budget.charge(1, 0, 0)
    budget.charge(1, 0, 0)
    assert (budget.over, budget.exhausted) == (set(), False)


def test_a_user_rests_until_the_moment_itself_and_is_forgotten_at_it() -> None:
    forced = ForcedCommits()
    forced.committed({1}, began_s=10.0, ended_s=11.0)
    assert forced.due_s({1}) == 12.0
    forced.committed({2}, began_s=11.5, ended_s=12.0)
    assert forced.due_s({1}) == 0.0


# -- whose turn it is ----------------------------------------------------------------------------


def take(batch: Batch, one: ReadRequest[Any], room: Capacity | None) -> int:
    """Adds the events that there is capacity for; returns how many."""
    count = min(room.events, one.events) if room else 0
    for _ in range(count):
        batch.add(one.producer, 1, EVENT, 1)
    return count


def test_who_waited_longest_comes_first_then_who_asks_least() -> None:
    late, modest, greedy = Producer(1, 1, 0), Producer(2, 2, 0), Producer(3, 3, 0)
    late.skipped_steps = 2
    waiting = [ReadRequest(one, "", True, n) for one, n in ((greedy, 9), (modest, 1), (late, 50))]
    batch = Batch(1000, 10**6)
    order = [one for one, _ in schedule(waiting, batch)]
    assert [one.producer for one in order] == [late, modest, greedy]
    assert [(one.outbox, one.alive) for one in order] == [("", True)] * 3
    assert [one.producer.skipped_steps for one in order] == [0, 0, 0]


def test_whom_a_step_had_no_room_for_is_counted_one_step_more() -> None:
    producers = [Producer(1, number, 0) for number in range(6)]
    batch = Batch(4, 10**6)
    for _ in range(4):
        batch.add(producers[0], 1, EVENT, 1)
    waiting = [ReadRequest(producer, "", True, 5) for producer in producers]
    for one, room in schedule(waiting, batch):  # a fourth of it is always the outboxes'
        take(batch, one, room)
    assert sorted(producer.skipped_steps for producer in producers) == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("alive", "read"), [(True, 200), (False, SHARED_OUTBOXES_MAX)])
def test_a_living_producer_without_events_costs_no_place_and_a_dead_one_does(
    alive: bool, read: int
) -> None:
    waiting = [ReadRequest(Producer(1, number, 0), "", alive, 0) for number in range(200)]
    rooms = [room for _, room in schedule(waiting, Batch(20_000, 10**8), shared=True)]
    assert sum(room is not None for room in rooms) == read


def test_of_shared_places_each_user_has_a_part_and_what_one_leaves_is_the_next_ones() -> None:
    modest = [ReadRequest(Producer(1, number, 0), "", True, 1) for number in range(10)]
    greedy = [ReadRequest(Producer(2, number, 0), "", True, 1) for number in range(100)]
    batch = Batch(20_000, 10**8)
    taken = [
        one.producer.uid
        for one, room in schedule([*greedy, *modest], batch, shared=True)
        if take(batch, one, room)
    ]
    assert (taken.count(1), taken.count(2)) == (10, SHARED_OUTBOXES_MAX - 10)


def test_with_more_users_than_places_each_still_has_one_in_its_turn() -> None:
    users = SHARED_OUTBOXES_MAX * 3
    waiting = [ReadRequest(Producer(uid, 1, 0), "", True, 1) for uid in range(users)]
    waiting += [ReadRequest(Producer(uid, 2, 0), "", True, 1) for uid in range(users)]
    batch = Batch(20_000, 10**8)
    taken = [one.producer.uid for one, room in schedule(waiting, batch, shared=True) if room]
    assert len(taken) == len(set(taken)), "one place a user, since there are more users than places"


def test_shared_places_are_parted_in_whole_ones_and_the_last_user_has_the_rest() -> None:
    waiting = [ReadRequest(Producer(n % 3, n, 0), "", True, 1) for n in range(300)]
    read: Counter[int] = Counter()
    batch = Batch(20_000, 10**8)
    for one, room in schedule(waiting, batch, shared=True):
        read[one.producer.uid] += take(batch, one, room)
    third = SHARED_OUTBOXES_MAX // 3
    assert sorted(read.values()) == [third, third, SHARED_OUTBOXES_MAX - 2 * third]


def test_not_shared_all_outboxes_may_be_read() -> None:
    waiting = [ReadRequest(Producer(1, number, 0), "", True, 1) for number in range(100)]
    batch = Batch(20_000, 10**8)
    assert sum(take(batch, one, room) for one, room in schedule(waiting, batch)) == 100
    ((_, room),) = schedule(waiting[:1], Batch(20_000, 10**8), shared=True)
    assert room is not None and room.events == SHARED_EVENTS_MAX


@pytest.mark.parametrize("shared", [False, True])
def test_a_user_may_have_no_more_files_than_its_own_bound(shared: bool) -> None:
    files = OpenFileQuota(40, 3, shared=shared)
    while files.has_room(1):
        files.add(1)
    assert files.held(1) == 3
    files.drop(1)
    assert files.has_room(1)
    files.drop(1)
    files.drop(1)
    assert (files.held(1), files.others_than(2)) == (0, False)


# -- tasks of users ------------------------------------------------------------------------------


def test_a_task_with_work_left_stays_under_its_user_and_key_behind_the_others() -> None:
    done: list[str] = []

    def task(name: str, steps: int) -> Callable[[], bool]:
        left = [steps]

        def run() -> bool:
            done.append(name)
            left[0] -= 1
            return left[0] == 0

        return run

    tasks = UserTasks()
    assert bool(tasks) is False
    tasks.add(1, "a", task("1a", 2))
    tasks.add(1, "b", task("1b", 1))
    tasks.add(2, "a", task("2a", 1))
    tasks.add(1, "a", task("twice", 1))
    assert (bool(tasks), tasks.count(1), tasks.count(2), tasks.count(3)) == (True, 2, 1, 0)
    tasks.run(lambda: 0.0, 0.0)
    assert (done, tasks.count(1)) == (["1a"], 2)
    tasks.add(1, "a", task("twice", 1))  # it waits there still, by its key
    assert tasks.count(1) == 2
    tasks.run(lambda: 0.0, 1.0)
    assert done == ["1a", "2a", "1b", "1a"]
    assert bool(tasks) is False


# -- watching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("now_s", [64.0, 2.0**20])
def test_a_predecessors_promise_is_kept_between_now_and_the_longest_that_is_made(
    now_s: float,
) -> None:
    one = Producer(1, 1, 0)
    for until_s, kept in (
        (now_s, False),
        (now_s + 2**-20, True),
        (now_s + WATCHED_NS_MAX / 1e9, True),
        (now_s + WATCHED_NS_MAX / 1e9 + 2**-20, False),
    ):
        watch = Wakeups(0.05)
        watch.inherit(one, int(until_s * 1e9), now_s)
        assert (one in watch, bool(watch)) == (kept, kept), until_s
        watch.end(one)
        watch.end(one)  # it may have been ended before
        assert one not in watch


def test_a_look_at_the_last_moment_of_the_margin_does_not_end_a_promise() -> None:
    watch, one = Wakeups(0.05), Producer(1, 1, 0)
    watch.inherit(one, 65 * 10**9, 64.9)
    assert one in watch
    watch.record_idle_poll(one, 65.0 + _MARGIN_S)
    assert one in watch
    watch.record_idle_poll(one, math.nextafter(65.0 + _MARGIN_S, 66.0))
    assert one not in watch


def test_a_promise_is_kept_until_a_look_that_began_past_its_end() -> None:
    watch, one = Wakeups(0.05), Producer(1, 1, 0)
    until_s = watch.suppress(one, 64.0, 0.0) / 1e9
    assert until_s == pytest.approx(64.1)
    watch.record_idle_poll(one, until_s)
    assert one in watch
    watch.record_idle_poll(one, until_s + 0.002)
    assert one not in watch
    assert (Wakeups(0.0).suppress(one, 64.0, 1.0), bool(Wakeups(0.0))) == (0, False)
    assert watch.suppress(one, 64.0, 1e6) == 64 * 10**9 + WATCHED_NS_MAX


# -- clocks --------------------------------------------------------------------------------------

SEEN = Reading(EARLIEST_NS + 400 * DAY_NS, "boot", 5 * HOUR_NS, True)


@pytest.mark.parametrize(
    ("later_ns", "believed"),
    [
        (STEP_MAX_NS, True),
        (STEP_MAX_NS + 1, False),
        (-BACK_MAX_NS, True),
        (-BACK_MAX_NS - 1, False),
    ],
)
def test_a_clock_is_believed_exactly_up_to_its_bounds(later_ns: int, believed: bool) -> None:
    for boot in ("boot", "other"):
        now = replace(SEEN, wall_ns=SEEN.wall_ns + later_ns, boot_id=boot, boottime_ns=5 * HOUR_NS)
        assert (readings.implausible(SEEN, now) is None) == believed


def test_time_that_is_known_to_have_passed_may_pass_and_boot_time_never_goes_back() -> None:
    now = Reading(SEEN.wall_ns + STEP_MAX_NS + DAY_NS, "boot", SEEN.boottime_ns + DAY_NS, True)
    assert readings.implausible(SEEN, now) is None
    assert readings.earliest_now_ns(SEEN, now) == SEEN.wall_ns + DAY_NS
    assert readings.earliest_now_ns(SEEN, replace(now, boottime_ns=0)) == SEEN.wall_ns
    assert readings.earliest_now_ns(SEEN, replace(SEEN)) == SEEN.wall_ns
    other = replace(now, boot_id="other", boottime_ns=7)
    assert readings.earliest_now_ns(SEEN, other) == SEEN.wall_ns + 7


def test_the_first_moment_of_this_programs_time_is_believed() -> None:
    first = Reading(EARLIEST_NS, "boot", 1)
    assert readings.implausible(None, first) is None
    found = readings.implausible(None, replace(first, wall_ns=EARLIEST_NS - 1))
    assert found == "the clock says 2024-12-31 23:59Z, which is before this program was written"


@pytest.mark.parametrize(
    ("later_ns", "text"),
    [
        (-BACK_MAX_NS - HOUR_NS, "25.0 hours behind"),
        (-2 * DAY_NS, "2.0 days behind"),
        (-2 * DAY_NS + 1, "48.0 hours behind"),
        (STEP_MAX_NS + DAY_NS, "8.0 days ahead of"),
        (2 * 365 * DAY_NS - 1, "730.0 days ahead of"),
        (2 * 365 * DAY_NS, "2.0 years ahead of"),
        (2000 * 365 * DAY_NS, "2,000.0 years ahead of"),
    ],
)
def test_how_far_it_is_off_is_reported_in_a_unit_of_its_size(later_ns: int, text: str) -> None:
    found = readings.implausible(SEEN, replace(SEEN, wall_ns=SEEN.wall_ns + later_ns))
    assert found is not None and text in found
    assert found.endswith("the last time that the trail has seen, 2026-02-05 00:00Z")
    if later_ns < 0:
        return
    jumped = readings.jumped(SEEN, replace(SEEN, wall_ns=SEEN.wall_ns + later_ns))
    assert jumped is not None and text.removesuffix(" ahead of") in jumped


def test_an_unsynchronised_clock_is_waited_for_an_hour_after_another_boot() -> None:
    now = Reading(SEEN.wall_ns, "other", SYNCHRONISED_AFTER_NS - 1, False)
    found = readings.implausible(SEEN, now)
    assert found is not None and "is not synchronised yet" in found
    for other in (
        replace(now, boottime_ns=SYNCHRONISED_AFTER_NS),
        replace(now, boot_id="boot"),
        replace(now, synchronised=None),
        replace(now, synchronised=True),
    ):
        assert readings.implausible(SEEN, other) is None
    assert readings.implausible(replace(SEEN, synchronised=None), now) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_running_clock_that_is_set_is_reported_from_ten_minutes_on(sign: int) -> None:
    later = replace(SEEN, wall_ns=SEEN.wall_ns + HOUR_NS, boottime_ns=SEEN.boottime_ns + HOUR_NS)
    assert readings.jumped(SEEN, later) is None
    near = replace(later, wall_ns=later.wall_ns + sign * (JUMP_MIN_NS - 1))
    assert readings.jumped(SEEN, near) is None
    found = readings.jumped(SEEN, replace(later, wall_ns=later.wall_ns + sign * JUMP_MIN_NS))
    way, at = ("ahead", "01:10") if sign > 0 else ("back", "00:50")
    assert found == f"the clock was set {way} by 0.2 hours, to 2026-02-05 {at}Z, meanwhile"


def test_a_time_far_behind_is_recorded_as_the_earliest_possible() -> None:
    assert readings.stamp_ns(None, SEEN) == SEEN.wall_ns
    edge = replace(SEEN, wall_ns=SEEN.wall_ns - STEP_MAX_NS, boottime_ns=SEEN.boottime_ns + 9)
    assert readings.stamp_ns(SEEN, edge) == edge.wall_ns
    past = replace(edge, wall_ns=edge.wall_ns - 1)
    assert readings.stamp_ns(SEEN, past) == SEEN.wall_ns + 9


def test_a_time_beyond_the_calendar_is_shown_as_a_number() -> None:
    found = readings.implausible(None, replace(SEEN, wall_ns=-(10**30)))
    assert found is not None and f"the clock says {-(10**30)} ns since 1970, which" in found


def test_times_are_shown_in_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "ELSEWHERE-5:30")
        time.tzset()
        found = readings.implausible(None, Reading(0, "boot", 1))
    time.tzset()
    assert found is not None and "the clock says 1970-01-01 00:00Z" in found


@pytest.mark.parametrize(
    ("first_ts_ns", "stored_from_ns", "found"),
    [
        (100, 100, NONE),
        (99, 100, SOME),
        (100, 99, SOME),
        (0, 100 + LATE_MAX_NS, NONE),
        (0, 100 + LATE_MAX_NS - 1, SOME),
        (100, None, SOME),
    ],
)
def test_a_block_is_past_its_time_by_the_moments_of_its_first_event(
    first_ts_ns: int, stored_from_ns: int | None, found: str
) -> None:
    assert past(100, first_ts_ns, stored_from_ns, 100 + 2 * LATE_MAX_NS) == found
    assert past(100, first_ts_ns, stored_from_ns, 100) == found
    assert past(100, first_ts_ns, stored_from_ns, 99) == ALL
