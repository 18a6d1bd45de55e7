"""Forgotten persons: late events are not stored, and the list reveals no names."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.errors import DatabaseDamaged
from logd.storage import erasure_list
from logd.storage.erasure_list import ErasureList
from logd.storage.mentions import DEFAULT_KEYS, is_person
from logd.storage.store import Store
from logd_wire.wire import Event, producer_seed, unpack_props
from tests.logd.full_disk import full_disk
from tests.logd.older import older

TOKEN, OTHER = b"t" * 32, b"o" * 32


def batch_of(producer: Producer, *events: tuple[str, int, dict[str, Any]]) -> Batch:
    """Events (user, time, properties) as task completions."""
    batch = Batch(1000, 10**6)
    for user, ts_ns, props in events:
        producer.taken += 1
        event = Event("task_completed", ts_ns, user, msgpack.packb(props))
        batch.add(producer, producer.taken, event, 10)
    return batch


@pytest.fixture
def producer() -> Producer:
    return Producer(uid=1, id=2, seed=producer_seed(2))


@pytest.fixture
def store(directory: Path) -> Iterator[Store]:
    made = Store(directory / "a.db", os.urandom(32), 1, 10)
    yield made
    assert verify(made.connection).findings == []
    made.close()


def forget(store: Store, user: str, until_ns: int) -> None:
    entries = {store.erasure_list.token(user): until_ns}
    store.transact(lambda connection, _batch: erasure_list.save(connection, entries), 1)
    store.erasure_list.add(entries)


def counters(store: Store) -> dict[str, int]:
    return dict(store.connection.execute("SELECT name, value FROM counter").fetchall())


def rows(store: Store) -> list[tuple[Any, ...]]:
    """(id, type, user, properties) of every event."""
    return [
        (event_id, kind, user, unpack_props(props))
        for event_id, kind, user, props in store.connection.execute(
            "SELECT e.id, t.name, e.user, e.props FROM event e JOIN event_type t ON t.id = e.type"
            " ORDER BY e.id"
        )
    ]


# -- the list


def test_a_token_does_not_reveal_its_person_without_the_pepper() -> None:
    assert ErasureList(b"a" * 32, {}).token("7") != ErasureList(b"b" * 32, {}).token("7")


def test_a_person_is_forgotten_up_to_a_time_and_may_come_back_after_it(
    producer: Producer,
) -> None:
    there = ErasureList(b"a" * 32, {})
    assert not there.covers("7", 1, producer, 1, 0)
    there.add({there.token("7"): 100})
    there.add({there.token("7"): 90})  # asked before, and carried out later
    assert [there.covers("7", 1, producer, 1, at) for at in (0, 100, 101)] == [True, True, False]
    assert not there.covers("8", 1, producer, 1, 50)


def test_a_person_listed_by_an_earlier_version_in_another_spelling_stays_forgotten(
    producer: Producer,
) -> None:
    """Its token was of the id as it was typed."""
    user = "jose\u0301"
    listed = ErasureList(b"a" * 32, {hmac.digest(b"a" * 32, user.encode(), "sha256"): 100})
    assert listed.covers(user, 1, producer, 1, 50)
    assert not listed.covers("jose", 1, producer, 1, 50)


def test_a_person_of_one_sender_is_not_the_person_of_another(producer: Producer) -> None:
    listed = ErasureList(b"a" * 32, {})
    listed.add({listed.token("7", uid=33): 100})
    assert listed.covers("7.0", 33, producer, 1, 50) and listed.covers(7, 33, producer, 1, 50)
    assert not any(listed.covers("7", uid, producer, 1, 50) for uid in (0, 3, 34, 333))
    for uid in range(3000):  # any number of senders
        assert not listed.covers("8", uid, producer, 1, 50)
    assert len({listed.token("7"), listed.token("7", 0), listed.token("7", 33)}) == 3


def test_a_list_in_a_file_keeps_the_later_time_of_each_and_is_its_owners_alone(
    directory: Path,
) -> None:
    path = erasure_list.file_beside(directory / "activity.db")
    assert erasure_list.read_file(path) == {}
    erasure_list.merge_file(path, {TOKEN: 5, OTHER: 7})
    erasure_list.merge_file(path, {TOKEN: 9, OTHER: 6})
    assert erasure_list.read_file(path) == {TOKEN: 9, OTHER: 7}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in directory.iterdir()] == ["forgotten"]


@pytest.mark.parametrize(
    "line",
    ["12", "zz 5", f"{TOKEN.hex()} soon", f"{TOKEN.hex()[2:]} 5"]
    + [f"{TOKEN.hex()} {at}" for at in (-1, 2**63, "9" * 5000)],
)
def test_an_invalid_line_of_the_list_is_refused_with_its_number(directory: Path, line: str) -> None:
    path = directory / "forgotten"
    path.write_text(f"{OTHER.hex()} 7\n{line}\n")
    with pytest.raises(DatabaseDamaged, match=r"forgotten, line 2: not an entry"):
        erasure_list.read_file(path)
    before = path.read_text()
    with pytest.raises(DatabaseDamaged):
        erasure_list.merge_file(path, {TOKEN: 1})
    assert path.read_text() == before


# -- mentions


@pytest.mark.parametrize(
    ("props", "expected"),
    [
        ({"user": "7"}, {"user": "(erased)"}),
        ({"login": 7}, {"login": "(erased)"}),
        (
            {"params": {"users": ["6", "7", 7]}},
            {"params": {"users": ["6", "(erased)", "(erased)"]}},
        ),
        ({"a": [{"user_id": "7", "n": 7}]}, {"a": [{"user_id": "(erased)", "n": 7}]}),
        ({"user": {"id": "7"}}, {"user": {"id": "(erased)"}}),
        ({"task": "7", "user": "77", "users": [True, None, 8.0]}, None),
        ({"user": "6"}, None),
        ({}, None),
    ],
)
def test_a_person_is_found_under_the_keys_that_name_persons_at_any_depth(
    props: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    less = DEFAULT_KEYS.redact(msgpack.packb(props), is_person("7"))
    assert (less and unpack_props(less)) == expected


# -- what comes late


def test_a_forgotten_persons_late_events_are_counted_covered_and_not_stored(
    store: Store, producer: Producer
) -> None:
    forget(store, "7", until_ns=100)
    props = {"task": "t", "secret": "s"}
    store.commit(
        batch_of(producer, ("7", 100, props), ("8", 50, props), ("7", 3, props), ("7", 101, props)),
        2,
    )
    stored = rows(store)
    assert [(event_id, user) for event_id, _, user, _ in stored] == [(2, "8"), (4, "7"), (5, None)]
    assert stored[-1][1] == "person_erased"
    assert stored[-1][3]["events"] == 2
    assert "7" not in str({**stored[-1][3], "hash": ""})  # does not name the person
    assert counters(store) == {"stored": 5, "own": 1, "erased": 2, "commits": 1}
    assert store.producer(producer.uid, producer.id).stored == 4
    store.commit(batch_of(producer, ("8", 200, props)), 3)
    verdict = verify(store.connection)
    assert (verdict.findings, verdict.events, verdict.removed) == ([], 4, 2)


def test_a_late_mention_of_a_forgotten_person_is_stored_without_it(
    store: Store, producer: Producer
) -> None:
    forget(store, "7", until_ns=100)
    store.commit(
        batch_of(producer, ("8", 100, {"user": "7", "n": 1}), ("8", 101, {"user": "7"})), 2
    )
    assert [row[3] for row in rows(store)] == [{"user": "(erased)", "n": 1}, {"user": "7"}]
    assert counters(store) == {"stored": 2, "commits": 1}


def test_a_commit_of_late_events_that_failed_can_be_repeated(
    store: Store, producer: Producer
) -> None:
    forget(store, "7", until_ns=100)
    batch = batch_of(producer, ("7", 1, {}), ("8", 1, {}))
    with full_disk(store), pytest.raises(Exception, match="no space"):
        store.commit(batch, 2)
    store.commit(batch, 3)
    assert counters(store) == {"stored": 3, "own": 1, "erased": 1, "commits": 1}
    assert [row[0] for row in rows(store)] == [2, 3]


# -- internal events


def test_an_internal_event_is_a_leaf_of_the_chain_like_every_other(
    store: Store, producer: Producer
) -> None:
    store.record("trail_backed_up", {"place": "/var/backups/a"}, 5)
    store.commit(batch_of(producer, ("8", 1, {})), 6)
    store.record("trail_restored", {}, 7)
    assert [row[1] for row in rows(store)] == [
        "trail_backed_up",
        "task_completed",
        "trail_restored",
    ]
    assert counters(store) == {"stored": 3, "own": 2, "commits": 3}
    own = store.connection.execute("SELECT watermark, ended, has_outbox FROM producer WHERE id = 1")
    assert own.fetchone() == (2, 1, 0)
    store.connection.execute("UPDATE event SET props = x'80' WHERE id = 1")
    (finding,) = verify(store.connection).findings
    assert finding.startswith("batch 1 ") and "an event was changed" in finding
    store.connection.execute(
        "UPDATE event SET props = ? WHERE id = 1", (msgpack.packb({"place": "/var/backups/a"}),)
    )


def test_the_pepper_of_a_trail_from_before_is_the_same_at_every_migration(directory: Path) -> None:
    """A backup of schema 2, restored and migrated again, must match the list beside it."""
    key = os.urandom(32)
    older(directory / "a.db", key, 2, [Event("login", 1, "8", b"\x80")])
    (directory / "b.db").write_bytes((directory / "a.db").read_bytes())
    tokens = set()
    for name in ("a.db", "b.db"):
        store = Store(directory / name, key, 1, 10)
        tokens.add(store.erasure_list.token("7"))
        store.close()
    fresh = Store(directory / "c.db", key, 1, 10)
    assert len(tokens) == 1
    assert fresh.erasure_list.token("7") not in tokens
    fresh.close()
