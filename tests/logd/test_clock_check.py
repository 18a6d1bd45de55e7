"""Which readings of the wall clock are trusted, what is recorded, and how events age."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.clock.event_age import (
    AHEAD_MAX_NS,
    ALL,
    LATE_MAX_NS,
    NONE,
    SOME,
    age_ns,
    is_plausible,
    past,
)
from logd.clock.readings import (
    BACK_MAX_NS,
    DAY_NS,
    EARLIEST_NS,
    HOUR_NS,
    JUMP_MIN_NS,
    STEP_MAX_NS,
    SYNCHRONISED_AFTER_NS,
    Reading,
    implausible,
    jumped,
    stamp_ns,
)
from logd.maintenance import prune as pruning
from logd.maintenance.event_removal import Steps
from logd.storage.job_table import PRUNE, Job, add_job, read_job
from logd.storage.store import Store
from logd.storage.time_blocks import BLOCK_EVENTS
from logd_wire.wire import Event, producer_seed

NOW_NS = EARLIEST_NS + 700 * DAY_NS
SEEN = Reading(NOW_NS, "this boot", 5 * HOUR_NS)
LATER = replace(SEEN, boottime_ns=6 * HOUR_NS)
REBOOTED = Reading(NOW_NS, "next boot", HOUR_NS // 60)
YEARS_2 = 2 * 365 * DAY_NS


@pytest.mark.parametrize(
    ("seen", "now", "why"),
    [
        (SEEN, replace(LATER, wall_ns=NOW_NS + HOUR_NS), None),
        (SEEN, replace(LATER, wall_ns=NOW_NS + HOUR_NS + STEP_MAX_NS), None),
        (SEEN, replace(LATER, wall_ns=NOW_NS + HOUR_NS + STEP_MAX_NS + 1), "ahead of the last"),
        (SEEN, replace(REBOOTED, wall_ns=NOW_NS + YEARS_2), "2.0 years ahead of the last time"),
        # An idle trail on a machine that was up: boot time tells that eight weeks have passed.
        (SEEN, Reading(NOW_NS + 56 * DAY_NS, "this boot", 5 * HOUR_NS + 56 * DAY_NS), None),
        # A machine that was off for eight weeks tells nothing: a person has to.
        (SEEN, replace(REBOOTED, wall_ns=NOW_NS + 56 * DAY_NS), "56.0 days ahead"),
        # Nor does one that was up for years when a trail comes to it.
        (SEEN, Reading(NOW_NS + YEARS_2, "next boot", YEARS_2), "ahead of the last"),
        (SEEN, replace(REBOOTED, wall_ns=NOW_NS - BACK_MAX_NS), None),
        (SEEN, replace(REBOOTED, wall_ns=NOW_NS - BACK_MAX_NS - 1), "24.0 hours behind the last"),
        (SEEN, replace(REBOOTED, wall_ns=30 * HOUR_NS), "before this program was written"),
        (None, replace(REBOOTED, wall_ns=0), "before this program was written"),
        (None, REBOOTED, None),
        (SEEN, replace(REBOOTED, wall_ns=2**63 - 1), "ahead of the last"),
    ],
)
def test_a_reading_is_trusted_if_a_pause_explains_it(
    seen: Reading | None, now: Reading, why: str | None
) -> None:
    said = implausible(seen, now)
    assert said == why if why is None else why in str(said)


@pytest.mark.parametrize(
    ("was", "now", "refused"),
    [
        (True, replace(REBOOTED, synchronised=False), True),
        (True, replace(REBOOTED, synchronised=True), False),
        (True, replace(REBOOTED, synchronised=None), False),
        # Bounded: the synchronisation may be gone for good.
        (True, Reading(NOW_NS, "next boot", SYNCHRONISED_AFTER_NS, synchronised=False), False),
        # A container, a closed network, another NTP daemon behind a sandbox: nothing follows.
        (False, replace(REBOOTED, synchronised=False), False),
        (None, replace(REBOOTED, synchronised=False), False),
    ],
)
def test_a_clock_that_was_synchronised_is_waited_for_and_no_other(
    was: bool | None, now: Reading, *, refused: bool
) -> None:
    said = implausible(replace(SEEN, synchronised=was), now)
    assert ("not synchronised yet" in str(said)) == refused


def test_what_is_recorded_far_in_the_past_is_recorded_at_the_earliest_it_can_be() -> None:
    for wall_ns in (0, 1_640_995_200 * 10**9, NOW_NS - STEP_MAX_NS - 1):
        assert stamp_ns(SEEN, replace(LATER, wall_ns=wall_ns)) == NOW_NS + HOUR_NS
        assert stamp_ns(SEEN, replace(REBOOTED, wall_ns=wall_ns)) == NOW_NS + HOUR_NS // 60
        assert stamp_ns(None, replace(LATER, wall_ns=wall_ns)) == wall_ns
    for wall_ns in (NOW_NS - STEP_MAX_NS, NOW_NS, NOW_NS + YEARS_2):
        assert stamp_ns(SEEN, replace(LATER, wall_ns=wall_ns)) == wall_ns


def test_a_clock_that_is_set_is_distinguished_from_one_that_runs() -> None:
    for seconds in (0, 10, 10**8):
        ran = Reading(NOW_NS + seconds * 10**9, "this boot", SEEN.boottime_ns + seconds * 10**9)
        assert jumped(SEEN, ran) is None
        ahead = jumped(SEEN, replace(ran, wall_ns=ran.wall_ns + YEARS_2))
        assert ahead is not None and "set ahead by 2.0 years" in ahead
        back = jumped(SEEN, replace(ran, wall_ns=ran.wall_ns - JUMP_MIN_NS))
        assert back is not None and "set back by" in back


# -- an event's age ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts_ns", "age", "plausible"),
    [
        (NOW_NS, NOW_NS, True),
        (NOW_NS - LATE_MAX_NS, NOW_NS - LATE_MAX_NS, True),  # waited in an outbox
        (NOW_NS - LATE_MAX_NS - 1, NOW_NS, False),  # history, imported
        (0, NOW_NS, False),  # a client without a clock
        (NOW_NS + AHEAD_MAX_NS, NOW_NS, True),
        (NOW_NS + AHEAD_MAX_NS + 1, NOW_NS, False),
        (2**63 - 1, NOW_NS, False),
    ],
)
def test_an_event_ages_by_its_own_time_as_far_as_that_of_storing_bears_it_out(
    ts_ns: int, age: int, *, plausible: bool
) -> None:
    assert age_ns(ts_ns, NOW_NS) == age
    assert is_plausible(ts_ns, NOW_NS) == plausible
    assert is_plausible(ts_ns, None)


def test_the_result_for_a_block_holds_for_each_of_its_events() -> None:
    """Tried with each combination of times around the one that decides."""
    before = NOW_NS
    steps = [before + shift for shift in (-LATE_MAX_NS, -2, -1, 0, 1, LATE_MAX_NS - 1, LATE_MAX_NS)]
    seen = set()
    for start in steps:
        for end in (step for step in steps if step >= start):
            for first in steps:
                said = past(before, first, start, end)
                seen.add(said)
                goes = {
                    age_ns(ts, stored) < before
                    for stored in steps
                    if start <= stored <= end
                    for ts in (*(step for step in steps if step >= first), 2**63 - 1)
                }
                assert said == SOME or goes == {said == ALL}, (start, end, first)
    assert seen == {ALL, SOME, NONE}
    assert past(before, 0, None, before) == SOME
    assert past(before, 0, None, before - 1) == ALL


class Trail:
    """A store whose batches are stored at chosen times, with one type that is kept for 90 days."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, bytes(32), NOW_NS, 10)
        self.producer = Producer(uid=1, id=1, seed=producer_seed(1))

    def put(
        self, stored_ns: int, *ts_ns: int, kind: str = "page_view", user: str | None = None
    ) -> range:
        """Stores a batch; returns the ids of its events."""
        batch = Batch(10**6, 10**9)
        first = self.store.next_event
        for ts in ts_ns:
            self.producer.taken += 1
            event = Event(kind, ts, user, msgpack.packb({"task": 1}))
            batch.add(self.producer, self.producer.taken, event, 1)
        self.store.commit(batch, stored_ns)
        batch.mark_committed()
        return range(first, self.store.next_event)

    def prune(self, now_ns: int, kind: str = "page_view") -> set[int]:
        """Prunes as at that moment; returns the ids of the remaining events of that type."""
        connection = self.store.connection
        params: dict[str, Any] = {"before": {kind: now_ns - 90 * DAY_NS}}
        job: Job | None = read_job(connection, add_job(connection, PRUNE, params, now_ns))
        assert job is not None
        would_go = pruning.count(connection, params["before"], now_ns)[kind]
        for _ in pruning.prune(job, self.store, Steps(self.store, lambda: now_ns)):
            pass
        assert job.outcome.get(kind, 0) == would_go, "a dry run counts what goes"
        kinds = "SELECT id FROM event WHERE type = (SELECT id FROM event_type WHERE name = ?)"
        return {event_id for (event_id,) in connection.execute(kinds, (kind,))}


