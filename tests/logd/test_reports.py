"""Reports and roll-ups over a store: the figures a dashboard shows are those of the events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logd import batch as batch_module
from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.reports.event_queries import COMPLETIONS_MAX
from logd.reports.ledger_queries import CAUSES
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.storage.rollups import DAY_NS
from logd.storage.store import Store
from logd_wire.query import Answer
from logd_wire.wire import Event, producer_seed

BY_ID = {"timeline", "events", "events_export", "losses", "quarantine", "copies", "removals"}
BY_ID |= {"person_events", "person_mentions", "person_readings"}


class Trail:
    """A store that events can be put into by hand."""

    def __init__(self, path: Path, quarantine_rows_max: int = 10) -> None:
        self.store = Store(path, os.urandom(32), 1, quarantine_rows_max)
        self.producer = Producer(uid=1000, id=9, seed=producer_seed(9))

    def put(self, *events: tuple[str, str | None, int, dict[str, Any]]) -> None:
        batch = Batch(10**6, 10**9)
        for kind, user, day, props in events:
            self.producer.taken += 1
            packed = msgpack.packb(props)
            event = Event(kind, day * DAY_NS + self.producer.taken, user, packed)
            batch.add(self.producer, self.producer.taken, event, 1)
        self.store.commit(batch, 5)

    def ask(self, report: str, **params: Any) -> Answer:
        return REPORTS[report].run(self.store.connection, Parameters(params))

    def pages(self, report: str, **params: Any) -> Iterator[Answer]:
        """Yields all pages of a report; `next` is asked for by the parameter that it takes."""
        by = "before_id" if report in BY_ID else "after"
        by = "after_id" if report == "events_after" else by
        while True:
            page = self.ask(report, **params)
            yield page
            if page.next is None:
                return
            params[by] = page.next

    def rows(self, report: str, **params: Any) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.ask(report, **params).rows]


@pytest.fixture
def trail(directory: Path) -> Iterator[Trail]:
    made = Trail(directory / "a.db")
    yield made
    assert verify(made.store.connection).findings == []
    made.store.close()


def view(user: str | None, day: int) -> tuple[str, str | None, int, dict[str, Any]]:
    return ("page_view", user, day, {"route": "/"})


def quiz(user: str, subject: object, score: object) -> tuple[str, str, int, dict[str, Any]]:
    return ("quiz_submitted", user, 3, {"quiz": subject, "score": score})


def test_daily_activity_counts_views_and_different_users_per_day(trail: Trail) -> None:
    trail.put(view("1", 10), view("2", 10), view("1", 10), view(None, 10), view("1", 12))
    trail.put(view("1", 12), view("3", 13), ("login", "9", 10, {}))
    assert trail.rows("daily_activity", since_day=10, until_day=12) == [(10, 4, 2), (12, 2, 1)]
    assert trail.rows("daily_activity", since_day=10, until_day=20, users=["1"]) == [
        (10, 2, 1),
        (12, 2, 1),
    ]


def test_completions_keep_first_last_and_best_of_each_user_and_subject(trail: Trail) -> None:
    trail.put(quiz("1", "a", 0.5), quiz("1", "a", 0.9))
    trail.put(quiz("1", "a", 0.7), quiz("2", 8, 1.0), quiz("2", "a", None))
    rows = {
        (r["user"], r["subject"]): r for r in trail.ask("completions", type="quiz_submitted").rows
    }
    assert set(rows) == {("1", "a"), ("2", "8"), ("2", "a")}
    mine = rows["1", "a"]
    assert (mine["events"], mine["last_value"], mine["best_value"]) == (3, 0.7, 0.9)
    assert mine["first_ts_ns"] < mine["last_ts_ns"]
    assert rows["2", "a"]["last_value"] is None
    only = trail.ask("completions", type="quiz_submitted", users=["2"], subjects=["a"])
    assert [r["user"] for r in only.rows] == ["2"]


def test_completions_come_in_pages(trail: Trail) -> None:
    count = COMPLETIONS_MAX + 5
    trail.put(*(("task_completed", f"{n:05}", 1, {"task": "t"}) for n in range(count)))
    first = trail.ask("completions")
    assert len(first.rows) == COMPLETIONS_MAX and first.next is not None
    second = trail.ask("completions", after=first.next)
    users = [row["user"] for row in first.rows + second.rows]
    assert users == [f"{n:05}" for n in range(count)] and second.next is None


def test_score_distribution_counts_each_users_latest_score(trail: Trail) -> None:
    trail.put(quiz("1", "a", 0.1), quiz("1", "a", 1.0), quiz("2", "a", 0.99), quiz("3", "a", 0.0))
    assert trail.rows("score_distribution", subject="a") == [("a", 0, 1), ("a", 9, 2)]
    assert trail.rows("score_distribution", subject="a", buckets=2, users=["3"]) == [("a", 0, 1)]


@pytest.mark.parametrize("strange", [None, [1], {"x": 1}, True, float("nan"), "0.5", 10**18, -3])
def test_a_strange_score_or_subject_disturbs_nothing(trail: Trail, strange: object) -> None:
    trail.put(quiz("1", "a", strange), quiz("1", strange, 0.5), ("task_completed", "1", 2, {}))
    rows = trail.rows("score_distribution")
    assert all(0 <= bucket <= 9 for _, bucket, _ in rows)


def test_the_explorer_filters_and_pages_by_key(trail: Trail) -> None:
    trail.put(*(view(str(n % 3), 10 + n % 2) for n in range(100)))
    trail.put(("login", "1", 10, {"a": 1}))
    assert [row["type"] for row in trail.ask("events", limit=51).rows][-2:] == [
        "page_view",
        "login",
    ], "the latest of the day before"
    pages = list(trail.pages("events", user="1", type="page_view", limit=7))
    seen = [(row["ts_ns"], row["id"]) for page in pages for row in page.rows]
    assert seen == sorted(seen, reverse=True) and len(set(seen)) == 33
    day = trail.ask("events", since_ns=11 * DAY_NS, until_ns=12 * DAY_NS, limit=200)
    assert len(day.rows) == 50
    assert trail.ask("events", type="never_seen").rows == []


def test_each_event_carries_the_time_of_its_own_batch(trail: Trail) -> None:
    for stored_ns in (100, 200, 300):
        batch = Batch(10, 1000)
        for _ in range(2):
            trail.producer.taken += 1
            batch.add(trail.producer, trail.producer.taken, Event("login", 1, "1", b"\x80"), 1)
        if stored_ns == 200:
            batch.add_loss(trail.producer, trail.producer.taken + 1, trail.producer.taken + 4, "x")
            trail.producer.taken += 4
        trail.store.commit(batch, stored_ns)
    rows = trail.ask("timeline", user="1").rows
    assert [row["stored_ns"] for row in rows] == [300, 300, 200, 200, 100, 100]


@pytest.mark.parametrize("report", ["timeline", "events"])
def test_an_event_whose_time_does_not_fit_that_of_its_storing_is_marked(
    trail: Trail, report: str
) -> None:
    stored_ns = 100 * DAY_NS
    batch = Batch(10, 1000)
    for ts_ns in (0, 92 * DAY_NS, 93 * DAY_NS, stored_ns, 101 * DAY_NS, 102 * DAY_NS, 2**63 - 1):
        trail.producer.taken += 1
        event = Event("login", ts_ns, "1", b"\x80")
        batch.add(trail.producer, trail.producer.taken, event, 1)
    trail.store.commit(batch, stored_ns)
    rows = trail.ask(report, user="1").rows
    marks = [row["time_in_doubt"] for row in reversed(rows)]
    assert marks == [True, True, False, False, False, True, True]


def test_losses_are_listed_with_range_cause_and_time(trail: Trail) -> None:
    assert trail.ask("losses").rows == []
    batch = Batch(10, 1000)
    batch.add_loss(trail.producer, 1, 4, "not received")
    trail.producer.taken = 4
    batch.add_loss(trail.producer, 5, None, "tail unknown")
    trail.store.commit(batch, 77)
    assert trail.rows("losses") == [
        (2, "1000-0000000000000009", 5, None, None, "tail unknown", 77),
        (1, "1000-0000000000000009", 1, 4, 4, "not received", 77),
    ]
    (summary,) = trail.ask("summary").rows
    assert (summary["lost"], summary["stored"], summary["commits"]) == (4, 0, 1)


def test_losses_are_summed_by_cause_and_a_cause_that_never_was_is_zero(trail: Trail) -> None:
    assert trail.rows("losses_by_cause") == [(cause, 0, 0, 0, None) for cause in CAUSES]
    for now_ns, first in ((77, 1), (88, 10)):
        batch = Batch(10, 1000)
        batch.add_loss(trail.producer, first, first + 3, "not received")
        trail.producer.taken = first + 3
        batch.add_loss(trail.producer, first + 4, None, "tail unknown")
        batch.add_loss(trail.producer, first + 4, first + 4, "a cause of a newer version")
        trail.store.commit(batch, now_ns)
    rows = trail.rows("losses_by_cause")
    assert [row for row in rows if row[1]] == [
        ("not received", 2, 8, 0, 88),
        ("tail unknown", 2, 0, 2, 88),
        ("a cause of a newer version", 2, 2, 0, 88),
    ]
    assert len(rows) == len(CAUSES) + 1


def test_every_cause_that_the_daemon_books_is_in_the_totals() -> None:
    booked = {value for name, value in vars(batch_module).items() if name.startswith("LOST_")}
    assert booked == set(CAUSES)


def test_quarantine_keeps_the_newest_rows_and_counts_all(trail: Trail) -> None:
    batch = Batch(1000, 10**6)
    for number in range(25):
        batch.add_quarantine(1, 2, f"reason {number}", b"\x00\xff")
    trail.store.commit(batch, 5)
    rows = trail.ask("quarantine").rows
    assert [row["reason"] for row in rows] == [f"reason {n}" for n in range(24, 14, -1)]
    assert (rows[0]["excerpt"], rows[0]["uid"], rows[0]["pid"]) == ("00ff", 1, 2)
    assert trail.ask("summary").rows[0]["quarantined"] == 25


_values = st.one_of(st.none(), st.floats(), st.integers(-5, 5), st.text(max_size=3))
_events = st.tuples(
    st.sampled_from(["page_view", "task_completed", "quiz_submitted"]),
    st.sampled_from(["1", "2", None]),
    st.integers(0, 3),
    st.fixed_dictionaries({}, optional={"task": _values, "quiz": _values, "score": _values}),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(_events, min_size=1, max_size=8), max_size=5))
def test_rollups_equal_what_the_events_say_however_they_are_batched(
    trail: Trail, batches: list[list[Any]]
) -> None:
    for events in batches:
        trail.put(*events)
    assert verify(trail.store.connection).findings == []


def test_many_rows_go_in_with_statements_of_every_size(trail: Trail) -> None:
    trail.put(*(view("1", 1) for _ in range(4444)))
    assert trail.ask("summary").rows[0]["stored"] == 4444
