"""Time blocks: a query by time or user reads only the blocks it needs, and misses no event."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.reports.event_queries import event_page
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.storage import keyfile, migration_progress, migrations, time_blocks
from logd.storage.database import Connection
from logd.storage.store import Store
from logd.storage.time_blocks import BLOCK_EVENTS
from logd_wire.wire import Event, producer_seed
from tests.logd.older import older
from tests.support.instance import Instance, short_directory

EVENTS = 2 * BLOCK_EVENTS + 1000
SECOND_NS = 10**9
TYPES = ("page_view",) * 20 + ("login", "logout")
USERS = ("1", "2", "3", None)


def made_up(seed: int = 1) -> Iterator[Event]:
    """Events a second apart, nearly in order; one in a thousand is of another year."""
    rng = random.Random(seed)
    for second in count(10**6):
        ts_ns = (second + rng.randrange(-5, 5)) * SECOND_NS
        if rng.randrange(1000) == 0:
            ts_ns = rng.randrange(10**15)
        yield Event(rng.choice(TYPES), ts_ns, rng.choice(USERS), b"\x80")


def put(store: Store, producer: Producer, events: list[Event]) -> None:
    batch = Batch(10**6, 10**9)
    for event in events:
        producer.taken += 1
        batch.add(producer, producer.taken, event, 1)
    store.commit(batch, 5)


def fill(store: Store, events: list[Event], events_per_batch: int = 3000) -> None:
    producer = Producer(uid=1000, id=9, seed=producer_seed(9))
    remaining = iter(events)
    while part := list(islice(remaining, events_per_batch)):
        put(store, producer, part)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    made = list(islice(made_up(), EVENTS - 1))
    return [*made, Event("rare", 10**6 * SECOND_NS, "4", b"\x80")]


@pytest.fixture(scope="module")
def connection(events: list[Event]) -> Iterator[Connection]:
    directory = short_directory()
    store = Store(directory / "a.db", os.urandom(32), 1, 10)
    fill(store, events)
    yield store.connection
    assert verify(store.connection).findings == []
    store.close()


def several(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def ids(events: list[Event], **asked: Any) -> list[int]:
    """What `event_page` must find, the slow way; oldest first."""
    since, until = asked.get("since_ns", 0), asked.get("until_ns", 2**63)
    return [
        number
        for number, event in enumerate(events, start=1)
        if since <= event.ts_ns < until
        and event.type in (several(asked.get("event_type")) or [event.type])
        and (not asked.get("user") or event.user in several(asked["user"]))
        and asked.get("after_id", 0) < number < asked.get("before_id", 2**63)
    ]


@contextmanager
def steps(connection: Connection) -> Iterator[Callable[[], int]]:
    """Counts steps of SQLite's virtual machine, which do not depend on the computer's speed."""
    fifties = count()
    connection.set_progress_handler(lambda: next(fifties) < 0, 50)
    try:
        yield lambda: 50 * next(fifties)
    finally:
        connection.set_progress_handler(None, 0)


@pytest.mark.parametrize(
    ("seed", "combinations"), [(7, 40), pytest.param(8, 400, marks=pytest.mark.long(minutes=0.3))]
)
def test_every_combination_of_filters_finds_what_reading_all_events_finds(
    connection: Connection, events: list[Event], seed: int, combinations: int
) -> None:
    rng = random.Random(seed)
    for _ in range(combinations):
        since = (10**6 + rng.randrange(-1000, EVENTS)) * SECOND_NS
        asked: dict[str, Any] = {
            "event_type": rng.sample(
                ("page_view", "login", "logout", "rare", "never_seen"), rng.randrange(4)
            ),
            "user": rng.sample(("1", "2", "4", "nobody"), rng.randrange(4)),
            "since_ns": since,
            "until_ns": since + rng.choice((60, 3600, 10**6)) * SECOND_NS,
            "before_id": rng.randrange(EVENTS + 2),
        }
        asked = {name: asked[name] for name in asked if rng.randrange(2)}
        page = event_page(connection, limit=20, **asked)
        assert [row["id"] for row in page.rows] == ids(events, **asked)[::-1][:20], asked
        after = {"after_id": rng.randrange(EVENTS), **asked}
        page = event_page(connection, limit=20, **after)
        assert [row["id"] for row in page.rows] == ids(events, **after)[:20], after


def test_the_events_at_the_edges_of_blocks_are_found_by_their_own_moment(
    connection: Connection, events: list[Event]
) -> None:
    edges = (BLOCK_EVENTS - 1, BLOCK_EVENTS, 2 * BLOCK_EVENTS - 1, 2 * BLOCK_EVENTS, EVENTS)
    for number in (1, *edges):
        since = events[number - 1].ts_ns
        page = event_page(connection, since_ns=since, until_ns=since + 1, limit=200)
        assert number in [row["id"] for row in page.rows]


def test_a_range_begins_with_its_first_moment_and_ends_before_its_last(directory: Path) -> None:
    store = Store(directory / "a.db", os.urandom(32), 1, 10)
    fill(store, [Event("login", ts_ns, "1", b"\x80") for ts_ns in (200, 100, 300)])

    def found(**asked: Any) -> list[int]:
        return [row["ts_ns"] for row in event_page(store.connection, limit=9, **asked).rows]

    assert (found(until_ns=100), found(until_ns=101)) == ([], [100])
    assert (found(since_ns=301), found(since_ns=300)) == ([], [300])
    store.close()


@pytest.mark.parametrize(
    "asked",
    [{"user": "1"}, {"since_ns": 10**15 // 2, "until_ns": 10**15}, {"user": "2", "since_ns": 1}],
)
@pytest.mark.parametrize("limit", [7, 200])
def test_pages_in_both_directions_put_together_are_all_of_it_once(
    connection: Connection, events: list[Event], asked: dict[str, Any], limit: int
) -> None:
    expected = ids(events, **asked)[: 30 * limit]
    pages: list[int] = []
    place: dict[str, Any] = {"after_id": 0}
    while len(pages) < len(expected):
        page = event_page(connection, limit=limit, **asked, **place)
        pages += [row["id"] for row in page.rows]
        if page.next is None:
            break
        place = {"after_id": page.next}
    assert pages == expected
    newest = expected[-1] + 1
    back: list[int] = []
    while len(back) < len(expected):
        page = event_page(connection, limit=limit, **asked, before_id=newest)
        back += [row["id"] for row in page.rows]
        if page.next is None:
            break
        newest = page.next
    assert back == expected[::-1]


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({"until_ns": 1}, 0.01),
        ({"since_ns": 10**16}, 0.01),
        ({"since_ns": 10**16, "event_type": "page_view"}, 0.01),
        ({"user": "nobody"}, 0.01),
        ({"user": "1", "event_type": "rare"}, 0.01),
        ({"user": "4", "event_type": "page_view", "since_ns": 1}, 0.01),
        ({"user": ["nobody", "4"], "until_ns": 1}, 0.01),
        ({"event_type": ["rare", "never_seen"]}, 0.01),
        ({"user": "1", "event_type": "login"}, 0.5),
    ],
)
def test_a_query_that_no_event_matches_does_not_scan_all_events(
    connection: Connection, asked: dict[str, Any], most: float
) -> None:
    """It takes far less than one step of SQLite's virtual machine for each event."""
    with steps(connection) as count_of:
        event_page(connection, limit=50, **asked)
    assert count_of() <= most * EVENTS


