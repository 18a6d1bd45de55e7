"""`verify` takes nothing for hashed that has not the type and length that it was hashed with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.audit.row_checks import type_name
from logd.audit.verify import verify
from logd.batch import Batch, Producer
from logd.storage import batch_hash
from logd.storage.database import connect
from logd.storage.store import Store
from logd_wire.wire import Event, producer_seed
from tests.logd.rebuilding import rebuild

KEY = bytes(32)
# The packed fields of an event, behind something harmless: the attacker logs this ahead of time.
FORGED = (2, "1000-00000000000003e8", 2, 77, "login", "AAA", b"\x80")
PROPS = b"\x81\xa1k\xc4" + bytes([len(msgpack.packb(FORGED))]) + msgpack.packb(FORGED)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail with three batches, events and a loss."""
    path = tmp_path_factory.mktemp("rows") / "a.db"
    store = Store(path, KEY, 1, 10)
    producer = Producer(uid=1000, id=1000, seed=producer_seed(1000))
    for number in range(3):
        batch = Batch(1000, 10**6)
        for kind in ("login", "harmless"):
            producer.taken += 1
            batch.add(producer, producer.taken, Event(kind, 5, "7", PROPS), 10)
        if number == 1:
            batch.add_loss(producer, producer.taken + 1, producer.taken + 2, "not received")
            producer.taken += 2
        store.commit(batch, 2)
        batch.mark_committed()
    assert verify(store.connection).findings == []
    store.close()
    return path


@pytest.fixture
def connection(original: Path, tmp_path: Path) -> Iterator[Any]:
    shutil.copy(original, tmp_path / "a.db")
    connection = connect(tmp_path / "a.db", KEY)
    connection.execute("PRAGMA foreign_keys = OFF")
    yield connection
    connection.close()


