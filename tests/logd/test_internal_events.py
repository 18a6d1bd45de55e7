"""Internal events record what was done to the trail, and no client can forge them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.config.retention import check_type
from logd.storage import job_table
from logd.storage.store import Store
from logd_client import Client
from logd_wire.schema import INTERNAL_TYPES, REPORT_READ, RESERVED_TYPES
from logd_wire.wire import Event, producer_seed
from tests.support.instance import Instance, check_streams, check_sums, until


def test_an_event_of_logds_own_is_chained_like_every_other(directory: Path) -> None:
    store = Store(directory / "a.db", os.urandom(32), 1, 10)
    store.record("trail_backed_up", {"events": 0}, 7)
    producer = Producer(uid=1000, id=9, seed=producer_seed(9), taken=1)
    batch = Batch(10, 1000)
    batch.add(producer, 1, Event("login", 5, "7", b"\x80"), 1)
    store.commit(batch, 8)
    store.record("trail_exported", {"events": 2}, 9)
    rows = store.connection.execute(
        "SELECT t.name, e.user, e.ts_ns, e.sequence FROM event e JOIN event_type t ON t.id = e.type"
    ).fetchall()
    assert rows == [
        ("trail_backed_up", None, 7, 1),
        ("login", "7", 5, 1),
        ("trail_exported", None, 9, 2),
    ]
    verdict = verify(store.connection)
    assert (verdict.findings, verdict.head) == ([], store.head.hash.hex())
    assert (store.head.batch, store.head.events) == (3, 3)
    counters = dict(store.connection.execute("SELECT name, value FROM counter").fetchall())
    assert (counters["stored"], counters["own"]) == (3, 2)
    assert not any(store.unfinished()), "its producer has ended: nothing of it can be lost"
    store.close()


def test_an_internal_event_of_a_command_is_stored_once_beside_the_daemon(
    instance: Instance,
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        assert client.emit("login", user="7", durable=True)
        with instance.database() as connection:
            for number in range(3):
                said = {"type": "trail_exported", "props": {"events": number}}
                job_table.add_job(connection, job_table.RECORD, said, 1)
        until(lambda: instance.status()["own"] == 3, "they are stored")
        assert client.emit("login", user="8", durable=True)
    status = instance.settle()
    check_sums(status, attempted=2, accepted=2)
    assert status["stored"] == 5
    events = instance.events()
    check_streams(events)
    assert [e["props"] for e in events if e["type"] == "trail_exported"] == [
        {"events": 0}, {"events": 1}, {"events": 2},
    ]  # fmt: skip
    instance.kill()
    instance.start()
    assert instance.status()["own"] == 3, "not again by the next daemon"
    instance.cli("verify")


@pytest.mark.parametrize("event_type", sorted(RESERVED_TYPES))
def test_a_client_cannot_send_logds_internal_events(instance: Instance, event_type: str) -> None:
    with Client(instance.socket) as client:
        assert client.emit(event_type) is False
        assert client.stats()["refused_by_cause"] == {"malformed": 1}


def test_a_raw_datagram_cannot_send_internal_events_either(instance: Instance) -> None:
    from tests.logd.test_hostile import datagram, sender

    instance.start()
    with sender(instance) as sock:
        good = datagram(1)
        sock.send(good)
        forged = datagram(2, event_type="trail_restored")
        sock.send(forged)
    until(lambda: instance.status()["quarantined"] == 1, "it is in quarantine")
    status = instance.status()
    check_sums(status, attempted=2, accepted=2)
    assert (status["stored"], status["own"]) == (1, 0)


def test_readings_may_be_pruned_and_acts_may_not() -> None:
    """Of the types reserved for logd, only those that verify needs are kept for ever."""
    check_type(REPORT_READ)
    for event_type in INTERNAL_TYPES:
        with pytest.raises(ValueError, match="kept for ever"):
            check_type(event_type)