@pytest.fixture
def trail(directory: Path) -> Any:
    made = Trail(directory / "a.db")
    yield made
    assert verify(made.store.connection).findings == []
    made.store.close()


@pytest.mark.parametrize(("kind", "user"), [("page_view", None), ("task_completed", "7")])
def test_a_broken_client_clock_takes_no_event_early_and_keeps_none_for_ever(
    trail: Trail, kind: str, user: str | None
) -> None:
    def put(stored_ns: int, *ts_ns: int) -> range:
        return trail.put(stored_ns, *ts_ns, kind=kind, user=user)

    of_1970 = put(NOW_NS, 0, 10**9)
    of_2100 = put(NOW_NS, 4_102_444_800 * 10**9, 2**63 - 1)
    imported = put(NOW_NS, NOW_NS - 3 * 365 * DAY_NS)
    late = put(NOW_NS + 6 * DAY_NS, NOW_NS)
    there = {*of_1970, *of_2100, *imported, *late}
    for days in (0, 1, 89, 90):
        assert trail.prune(NOW_NS + days * DAY_NS, kind) == there
    trail.put(NOW_NS + 91 * DAY_NS, NOW_NS, kind="login")
    assert trail.prune(NOW_NS + 91 * DAY_NS, kind) == set()


@pytest.mark.parametrize(
    ("wrong_ns", "kind", "user"),
    [(0, "page_view", None), (0, "task_completed", "7"), (NOW_NS + YEARS_2, "page_view", "7")],
    ids=["1970", "1970, by user", "two years ahead"],
)
def test_events_stored_by_a_daemon_with_a_wrong_clock_are_kept_as_long_as_others(
    trail: Trail, wrong_ns: int, kind: str, user: str | None
) -> None:
    """The next batch with a plausible time decides, even if whole blocks before it have none."""

    def put(stored_ns: int, *ts_ns: int) -> range:
        return trail.put(stored_ns, *ts_ns, kind=kind, user=user)

    old = put(NOW_NS - 5 * DAY_NS, NOW_NS - 5 * DAY_NS)
    there = {*put(NOW_NS, NOW_NS), *put(wrong_ns, wrong_ns)}
    for _ in range(2):
        trail.put(wrong_ns, *[wrong_ns] * BLOCK_EVENTS, kind="login")
        there |= {*put(wrong_ns, wrong_ns)}
    assert trail.prune(NOW_NS + DAY_NS, kind) == {*old, *there}
    there |= {*put(NOW_NS + DAY_NS, NOW_NS + DAY_NS)}
    assert trail.prune(NOW_NS + 90 * DAY_NS, kind) == there
    trail.put(NOW_NS + DAY_NS, *[NOW_NS] * BLOCK_EVENTS, kind="login")
    trail.put(NOW_NS + DAY_NS, NOW_NS, kind="login")  # the first of another block
    later = put(NOW_NS + 92 * DAY_NS, NOW_NS + 92 * DAY_NS)
    assert trail.prune(NOW_NS + 92 * DAY_NS, kind) == set(later)


def test_a_block_that_was_stored_long_ago_goes_whole_and_a_new_one_stays_whole(
    trail: Trail,
) -> None:
    """Two look-ups in the batches decide, whatever times the events claim."""
    ids = []
    for day in (0, 10, 20, 30, 100, 110):
        ids.append(trail.put(NOW_NS + day * DAY_NS, 0, NOW_NS, 2**63 - 1))
        filler = [NOW_NS] * (BLOCK_EVENTS // 2 - 3)
        trail.put(NOW_NS + day * DAY_NS, *filler, kind="login")
    left = trail.prune(NOW_NS + 115 * DAY_NS)  # past is what was stored before day 25
    assert left == {*ids[3], *ids[4], *ids[5]}