def test_a_query_by_type_alone_reads_no_event_of_another(connection: Connection) -> None:
    sql = f"SELECT e.id FROM event e WHERE {time_blocks.IN_ANY_BLOCK} AND e.type = "
    sql += "(SELECT id FROM event_type WHERE name = 'rare')"
    with steps(connection) as count_of:
        assert connection.execute(sql).fetchall() == [(EVENTS,)]
    assert count_of() < 1000


def test_event_types_are_counted_over_all_batches(
    connection: Connection, events: list[Event]
) -> None:
    rows = REPORTS["event_types"].run(connection, Parameters({})).rows
    assert {row["type"]: row["events"] for row in rows} == {
        kind: len(ids(events, event_type=kind)) for kind in {event.type for event in events}
    }
    assert rows == sorted(rows, key=lambda row: (-row["events"], row["type"]))


def test_a_batch_over_the_edge_of_a_block_is_parted_there(directory: Path) -> None:
    store = Store(directory / "a.db", os.urandom(32), 1, 10)
    fill(store, [Event("login", ts_ns, "1", b"\x80") for ts_ns in range(BLOCK_EVENTS + 9)], 10**6)
    blocks_there = store.connection.execute("SELECT * FROM event_block").fetchall()
    edge = BLOCK_EVENTS - 1  # ids begin at 1
    assert blocks_there == [(0, 0, edge - 1), (1, edge, BLOCK_EVENTS + 8)]
    store.close()


