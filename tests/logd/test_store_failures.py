"""The store when a step fails: memory stays consistent, nothing is confirmed too early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import sqlcipher3

from logd.audit.verify import verify
from logd.batch import Batch
from logd.errors import StorageBusy, StorageFailed
from logd.storage import erasure_list, keyfile, wal
from logd.storage.database import connect
from logd.storage.opening import opened_store
from logd.storage.store import Store
from logd_wire.wire import Event
from tests.logd.full_disk import failing
from tests.support.instance import Instance

KEY = bytes(range(32))
ERRORS = {
    sqlcipher3.SQLITE_IOERR: StorageFailed,
    sqlcipher3.SQLITE_IOERR | 4 << 8: StorageFailed,  # SQLITE_IOERR_FSYNC
    sqlcipher3.SQLITE_FULL: None,  # what was committed is in the log: no failure here
    sqlcipher3.SQLITE_BUSY: None,
}


@pytest.fixture
def made(directory: Path) -> Iterator[Store]:
    opened = Store(directory / "a.db", KEY, 1, 10)
    yield opened
    opened.close()


def batch_of(store: Store, count: int, user: str = "7") -> Batch:
    producer = store.producer(1000, 2)
    batch = Batch(1000, 10**6)
    for _ in range(count):
        producer.taken += 1
        batch.add(producer, producer.taken, Event("page_view", 5, user, b"\x80"), 10)
    return batch


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("statement", ["PRAGMA wal_checkpoint(NOOP)", "PRAGMA wal_checkpoint(P"])
def test_a_wal_that_cannot_be_checkpointed_ends_the_process_except_on_a_full_disk(
    made: Store, monkeypatch: pytest.MonkeyPatch, code: int, statement: str
) -> None:
    """SQLite reports a flush that failed there only once."""
    monkeypatch.setattr(wal, "CHECKPOINT_PAGES", 1)
    expected = ERRORS[code]
    raised: AbstractContextManager[object] = (
        nullcontext() if expected is None else pytest.raises(expected)
    )
    with failing(made, statement, code), raised:
        made.commit(batch_of(made, 3), 2)
    assert made.producer(1000, 2).stored == 3, "it was committed before"


@pytest.mark.parametrize("code", [sqlcipher3.SQLITE_FULL, sqlcipher3.SQLITE_IOERR])
def test_rule_7_a_failed_commit_advances_no_watermark_and_can_be_repeated(
    made: Store, code: int
) -> None:
    batch = batch_of(made, 3)
    (producer,) = batch.producers
    with failing(made, "COMMIT", code), pytest.raises(Exception, match=r"no space|injected"):
        made.commit(batch, 2)
    assert (made.producer(1000, 2).stored, producer.row) == (0, None)
    made.commit(batch, 3)
    assert made.producer(1000, 2).stored == 3
    made.commit(batch_of(made, 2), 4)
    rows = made.connection.execute("SELECT id, sequence FROM event ORDER BY id").fetchall()
    assert rows == [(n, n) for n in range(1, 6)]


def test_a_full_disk_is_reported_and_what_waits_is_stored_when_there_is_space(made: Store) -> None:
    """The page limit stands for the disk: SQLite gives the same result code, SQLITE_FULL."""
    (pages,) = made.connection.execute("PRAGMA page_count").fetchone()
    made.connection.execute(f"PRAGMA max_page_count = {pages}")
    batch = batch_of(made, 500)
    with pytest.raises(Exception, match="no space left on the device") as caught:
        made.commit(batch, 2)
    assert not isinstance(caught.value, StorageFailed)
    assert made.producer(1000, 2).stored == 0
    made.connection.execute("PRAGMA max_page_count = 1000000")
    made.commit(batch, 3)
    assert made.producer(1000, 2).stored == 500


def test_an_internal_event_of_a_failed_transaction_leaves_no_gap_in_the_numbers(
    made: Store,
) -> None:
    def work(_connection: Any, batch: Batch) -> None:
        made.append_internal_event(batch, "events_pruned", {}, 3)

    def failing(connection: Any, batch: Batch) -> None:
        work(connection, batch)
        raise RuntimeError("half way")

    made.transact(work, 3)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="half way"):
            made.transact(failing, 3)
    made.transact(work, 4)
    rows = made.connection.execute("SELECT id, sequence FROM event ORDER BY id").fetchall()
    assert rows == [(1, 1), (2, 2)]
    assert verify(made.connection).findings == []


def test_a_start_that_cannot_make_the_wal_durable_fails_and_names_the_cause(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed predecessor left in there is visible, and perhaps not on the disk."""
    monkeypatch.setattr("logd.storage.database.BUSY_TIMEOUT_MS", 1)
    path = directory / "a.db"
    killed = Store(path, KEY, 1, 10)
    reader = connect(path, KEY, read_only=True)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event").fetchone()
    killed.commit(batch_of(killed, 3), 2)
    with pytest.raises(StorageBusy, match="so its WAL cannot be made durable"):
        Store(path, KEY, 3, 10)
    reader.execute("COMMIT")
    reader.close()
    Store(path, KEY, 3, 10).close()
    killed.connection.close()


def test_what_is_ignored_is_counted_also_in_a_batch_of_which_something_is_erased(
    made: Store,
) -> None:
    entries = {made.erasure_list.token("7"): 10}
    made.transact(lambda connection, _batch: erasure_list.save(connection, entries), 1)
    made.erasure_list.add(entries)
    batch = batch_of(made, 2)
    batch.duplicates = 5
    made.commit(batch, 20)
    counters = dict(made.connection.execute("SELECT name, value FROM counter").fetchall())
    assert (counters["duplicates_ignored"], counters["erased"]) == (5, 2)
    assert made.producer(1000, 2).stored == 2


@pytest.mark.parametrize("statement", ["PRAGMA wal_checkpoint(TRUNCATE)", "SELECT"])
def test_of_an_error_and_a_close_that_fails_the_error_is_raised(
    instance: Instance, statement: str
) -> None:
    """The close fails by a flush, or since a statement is unfinished, which locks a table."""
    instance.open_store().close()
    key = keyfile.read(instance.config.key_file)
    unfinished = []

    def fail(store: Store) -> None:
        store.commit(batch_of(store, 3), 2)
        if statement == "SELECT":
            unfinished.append(store.connection.execute("SELECT * FROM event"))
            unfinished[0].fetchone()
        else:
            store.connection.set_authorizer(refuse_checkpoints)
        raise LookupError

    with pytest.raises(LookupError), opened_store(instance.config, key, 2) as store:
        fail(store)
    with pytest.raises(sqlcipher3.ProgrammingError, match="closed"):
        store.connection.execute("SELECT 1")


def refuse_checkpoints(action: int, name: str, *_: object) -> int:
    denied = action == sqlcipher3.SQLITE_PRAGMA and name == "wal_checkpoint"
    return int(sqlcipher3.SQLITE_DENY if denied else sqlcipher3.SQLITE_OK)


def test_a_close_whose_checkpoint_fails_closes_the_database_and_names_the_failure(
    directory: Path,
) -> None:
    store = Store(directory / "a.db", KEY, 1, 10)
    store.commit(batch_of(store, 3), 2)
    store.connection.set_authorizer(refuse_checkpoints)
    with pytest.raises(StorageFailed, match="not authorized"):
        store.close()
    with pytest.raises(sqlcipher3.ProgrammingError, match="closed"):
        store.connection.execute("SELECT 1")
    again = Store(directory / "a.db", KEY, 1, 10)
    assert again.producer(1000, 2).stored == 3
    again.close()
