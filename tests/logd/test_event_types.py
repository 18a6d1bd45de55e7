"""Event types: how many a user may introduce, and how one too many is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from logd.audit.verify import verify
from logd.batch import PERSON_ERASED, Batch, Producer
from logd.errors import StorageBusy
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.storage.event_types import NEVER_REFUSED, EventTypes, TypeLimits
from logd.storage.store import Store
from logd_client import Client
from logd_client.durable import SETTLED_TYPE, UNKNOWN_TYPE
from logd_wire.requests import OTHER_REQUESTS
from logd_wire.wire import Event, producer_seed
from tests.logd.full_disk import full_disk
from tests.logd.older import older
from tests.support.instance import Instance, check_sums

KEY = os.urandom(32)
LIMITS = TypeLimits(all_users=8, per_user=3)


def open_store(directory: Path, limits: TypeLimits = LIMITS) -> Store:
    return Store(directory / "a.db", KEY, 1, 100, type_limits=limits)


def producer_of(uid: int, store: Store | None = None) -> Producer:
    if store is not None:
        return store.producer(uid, uid)
    return Producer(uid=uid, id=uid, seed=producer_seed(uid))


def batch_of(producer: Producer, types: Iterable[str], batch: Batch | None = None) -> Batch:
    batch = batch or Batch(100_000, 10**9)
    for name in types:
        producer.taken += 1
        batch.add(producer, producer.taken, Event(name, 5, "7", b"\x80"), 10)
    return batch


def put(store: Store, producer: Producer, types: Iterable[str]) -> None:
    batch = batch_of(producer, types)
    store.commit(batch, 2)
    batch.mark_committed()


def stored(store: Store) -> list[str]:
    rows = store.connection.execute(
        "SELECT t.name FROM event e JOIN event_type t ON t.id = e.type ORDER BY e.id"
    )
    return [name for (name,) in rows]


def refused(store: Store) -> list[tuple[int, int, str]]:
    rows = store.connection.execute("SELECT uid, sequence, excerpt FROM quarantine ORDER BY id")
    return [(uid, sequence, excerpt.decode()) for uid, sequence, excerpt in rows]


def counts(store: Store) -> dict[str, int]:
    return dict(store.connection.execute("SELECT name, value FROM counter").fetchall())


def test_one_type_too_many_goes_to_quarantine_and_uses_up_its_sequence(directory: Path) -> None:
    store, hostile, good = open_store(directory), producer_of(1000), producer_of(1001)
    batch = batch_of(hostile, ["a", "b", "c", "d", "a", "e"])
    batch_of(good, ["f", "d", "a"], batch)
    batch_of(hostile, ["d"], batch)  # known by now
    store.commit(batch, 2)
    batch.mark_committed()
    assert stored(store) == ["a", "b", "c", "a", "f", "d", "a", "d"]
    assert refused(store) == [(1000, 4, "d"), (1000, 6, "e")]
    (reason,) = store.connection.execute("SELECT DISTINCT reason FROM quarantine").fetchone()
    assert reason == "too many event types: user 1000 has introduced 3 (event_types_per_user_max)"
    assert store.producer(1000, 1000).stored == 7
    sums = counts(store)
    assert sums["stored"] + sums["quarantined_events"] == 10
    assert verify(store.connection).findings == []
    store.close()


def test_the_limit_of_a_user_holds_over_batches_and_restarts(directory: Path) -> None:
    store, hostile = open_store(directory), producer_of(1000)
    put(store, hostile, ["a", "b"])
    put(store, hostile, ["c"])
    put(store, hostile, ["d"])
    assert stored(store) == ["a", "b", "c"]
    store.close()
    store = open_store(directory)
    put(store, producer_of(1000, store), ["e", "a"])
    put(store, producer_of(1001, store), ["e"])
    assert stored(store) == ["a", "b", "c", "a", "e"]
    assert [sequence for _, sequence, _ in refused(store)] == [4, 5]
    store.close()


def test_all_users_together_have_a_limit_and_the_products_own_types_none(directory: Path) -> None:
    store = open_store(directory)
    for uid in range(5):
        put(store, producer_of(uid), [f"t{uid}_{n}" for n in range(3)])
    assert len(set(stored(store))) == 8
    (reason,) = store.connection.execute(
        "SELECT reason FROM quarantine ORDER BY id DESC LIMIT 1"
    ).fetchone()
    assert reason == "too many event types: all users have introduced 8 (event_types_max)"
    put(store, producer_of(9), sorted(NEVER_REFUSED))
    assert set(stored(store)) >= NEVER_REFUSED
    store.record("trail_backed_up", {}, 3)
    assert len(refused(store)) == 15 - 8
    store.close()
    store = open_store(directory)  # what is never refused is not counted either
    put(store, producer_of(10), ["page_view", "t0_0"])
    assert stored(store)[-2:] == ["page_view", "t0_0"]
    assert verify(store.connection).findings == []
    store.close()


def test_a_known_type_of_an_internal_event_is_not_made_twice(directory: Path) -> None:
    """Late events of a forgotten person add that type to a batch with another new one."""
    store, producer = open_store(directory), producer_of(1000)
    store.erasure_list.add({store.erasure_list.token("7"): 10})
    put(store, producer, ["a", "b"])
    put(store, producer, ["a", "c"])
    rows = store.connection.execute("SELECT id, name FROM event_type ORDER BY id").fetchall()
    assert rows == [(1, "a"), (2, "b"), (3, PERSON_ERASED), (4, "c")]
    assert stored(store) == [PERSON_ERASED] * 2
    assert verify(store.connection).findings == []
    store.close()


def test_what_client_and_daemon_log_by_themselves_is_never_refused() -> None:
    assert {UNKNOWN_TYPE, SETTLED_TYPE, "report_read"} <= NEVER_REFUSED
    assert {"page_view", "login_throttled"} | OTHER_REQUESTS <= NEVER_REFUSED


def test_a_commit_that_failed_has_introduced_nothing(directory: Path) -> None:
    store, hostile = open_store(directory), producer_of(1000)
    batch = batch_of(hostile, ["a", "b", "c", "d"])
    with full_disk(store):
        for _ in range(2):
            with pytest.raises(StorageBusy):
                store.commit(batch, 2)
    store.commit(batch, 2)
    assert stored(store) == ["a", "b", "c"]
    assert refused(store) == [(1000, 4, "d")]
    assert counts(store)["quarantined_events"] == 1
    store.close()


def test_known_types_are_not_copied_for_a_commit(directory: Path) -> None:
    store, producer = open_store(directory), producer_of(1000)
    put(store, producer, ["a", "b"])
    types = EventTypes(store.connection, LIMITS)
    first, second = (types.admit(batch_of(producer, ["a", "b"]))[1] for _ in range(2))
    assert first.ids is second.ids
    store.close()


def test_a_database_from_before_there_was_a_limit_takes_bounded_memory(directory: Path) -> None:
    """All its types stay valid, their users are counted, and other users may introduce some."""
    invented = [f"t{n}" for n in range(50)]
    events = [Event(name, 5, None, b"\x80") for name in [*invented, "t40", "t41"]]
    older(directory / "a.db", KEY, 4, events)
    store = open_store(directory)
    known = store._types._known  # what it remembers between commits: no public face shows that
    assert len(known) == LIMITS.all_users
    assert {"t40", "t41"} <= known.keys()  # those with the most events first
    put(store, producer_of(1001), [*invented, "of_another"])
    hostile = producer_of(1000)
    put(store, hostile, ["t30", "one_more"])
    assert refused(store) == [(1000, 2, "one_more")]
    assert len(known) == LIMITS.all_users
    store.close()
    store = open_store(directory)
    put(store, producer_of(1001, store), ["of_another", "t7"])
    ids = store.connection.execute("SELECT count(*), count(DISTINCT name), max(id) FROM event_type")
    assert ids.fetchone() == (51, 51, 51)
    assert len(refused(store)) == 1
    store.close()


def test_the_types_with_the_most_events_come_first(directory: Path) -> None:
    store, producer = open_store(directory, TypeLimits(5000, 5000)), producer_of(1000)
    put(store, producer, [f"aaaa{n:04}" for n in range(1500)])
    put(store, producer, ["quiz_submitted"] * 2 + ["task_completed"] * 3)
    rows = REPORTS["event_types"].run(store.connection, Parameters({})).rows
    assert [row["type"] for row in rows[:3]] == ["task_completed", "quiz_submitted", "aaaa0000"]
    assert len(rows) == 1502
    store.close()


def test_a_daemon_refuses_what_is_one_too_many_and_names_the_user(instance: Instance) -> None:
    instance.configure(event_types_per_user_max=5)
    instance.start()
    with Client(instance.socket) as client:
        for n in range(20):
            assert client.emit(f"invented_{n}")
            assert client.emit("page_view", user="7")
        assert client.flush(10)
    status = instance.settle()
    check_sums(status, attempted=40, accepted=40)
    assert (status["stored"], status["quarantined_events"], status["lost"]) == (25, 15, 0)
    (sender,) = status["quarantine_senders"]
    assert (sender["uid"], sender["rows"]) == (os.geteuid(), 15)
    assert "event_types_per_user_max" in sender["newest_reason"]
    instance.cli("verify")
