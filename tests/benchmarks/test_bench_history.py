"""A school's history of any size: events as the site logs them, in a trail that verifies."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.growth import history as module
from benchmarks.growth.history import DAY_NS, History, build, size_label, size_suffix, trail
from benchmarks.harness.processes import temporary_directory
from logd.audit.verify import verify
from logd.storage.opening import open_for_reading
from logd_wire.wire import unpack_props
from tests.support.instance import Instance

NOW_NS = 1_790_000_000 * 10**9
STAFF = {"1", "2", "3"}


@pytest.fixture(scope="module")
def small() -> History:
    return History(5000, NOW_NS)


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_built", {})
    monkeypatch.setattr(module, "EVENTS_PER_STEP", 500)


@pytest.mark.long(minutes=0.2)
def test_a_history_has_its_size_ends_now_and_is_reproducible(small: History) -> None:
    events = list(small.events())
    assert len(events) == small.size
    assert NOW_NS - DAY_NS < events[-1].ts_ns <= NOW_NS
    assert events == list(small.events())
    assert events != list(History(5000, NOW_NS, seed=2).events())


def test_the_events_are_the_sites_and_mostly_page_views(small: History) -> None:
    events = list(small.events())
    kinds = Counter(event.type for event in events)
    assert 0.85 < kinds["page_view"] / len(events) < 0.97
    assert {"login", "task_completed", "quiz_submitted"} <= set(kinds)
    assert {event.user for event in events} <= {None, *STAFF, *small.students}
    ids = [unpack_props(event.props)["request_id"] for event in events]
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 32 for one in ids)


def test_the_following_events_are_later_and_of_the_same_users(small: History) -> None:
    more = list(islice(small.more(), 3000))
    last_ns = max(event.ts_ns for event in small.events())
    assert min(event.ts_ns for event in more) > last_ns - DAY_NS
    assert {event.user for event in more} <= {None, *STAFF, *small.students}


def test_ten_million_events_have_no_more_students_than_a_report_allows() -> None:
    large = History(10**7, NOW_NS)
    assert len(large.students) == len(set(large.students)) == 990
    assert large.class_of(1)[0] not in large.class_of(0)
    ids = [unpack_props(event.props)["request_id"] for event in islice(large.more(), 2000)]
    assert len(set(ids)) == len(ids)
    # About a school year, not a day with a million events.
    assert 300 < large.span_ns / DAY_NS < 400


def test_a_built_trail_verifies_and_all_producers_have_ended(
    small: History, instance: Instance
) -> None:
    steps: list[int] = []
    build(instance.config, small, steps.append, events_per_batch=700)
    assert sum(steps) == small.size
    connection = open_for_reading(instance.config)
    verdict = verify(connection)
    open_producers = connection.execute("SELECT count(*) FROM producer WHERE ended = 0").fetchone()
    connection.close()
    assert (verdict.findings, verdict.events) == ([], small.size)
    assert open_producers == (0,)


@pytest.mark.long(minutes=0.2)
def test_a_trail_is_built_once_and_its_outboxes_are_removed() -> None:
    steps: list[int] = []

    def advance(_now: str, done: int) -> None:
        steps.append(done)

    size = module.EVENTS_PER_STEP * 2
    with temporary_directory(None) as place:
        with trail(place, size, advance) as first:
            outboxes = first.config.outbox_directory
            assert outboxes.exists()
            assert first.instance.status()["stored"] == size
        assert sum(steps) == module.building_steps((size,)) == 2
        assert not outboxes.exists()
        with trail(place, size, advance) as second:
            assert second is first
        assert sum(steps) == 4
    assert not Path(first.instance.directory).exists()


def test_sizes_are_labelled_as_powers_of_ten() -> None:
    assert [size_label(size) for size in (10**5, 10**7, 200_000)] == ["10^5", "10^7", "200,000"]
    assert [size_suffix(size) for size in (10**5, 10**7)] == ["1e5", "1e7"]