def test_a_commit_of_one_event_reads_no_other(directory: Path, events: list[Event]) -> None:
    store = Store(directory / "a.db", os.urandom(32), 1, 10)
    fill(store, events[:5000])
    producer = Producer(uid=1000, id=10, seed=producer_seed(10))
    put(store, producer, events[:1])
    with steps(store.connection) as count_of:
        put(store, producer, events[:1])
    assert count_of() < 5000
    store.close()


def test_a_commit_without_events_changes_no_block(directory: Path) -> None:
    store = Store(directory / "a.db", os.urandom(32), 1, 10)
    producer = Producer(uid=1000, id=9, seed=producer_seed(9))
    batch = Batch(10, 1000)
    batch.add_loss(producer, 1, 4, "not received")
    store.commit(batch, 5)
    query = store.connection.execute
    assert query("SELECT count(*) FROM event_block").fetchone() == (0,)
    store.close()


# -- a trail from before there were blocks


def contents(connection: Connection) -> list[list[Any]]:
    return [
        connection.execute(sql).fetchall()
        for sql in (
            "SELECT * FROM event_block",
            "SELECT name, events FROM event_type",
            "SELECT type, name, tbl_name FROM sqlite_schema ORDER BY 1, 2, 3",
        )
    ]


@pytest.mark.parametrize("size", [0, 1, EVENTS])
def test_an_older_trail_is_brought_to_what_a_new_one_would_hold(
    directory: Path, events: list[Event], size: int
) -> None:
    key = os.urandom(32)
    older(directory / "old.db", key, 1, events[:size])
    new = Store(directory / "new.db", key, 1, 10)
    fill(new, events[:size])
    old = Store(directory / "old.db", key, 2, 10)
    assert old.schema == len(migrations.MIGRATIONS)
    assert contents(old.connection) == contents(new.connection)
    put(old, Producer(uid=1000, id=10, seed=producer_seed(10)), events[:10])
    assert verify(old.connection).findings == []
    new.close()
    old.close()


def test_migrating_an_older_database_logs_its_progress(
    directory: Path,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = os.urandom(32)
    older(directory / "a.db", key, 1, events[:5000])
    assert caplog.messages == []
    caplog.set_level("INFO", "logd")
    monkeypatch.setattr(migration_progress, "PROGRESS_INTERVAL_S", 0)
    monkeypatch.setattr(migration_progress, "PROGRESS_STEPS", 1000)
    Store(directory / "a.db", key, 2, 10).close()
    newest = len(migrations.MIGRATIONS)
    assert caplog.messages[0] == f"bringing the database from schema 1 to {newest}"
    assert any(said.startswith("schema 2: 2 of ") for said in caplog.messages)
    caplog.clear()
    Store(directory / "a.db", key, 3, 10).close()
    assert caplog.messages == []


def test_before_the_daemon_has_opened_it_an_older_trail_is_verified_and_its_events_wait(
    instance: Instance, events: list[Event]
) -> None:
    instance.start()
    instance.stop()
    config = instance.config
    config.database.unlink()
    older(config.database, keyfile.read(config.key_file), 1, events[:20])
    assert "whole: 20 events" in instance.cli("verify")
    assert "stored" in instance.cli("status")
    for command in ("query", "tail"):
        assert "`logd run` brings it up to date" in instance.cli(command, code=75)
    instance.start()
    instance.stop()
    assert len(instance.cli("query", "--format", "jsonl").splitlines()) == 20
    with instance.database() as connection:
        assert verify(connection).findings == []
