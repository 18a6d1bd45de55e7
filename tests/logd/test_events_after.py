"""Following the trail by the report `events_after`: each event once, in the order of storing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.reports.events_after import NAME, named_if_any
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.storage.mentions import DEFAULT_KEYS
from logd_client import Client
from logd_wire.query import Answer, QueryClient, QueryError, Row
from logd_wire.schema import REPORT_READ
from logd_wire.wire import Event
from tests.logd.test_reports import Trail, view
from tests.support.instance import Instance, check_sums, until


@pytest.fixture
def trail(directory: Path) -> Iterator[Trail]:
    made = Trail(directory / "a.db")
    yield made
    made.store.close()


def put_reading(trail: Trail, report: str) -> None:
    """Stores a reading, as the daemon does for the report process."""
    props = msgpack.packb({"report": report, "params": {}})
    event = Event(REPORT_READ, 5, "9", props)
    trail.store.transact(lambda _, batch: trail.store.append_internal(batch, event), 5)


def follow(trail: Trail, after: Row | None, **params: Any) -> list[Row]:
    """Asks until an answer is the last one, as a client does."""
    found: list[Row] = []
    while True:
        place = {} if after is None else {"after_id": after["id"], "after_ns": after["ts_ns"]}
        answer = trail.ask(NAME, **place, **params)
        found += answer.rows
        if answer.next is None:
            return found
        assert answer.next == answer.rows[-1]["id"]
        after = answer.rows[-1]


def ids(rows: list[Row]) -> list[int]:
    return [row["id"] for row in rows]


def test_the_newest_events_come_oldest_first_and_the_next_continue_after_them(trail: Trail) -> None:
    trail.put(*(view("1", day) for day in (9, 3, 7, 1)))
    first = trail.ask(NAME, limit=3)
    assert ids(first.rows) == [2, 3, 4] and first.next is None, "by storing, whatever their time"
    trail.put(*(view("2", 2) for _ in range(7)), ("login", "2", 1, {}))
    assert ids(follow(trail, first.rows[-1], limit=3)) == list(range(5, 13))
    assert ids(follow(trail, first.rows[-1], limit=3, type="login")) == [12]


def test_an_empty_trail_and_an_empty_answer_are_no_reading(trail: Trail) -> None:
    for params in ({}, {"after_id": 0}, {"type": "login"}):
        answer = trail.ask(NAME, **params)
        assert answer == Answer()
        concern = REPORTS[NAME].concern
        assert concern is named_if_any
        assert concern(trail.store.connection, params, answer, DEFAULT_KEYS.persons) is None
    trail.put(view("1", 1))
    answer = trail.ask(NAME)
    found = named_if_any(trail.store.connection, {}, answer, DEFAULT_KEYS.persons)
    assert found is not None and found.persons == {"1"}


def test_its_own_readings_wait_for_another_event_and_none_is_left_out(trail: Trail) -> None:
    trail.put(view("1", 1))
    (seen,) = trail.ask(NAME).rows
    for _ in range(3):
        put_reading(trail, NAME)
        assert trail.ask(NAME, after_id=seen["id"]) == Answer(), "else each makes the next"
    put_reading(trail, "timeline")
    assert ids(trail.ask(NAME, after_id=seen["id"]).rows) == [2, 3, 4, 5]


def test_a_page_full_of_its_own_readings_is_returned(trail: Trail) -> None:
    """So that any number of them cannot hide what follows."""
    trail.put(view("1", 1))
    for _ in range(5):
        put_reading(trail, NAME)
    trail.put(view("1", 1))
    found = follow(trail, trail.ask(NAME, limit=50).rows[0], limit=2)
    assert ids(found) == [2, 3, 4, 5, 6, 7]


def test_removed_events_do_not_stop_whoever_follows(trail: Trail) -> None:
    trail.put(*(view("1", 1) for _ in range(6)))
    seen = trail.ask(NAME).rows[3]
    trail.store.connection.execute("DELETE FROM event WHERE id IN (2, 4, 5)")
    assert ids(follow(trail, seen)) == [6]


@pytest.mark.parametrize("after_id", [1, 3, 4])
def test_a_replaced_trail_is_noticed_and_not_continued(trail: Trail, after_id: int) -> None:
    trail.put(*(view("1", day) for day in (1, 2, 3)))
    with pytest.raises(QueryError, match="restored from a backup") as refused:
        trail.ask(NAME, after_id=after_id, after_ns=17)
    assert refused.value.code == "replaced"


def test_a_page_is_short_where_the_properties_are_long(trail: Trail) -> None:
    long = {"text": "x" * 30_000}
    trail.put(*(("essay_read", "1", 1, long) for _ in range(40)))
    answer = trail.ask(NAME, after_id=0, limit=40)
    assert len(answer.rows) == 17 and answer.next == 17
    assert ids(trail.ask(NAME, limit=40).rows) == list(range(24, 41)), "the newest ones"
    assert ids(follow(trail, answer.rows[0], limit=40)) == list(range(2, 41))


def test_over_the_socket_each_event_comes_once_and_readings_make_no_endless_loop(
    instance: Instance,
) -> None:
    """Two follow, also over a kill of the daemon; each answer with rows is one reading."""
    instance.start()
    client = QueryClient(str(instance.config.query_socket), 10.0)
    seen: dict[str, list[Row]] = {"8": [], "9": []}

    def step(user: str) -> int:
        last = seen[user][-1:] or [{"id": 0, "ts_ns": None}]
        params = {"after_id": last[0]["id"], "after_ns": last[0]["ts_ns"]}
        rows = client.ask(NAME, asked_by=user, **params).rows
        seen[user] += rows
        return len(rows)

    with contextlib.closing(Client(instance.socket)) as emitting:
        for at in range(3):
            for number in range(10):
                assert emitting.emit("page_view", user=str(number), props={"at": at})
            assert emitting.flush(20)
            if at == 1:
                instance.kill()
                instance.start()
            until(lambda: step("8") + step("9"), "rows")
            step("8"), step("9")
            assert step("8") + step("9") == 0, "the readings by themselves make no other"
    events = [row for row in instance.events() if row["type"] == "page_view"]
    for rows in seen.values():
        views = [row["id"] for row in rows if row["type"] == "page_view"]
        assert views == [row["id"] for row in events] and len(views) == 30
        assert ids(rows) == list(range(1, rows[-1]["id"] + 1)), "readings too, each once"
    readings = [row for row in instance.events() if row["type"] == REPORT_READ]
    assert {row["user"] for row in readings} == {"8", "9"}
    assert len(readings) <= 2 * 3 + 2
    check_sums(instance.settle(), attempted=30, accepted=30)


def test_a_parameter_of_another_kind_is_refused(trail: Trail) -> None:
    with pytest.raises(QueryError, match="unknown parameter: user"):
        REPORTS[NAME].run(trail.store.connection, Parameters({"user": "1"}))
