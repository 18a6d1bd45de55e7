"""The latest is the latest in time, in whatever order events were stored: pages and roll-ups."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.maintenance.event_removal import Steps
from logd.maintenance.subject_rollups import SubjectRecount
from logd.reports import time_order
from logd.reports.event_filter import EventFilter
from logd.reports.parameters import BadParameter
from logd.storage.removal_log import PRUNED
from logd.storage.time_blocks import BLOCK_EVENTS
from logd_wire.wire import Event, producer_seed
from tests.logd.test_blocks import made_up, steps
from tests.logd.test_reports import Trail

EVENTS = 2 * BLOCK_EVENTS + 1000
WRONG_EVERY = 800  # events of a wrong clock: some in every block
FUTURE_NS = 10**18


@pytest.fixture
def trail(directory: Path) -> Iterator[Trail]:
    made = Trail(directory / "a.db")
    yield made
    assert verify(made.store.connection).findings == []
    made.store.close()


def put(trail: Trail, *events: Event, producer: Producer | None = None) -> None:
    producer = producer or trail.producer
    batch = Batch(10**6, 10**9)
    for event in events:
        producer.taken += 1
        batch.add(producer, producer.taken, event, 1)
    trail.store.commit(batch, 5)


# -- pages


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trail, list[Event]]]:
    """Three blocks, each with events of long ago and of the future, and with equal times."""
    trail = Trail(tmp_path_factory.mktemp("wide") / "a.db")
    events = [
        event._replace(ts_ns=FUTURE_NS + number // 3) if number % WRONG_EVERY < 3 else event
        for number, event in enumerate(islice(made_up(), EVENTS))
    ]
    put(trail, *events)
    yield trail, events
    trail.store.close()


def expected(events: list[Event], **asked: Any) -> list[int]:
    """The ids of those events, the slow way."""
    found = [
        (event.ts_ns, number)
        for number, event in enumerate(events, start=1)
        if event.type == asked.get("type", event.type)
        and event.user == asked.get("user", event.user)
        and asked.get("since_ns", 0) <= event.ts_ns < asked.get("until_ns", 2**63)
    ]
    return [number for _, number in sorted(found, reverse=True)]


def test_pages_put_together_are_all_events_once_in_order_of_time(
    wide: tuple[Trail, list[Event]],
) -> None:
    trail, events = wide
    middle = sorted(event.ts_ns for event in events)[EVENTS // 2]
    asked: dict[str, Any]
    for asked in (
        {},
        {"type": "login"},
        {"user": "2"},
        {"user": "2", "type": "logout"},
        {"since_ns": middle},
        {"until_ns": middle, "type": "page_view"},
        {"since_ns": middle, "until_ns": FUTURE_NS + 1, "user": "1"},
        {"type": "never_seen"},
    ):
        wanted = expected(events, **asked)
        limit = random.Random(len(wanted)).choice((7, 50, 200))
        found: list[int] = []
        for page in islice(trail.pages("events", limit=limit, **asked), 40):
            found += [row["id"] for row in page.rows]
        assert found == wanted[: 40 * limit], asked
    every = [row["id"] for page in trail.pages("events", limit=200) for row in page.rows]
    assert every == expected(events)
    timeline = [row["id"] for page in trail.pages("timeline", user="3") for row in page.rows]
    assert timeline == expected(events, user="3")


def test_equal_times_in_several_blocks_are_in_the_order_of_ids(trail: Trail) -> None:
    """The block with the latest time of all has the earlier ones of them."""
    put(trail, *(Event("login", 99 if n == 7 else 50, "1", b"\x80") for n in range(BLOCK_EVENTS)))
    put(trail, *(Event("login", 50, "1", b"\x80") for _ in range(3)))
    page = trail.ask("events", limit=5)
    newest = BLOCK_EVENTS + 3
    assert [row["id"] for row in page.rows] == [8, newest, newest - 1, newest - 2, newest - 3]


@pytest.mark.parametrize("types", [None, {"login"}, {"never_seen"}])
def test_a_page_between_times_of_wrong_clocks_scans_no_block(
    wide: tuple[Trail, list[Event]], types: set[str] | None
) -> None:
    """Every block may hold events of that time, and one block does."""
    trail, events = wide
    before = time_order.Position(sorted(event.ts_ns for event in events)[EVENTS // 2], 0)
    wanted = EventFilter(types=None if types is None else frozenset(types))
    with steps(trail.store.connection) as count_of:
        list(islice(time_order.Search(trail.store.connection, wanted, before=before), 51))
    assert count_of() < BLOCK_EVENTS / 2


def test_while_events_arrive_no_event_is_skipped_or_repeated(trail: Trail) -> None:
    rng = random.Random(3)
    there: set[int] = set()
    seen: list[tuple[int, int]] = []
    params: dict[str, Any] = {"limit": 3, "user": "1"}
    put(trail, *(Event("login", rng.randrange(8), "1", b"\x80") for _ in range(60)))
    there = set(range(1, 61))
    while True:
        page = trail.ask("timeline", **params)
        seen += [(row["ts_ns"], row["id"]) for row in page.rows]
        if page.next is None:
            break
        params |= {"before_id": page.next, "before_ns": page.rows[-1]["ts_ns"]}
        # Also of the very time at which the page ended.
        put(trail, *(Event("login", ts, "1", b"\x80") for ts in (9, seen[-1][0], rng.randrange(8))))
    assert seen == sorted(set(seen), reverse=True)
    assert there <= {number for _, number in seen}
    assert len(seen) > len(there), "of those that arrived, later pages have the earlier ones"


def test_a_page_continues_after_an_event_that_was_removed(trail: Trail) -> None:
    put(trail, *(Event("login", ts, "1", b"\x80") for ts in (30, 10, 20, 20)))
    first = trail.ask("events", limit=2)
    assert [row["id"] for row in first.rows] == [1, 4]
    assert first.next == 4
    Steps(trail.store).remove(PRUNED, [4], {}, lambda _: None)
    with pytest.raises(BadParameter, match="event 4 is not there"):
        trail.ask("events", type="login", before_id=4)
    rest = trail.ask("events", type="login", before_id=4, before_ns=20)
    assert [row["id"] for row in rest.rows] == [3, 2]
    with pytest.raises(BadParameter, match="only together"):
        trail.ask("events", before_ns=20)


# -- roll-ups


def attempt(ts_ns: int, score: float | None, number: object, quiz: str = "q") -> Event:
    props = {"quiz": quiz, "score": score, "attempt": number}
    return Event("quiz_submitted", ts_ns, "1", msgpack.packb(props))


def state(trail: Trail) -> tuple[Any, ...]:
    (row,) = trail.ask("completions", type="quiz_submitted").rows
    return tuple(row[name] for name in ("first_ts_ns", "last_ts_ns", "last_value", "best_value"))


def test_a_score_that_waited_in_an_outbox_does_not_replace_a_later_one(trail: Trail) -> None:
    """After an outage the outboxes are read in another order than they were written in."""
    put(trail, attempt(200, 1.0, 2))
    put(trail, attempt(100, 0.0, 1), producer=Producer(1000, 8, producer_seed(8)))
    assert state(trail) == (100, 200, 1.0, 1.0)
    assert trail.rows("score_distribution") == [("q", 9, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_order_outboxes_are_read_in_the_state_is_the_same(trail: Trail, seed: int) -> None:
    """Equal times are decided by the attempt."""
    rng = random.Random(seed)
    attempts = [attempt(rng.randrange(1, 4), rng.choice([None, 0.2, 0.9]), n) for n in range(9)]
    rng.shuffle(attempts)
    for start in range(0, 9, size := rng.randrange(1, 10)):
        put(trail, *attempts[start : start + size])
    times = [(event.ts_ns, msgpack.unpackb(event.props)) for event in attempts]
    latest_ns, latest = max(times, key=lambda one: (one[0], one[1]["attempt"]))
    scores = [props["score"] for _, props in times if props["score"] is not None]
    first_ns = min(ts_ns for ts_ns, _ in times)
    assert state(trail) == (first_ns, latest_ns, latest["score"], max(scores, default=None))


def test_a_strange_attempt_counts_as_none_and_the_later_stored_decides(trail: Trail) -> None:
    for number in (True, -1, 2**63, "7", None, 1.5):
        put(trail, attempt(5, 0.1, number), attempt(5, 0.7, 0))
        assert state(trail)[2] == 0.7
    put(trail, attempt(5, 0.3, None))
    assert state(trail)[2] == 0.3


@pytest.mark.parametrize("seed", range(10))
def test_removing_events_leaves_the_latest_in_time_of_the_others(trail: Trail, seed: int) -> None:
    """The fixture verifies the roll-ups: each step's, and the last one's."""
    rng = random.Random(seed)
    events = [
        attempt(rng.randrange(6), rng.random(), rng.randrange(3), rng.choice("ab"))
        for _ in range(40)
    ]
    put(trail, *events)
    connection = trail.store.connection
    goes = set(rng.sample(range(1, 41), 25))
    (type_id,) = connection.execute("SELECT id FROM event_type").fetchone()
    recount = SubjectRecount("quiz_submitted", type_id, "1", lambda number, _ts: number in goes)
    assert recount.read(connection, 1000)
    removal = Steps(trail.store)
    while recount.ids:
        removal.remove(PRUNED, (), {recount: recount.ids[:10]}, lambda _: None)
        assert verify(connection).findings == []
    assert connection.execute("SELECT count(*) FROM event WHERE user = '1'").fetchone() == (15,)
