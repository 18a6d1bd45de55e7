"""The trail shows what was done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logd.storage.database import Connection
from tests.logd.trails import original_instance
from tests.support.instance import Instance, check_sums, emitters, until

TAMPERINGS = [
    ("UPDATE event SET user = 'mallory' WHERE id = 150", "an event was changed"),
    ("UPDATE event SET ts_ns = ts_ns + 1 WHERE id = 150", "an event was changed"),
    ("UPDATE event SET type = 2 WHERE id = 150", "type is missing"),
    ("UPDATE event SET sequence = 1000 WHERE id = 150", "an event was changed"),
    ("UPDATE event SET salt = zeroblob(16) WHERE id = 150", "an event was changed"),
    ("UPDATE event SET props = x'c1' WHERE id = 150", "was changed"),
    ("UPDATE event SET props = CAST(x'ff' AS TEXT) WHERE id = 150", "was changed"),
    ("UPDATE event SET props = 5 WHERE id = 150", "was changed"),
    ("DELETE FROM event WHERE id = 150", "some were removed or added"),
    ("DELETE FROM event WHERE id >= 200", "some were removed or added"),
    ("UPDATE producer SET key = 'ffffffffffffffff' WHERE id = 1", "an event was changed"),
    ("UPDATE batch SET stored_ns = stored_ns + 1 WHERE id = 2", "its hash is not that of"),
    ("UPDATE batch SET leaves_hash = zeroblob(32) WHERE id = 2", "was changed"),
    ("DELETE FROM batch WHERE id = 2", "removed"),
    ("INSERT INTO loss SELECT 1, 2, 1, 5, 6, 'made up', 1", "its hash is not that of"),
    ("UPDATE counter SET value = value + 1 WHERE name = 'stored'", "counter stored"),
    ("UPDATE rollup_day SET events = events + 1", "rollup_day"),
    ("DELETE FROM rollup_day", "rollup_day"),
    ("UPDATE event_block SET first_ts_ns = first_ts_ns + 1", "event_block 0"),
    ("UPDATE event_block SET last_ts_ns = last_ts_ns + 1", "event_block 0"),
    ("DELETE FROM event_block", "event_block 0"),
    ("INSERT INTO event_block VALUES (7, 1, 2)", "event_block 7"),
    ("UPDATE event_type SET events = events + 1", "event_type"),
    (
        "INSERT INTO event SELECT id + 1000, producer, 1, ts_ns, type, user, props, salt"
        " FROM event WHERE id = 1",
        "stored twice",
    ),
    ("UPDATE producer SET watermark = 5 WHERE id = 1", "past its watermark"),
    (
        "INSERT INTO event SELECT id + 1000, producer, 5000, ts_ns, type, user, props, salt"
        " FROM event WHERE id = 1",
        "1 events belong to no batch",
    ),
    (
        "INSERT INTO event SELECT -5, producer, 5000, ts_ns, type, user, props, salt"
        " FROM event WHERE id = 1",
        "1 events belong to no batch",
    ),
    (
        "UPDATE event SET sequence = (SELECT sequence FROM event WHERE id = 150) - 2"
        " WHERE id = 150",
        "1 events are out of their producer's order",
    ),
    (
        "INSERT INTO batch SELECT -1, stored_ns, first_event, events, leaves_hash, hash"
        " FROM batch WHERE id = 1",
        "1 batches have numbers below 1",
    ),
]


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """The files of an instance with some hundred events in several batches, not running."""
    with original_instance() as instance:
        instance.start()
        for round_ in range(1, 4):
            with emitters(instance, count=1, events=100) as (emitter,):
                emitter.finish()
            until(lambda n=round_: instance.status()["stored"] == 100 * n, "stored")  # type: ignore[misc] # a lambda's default
        check_sums(instance.settle(), attempted=300, accepted=300)
        instance.stop()
        yield instance.directory


def tamper(instance: Instance, change: Callable[[Connection], object]) -> str:
    """Changes the database with its key, as a curious admin may; returns the output of verify."""
    with instance.database() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        change(connection)
    return instance.cli("verify", code=1)


def batch_of(instance: Instance, event: int) -> str:
    with instance.database() as connection:
        query = "SELECT max(id) FROM batch WHERE first_event <= ?"
        (number,) = connection.execute(query, (event,)).fetchone()
    return f"batch {number} "


def test_a_whole_trail_verifies(stored: Instance) -> None:
    assert "whole: 300 events" in stored.cli("verify")


def test_one_byte_of_one_event_changed_names_its_batch(stored: Instance) -> None:
    batch = batch_of(stored, 150)
    said = tamper(
        stored,
        lambda c: c.execute(
            "UPDATE event SET props = CAST(substr(props, 1, length(props) - 1) || x'01' AS BLOB)"
            " WHERE id = 150"
        ),
    )
    assert batch in said and "an event was changed" in said
    assert said.count("batch ") == 1


@pytest.mark.parametrize(("sql", "expected"), TAMPERINGS)
def test_what_was_tampered_with_is_reported(stored: Instance, sql: str, expected: str) -> None:
    assert expected in tamper(stored, lambda c: c.execute(sql))


def test_the_last_batch_cut_off_is_found_by_the_sums(stored: Instance) -> None:
    """Chain and events agree after a cut; the counters in the same file still show it.

    With the key those can be changed too: only a head kept elsewhere shows that.
    """

    def cut(connection: Connection) -> None:
        (first,) = connection.execute(
            "SELECT first_event FROM batch ORDER BY id DESC LIMIT 1"
        ).fetchone()
        connection.execute("DELETE FROM event WHERE id >= ?", (first,))
        connection.execute("DELETE FROM batch WHERE first_event = ?", (first,))

    assert "counter stored" in tamper(stored, cut)
