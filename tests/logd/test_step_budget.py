"""What one user's datagrams may cost a step, and how often it may force a commit."""

from __future__ import annotations

import pytest

from logd.ingest import step_budget
from logd.ingest.step_budget import ForcedCommits, StepBudget

FLOODER, GOOD = 1, 2


class Clock:
    """A monotonic clock that stands until it is put forward."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


RECORDS = step_budget.STEP_RECORDS_MAX // 2
BYTES = step_budget.STEP_BYTES_MAX // 2
SECONDS = step_budget.STEP_S_MAX / 2


@pytest.mark.parametrize(
    ("records", "size", "seconds"), [(RECORDS, 0, 0.0), (0, BYTES, 0.0), (0, 0, SECONDS)]
)
def test_a_user_may_use_half_of_a_step_and_leaves_the_rest_to_the_others(
    records: int, size: int, seconds: float
) -> None:
    clock = Clock()
    budget = StepBudget(clock)
    budget.begin()
    clock.now_s += 0.4 * seconds
    budget.charge(FLOODER, int(0.4 * records), int(0.4 * size))
    assert FLOODER not in budget.over
    clock.now_s += 0.7 * seconds
    budget.charge(FLOODER, int(0.7 * records), int(0.7 * size))
    assert (FLOODER in budget.over, GOOD in budget.over) == (True, False)
    assert not budget.exhausted
    clock.now_s += seconds
    budget.charge(GOOD, records, size)
    assert budget.exhausted, "all users together have used the step"
    budget.begin()
    assert (budget.over, budget.exhausted) == (set(), False), "the next step has all of it"


def test_a_user_who_forces_commits_leaves_half_of_the_time_to_the_others() -> None:
    forced = ForcedCommits()
    assert forced.due_s({FLOODER}) == 0.0
    forced.committed({FLOODER}, began_s=10.0, ended_s=10.5)
    assert forced.due_s({FLOODER}) == 11.0
    assert forced.due_s({GOOD}) == 0.0
    assert forced.due_s({FLOODER, GOOD}) == 0.0, "who waits beside the flooder waits no longer"
    assert forced.due_s(()) == float("inf")


def test_users_without_end_who_force_commits_fill_no_memory() -> None:
    forced = ForcedCommits()
    for uid in range(10_000):
        forced.committed({uid}, began_s=uid, ended_s=uid + 0.1)
    assert len(forced._rest_until_s) <= 2