def test_a_longer_salt_does_not_make_one_event_of_another(connection: Any) -> None:
    """Salt and content are hashed as one: moved from the one to the other, the leaf is the same."""
    sql = (
        "SELECT e.salt, e.id, p.uid || '-' || p.key, e.sequence, e.ts_ns, t.name, e.user, e.props"
        " FROM event e JOIN producer p ON p.id = e.producer JOIN event_type t ON t.id = e.type"
        " WHERE e.id = 2"
    )
    before = connection.execute(sql).fetchone()
    forged = msgpack.packb(FORGED)
    longer = before[0] + msgpack.packb(before[1:])[: -len(forged)]
    connection.execute(
        "UPDATE event SET salt = ?, ts_ns = 77, user = 'AAA', props = x'80', type ="
        " (SELECT id FROM event_type WHERE name = 'login') WHERE id = 2",
        (longer,),
    )
    after = connection.execute(sql).fetchone()
    assert after[1:] == FORGED
    assert batch_hash.event_data(*before) == batch_hash.event_data(*after)
    head = connection.execute("SELECT max(id), hash FROM batch").fetchone()
    rebuild(connection)  # the sums, which are in no hash
    assert connection.execute("SELECT max(id), hash FROM batch").fetchone() == head
    (first, *_) = verify(connection).findings
    assert first.startswith("batch 1 ")
    assert f"event 2 was changed: salt has {len(longer)} bytes, expected 16" in first


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("UPDATE event SET salt = x'' WHERE id = 2", "event 2 was changed: salt has 0 bytes"),
        ("UPDATE event SET salt = hex(zeroblob(8)) WHERE id = 2", "salt is text, expected 16"),
        ("UPDATE event SET sequence = 2.5 WHERE id = 2", "sequence is a fraction, expected"),
        ("UPDATE event SET sequence = x'02' WHERE id = 2", "sequence is bytes"),
        ("UPDATE event SET sequence = 0 WHERE id = 2", "sequence is 0, expected 1 to"),
        ("UPDATE event SET ts_ns = -1 WHERE id = 2", "ts_ns is -1, expected 0 to"),
        ("UPDATE event SET ts_ns = 'noon' WHERE id = 2", "ts_ns is text"),
        ("UPDATE event SET user = x'37' WHERE id = 2", "user is bytes, expected text"),
        ("UPDATE event SET user = '' WHERE id = 2", "user has 0 bytes, expected 1 to 255"),
        ("UPDATE event SET user = printf('%.*c', 86, char(8364)) WHERE id = 2", "has 258 bytes"),
        ("UPDATE event SET props = 'text' WHERE id = 2", "props is text, expected bytes"),
        ("UPDATE event SET props = zeroblob(600000) WHERE id = 2", "props has 600000 bytes"),
        ("UPDATE event SET producer = 9 WHERE id = 2", "the producer's uid is missing"),
        ("UPDATE event SET type = 9 WHERE id = 2", "event 2 was changed: type is missing"),
        ("UPDATE event_type SET name = 'Log in' WHERE name = 'login'", "type is 'Log in'"),
        ("UPDATE producer SET key = key || '0'", "the producer's id is '00000000000003e80'"),
        ("UPDATE producer SET uid = '1000-0', key = substr(key, 3)", "producer's uid is text"),
        ("UPDATE producer SET uid = -1", "the producer's uid is -1"),
        ("UPDATE batch SET stored_ns = 'then' WHERE id = 2", "batch 2 was changed: stored_ns is"),
        ("UPDATE batch SET first_event = 3.5 WHERE id = 2", "first_event is a fraction"),
        ("UPDATE batch SET events = -2 WHERE id = 2", "batch 2 was changed: events is -2"),
        ("UPDATE batch SET events = 1 << 40 WHERE id = 2", "events is 1099511627776, expected"),
        ("UPDATE batch SET leaves_hash = CAST(hash || x'00' AS BLOB) WHERE id = 2", "has 33 bytes"),
        ("UPDATE batch SET hash = hex(hash) WHERE id = 2", "hash is text, expected 32 bytes"),
        ("UPDATE batch SET id = -3 WHERE id = 3", "1 batches have numbers below 1"),
        ("UPDATE loss SET first = 'a'", "a loss was changed: first is text"),
        ("UPDATE loss SET last = 6.5", "a loss was changed: last is a fraction"),
        ("UPDATE loss SET cause = x'41'", "a loss was changed: cause is bytes"),
        ("UPDATE loss SET producer = 9", "a loss was changed: the producer's uid is missing"),
        ("UPDATE loss SET batch = 9", "loss ledger: 1 entries, 0 belong to batches"),
        (
            "INSERT INTO leaf VALUES (2, zeroblob(64), 0)",
            "leaf of event 2 was changed: hash has 64",
        ),
        ("INSERT INTO removed VALUES (9, 'a', 1)", "removal of event 9 was changed: last is text"),
        ("INSERT INTO redacted VALUES ('a', 1, x'')", "redaction of event 'a' was changed: event"),
        ("INSERT INTO redacted VALUES (2, 1, x'00')", "redaction of event 2 was changed: hash"),
        (
            "INSERT INTO removal VALUES (1, 1, 'pruned', 0, x'00', 0, 0)",
            "removal 1 was changed: hash",
        ),
        (
            "INSERT INTO removal VALUES (1, 1, x'00', 0, zeroblob(32), 0, 0)",
            "kind is bytes",
        ),
        (
            "INSERT INTO removal VALUES (1, 'a', 'pruned', 0, zeroblob(32), 0, 0)",
            "event is text",
        ),
    ],
)
def test_a_type_or_length_that_the_daemon_never_writes_is_reported_with_its_place(
    connection: Any, sql: str, expected: str
) -> None:
    connection.execute(sql)
    findings = verify(connection).findings
    assert any(expected in finding for finding in findings), findings


def test_a_changed_batch_is_not_called_removed(connection: Any) -> None:
    connection.execute("UPDATE batch SET stored_ns = 'then' WHERE id = 2")
    findings = verify(connection).findings
    assert not any("removed" in finding or "not follow" in finding for finding in findings)


def test_an_internal_event_whose_properties_are_not_a_map_records_no_removal(
    connection: Any,
) -> None:
    connection.execute("UPDATE event_type SET name = 'events_pruned' WHERE name = 'harmless'")
    connection.execute("UPDATE event SET props = x'90' WHERE id = 2")
    digest = batch_hash.Removal().hash(1, "pruned")
    connection.execute(
        "INSERT INTO removal VALUES (1, 2, 'pruned', 0, ?, 0, 0)",
        (digest,),
    )
    assert "removal 1: event 2 does not record it" in verify(connection).findings


def test_a_type_is_stored_with_dots_and_hyphens_where_a_client_may_have_them() -> None:
    assert [type_name(name) for name in ("login", "order.paid", "user-login")] == [None] * 3
    assert type_name("order..paid") == "is 'order..paid', expected a type's name"
