"""How the database is opened, and that no act leaves it otherwise: each setting is a promise."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.batch import Batch, Producer
from logd.errors import StorageBusy
from logd.ingest.receiver import bind
from logd.maintenance import forget as forgetting
from logd.storage import wal
from logd.storage.database import BUSY_TIMEOUT_MS, connect
from logd.storage.store import Store
from logd.storage.wal import BUSY_TIMEOUT_RUNNING_MS
from logd_wire.wire import Event, producer_seed

KEY = bytes(range(32))
NORMAL, FULL = 1, 2
MEMORY = 2

# What each setting is, and what breaks without it.
SETTINGS: dict[str, tuple[object, str]] = {
    "journal_mode": ("wal", "readers do not hold up a commit"),
    "synchronous": (FULL, "what is confirmed is on the disk"),
    "temp_store": (MEMORY, "what is sorted lies in no file"),
    "foreign_keys": (1, "no row speaks of a producer or batch that is not there"),
    "wal_autocheckpoint": (0, "an error in moving the log is not kept from us"),
    "journal_size_limit": (64 * 1024 * 1024, "a log that grew once does not keep its size"),
    "secure_delete": (1, "what is deleted is overwritten"),
    "mmap_size": (0, "a file cut short ends no process"),
    "cipher_use_hmac": ("1", "a changed page is detected when it is read"),
    "cipher_plaintext_header_size": ("0", "not even the head of the file is plain"),
    "query_only": (0, "the one writer may write"),
}


def setting(connection: Any, name: str) -> object:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return value


def settings(connection: Any) -> dict[str, object]:
    return {name: setting(connection, name) for name in SETTINGS}


EXPECTED = {name: value for name, (value, _) in SETTINGS.items()}


@pytest.fixture
def store(directory: Path) -> Iterator[Store]:
    made = Store(directory / "a.db", KEY, 1, 10)
    yield made
    made.close()


def fill(store: Store, count: int, props: bytes = b"\x80") -> None:
    producer = store.producer(1, 2)
    batch = Batch(10**6, 10**9)
    for _ in range(count):
        producer.taken += 1
        batch.add(producer, producer.taken, Event("page_view", 5, "7", props), len(props))
    store.commit(batch, 2)
    batch.mark_committed()


def test_the_writer_opens_the_database_with_every_setting(store: Store) -> None:
    found = settings(store.connection)
    for name, (value, why) in SETTINGS.items():
        assert found[name] == value, f"{name}: {why}"
    assert str(setting(store.connection, "cipher_version"))[0].isdigit(), "it is SQLCipher"
    assert setting(store.connection, "busy_timeout") == BUSY_TIMEOUT_RUNNING_MS < BUSY_TIMEOUT_MS


def test_a_reader_cannot_write_and_sorts_in_memory(store: Store, directory: Path) -> None:
    reader = connect(directory / "a.db", KEY, read_only=True)
    assert (setting(reader, "query_only"), setting(reader, "temp_store")) == (1, MEMORY)
    for statement in ("DELETE FROM event", "CREATE TABLE x (a)", "PRAGMA user_version = 9"):
        with pytest.raises(Exception, match="attempt to write a readonly database"):
            reader.execute(statement)
    reader.close()


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
@pytest.mark.parametrize("flush", [False, True], ids=["unflushed", "flushed"])
def test_after_an_act_every_commit_is_flushed_again(store: Store, flush: bool, fails: bool) -> None:
    """A step of `prune` is not flushed; what is committed after it is confirmed to producers."""
    within: list[object] = []

    def work(connection: Any, _batch: Batch) -> None:
        within.append(setting(connection, "synchronous"))
        if fails:
            raise RuntimeError("half way")

    if fails:
        with pytest.raises(RuntimeError, match="half way"):
            store.transact(work, 3, flush=flush)
    else:
        store.transact(work, 3, flush=flush)
    assert within == [FULL if flush else NORMAL]
    assert settings(store.connection) == EXPECTED
    assert not store.connection.in_transaction


def test_what_is_committed_without_a_flush_is_not_announced_before_one(store: Store) -> None:
    """A power cut would take back the head that an anchor names."""
    fill(store, 2)
    announced = store.head

    def work(connection: Any, batch: Batch) -> None:
        store.append_internal_event(batch, "events_pruned", {}, 3)

    store.transact(work, 3, flush=False)
    assert store.head == announced
    store.transact(work, 4)
    assert store.head.batch == announced.batch + 2


def stop_after(calls: int) -> Any:
    left = [calls]

    def meanwhile() -> bool:
        left[0] -= 1
        return left[0] >= 0

    return meanwhile


@pytest.mark.parametrize("outcome", ["done", "interrupted", "failed", "no room"])
def test_after_a_vacuum_the_database_sorts_in_memory_and_queries_are_not_interrupted(
    store: Store, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    fill(store, 500)
    monkeypatch.setattr(wal, "_VACUUM_STEPS", 100)
    asked = 0
    go_on = stop_after(2 if outcome == "interrupted" else 10**9)

    def meanwhile() -> bool:
        nonlocal asked
        asked += 1
        return bool(go_on())

    if outcome == "no room":
        with monkeypatch.context() as context:
            full = os.statvfs_result((4096, 4096, 9, 0, 0, 9, 9, 9, 0, 255))
            context.setattr(os, "statvfs", lambda _: full)
            with pytest.raises(StorageBusy, match="vacuuming needs"):
                store.vacuum(meanwhile)
    elif outcome == "failed":
        store.connection.execute("BEGIN")
        with pytest.raises(Exception, match="transaction"):
            store.vacuum(meanwhile)
        store.connection.execute("ROLLBACK")
    else:
        assert store.vacuum(meanwhile) is (outcome == "done")
    assert settings(store.connection) == EXPECTED
    asked_by_then = asked
    (counted,) = store.connection.execute(
        "SELECT count(*) FROM event a, event b WHERE a.id + b.id > 0"
    ).fetchone()
    assert counted == 250_000
    assert asked == asked_by_then, "its own handler is gone"
    fill(store, 5)


def test_the_scratch_file_of_a_vacuum_is_beside_the_database_and_encrypted(
    store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp it would be on another disk, which may be full, or swept, or not encrypted."""
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    for name in ("SQLITE_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, str(elsewhere))
    monkeypatch.setattr(wal, "_VACUUM_STEPS", 500)
    # Past what SQLite keeps in its cache before it makes the file.
    store.connection.execute("PRAGMA cache_size = 10")
    fill(store, 2000, b"\xda\x01\x00" + b"in plain text " * 19)
    scratch: set[str] = set()
    plain: list[str] = []

    def meanwhile() -> bool:
        for fd in os.listdir("/proc/self/fd"):
            try:
                path = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            if path.startswith(str(directory)) and path.endswith(" (deleted)"):
                scratch.add(str(Path(path).parent))
                with open(f"/proc/self/fd/{fd}", "rb") as file:
                    data = file.read(64 * 1024)
                if b"in plain text" in data or data.startswith(b"SQLite format 3"):
                    plain.append(path)
        return True

    assert store.vacuum(meanwhile)
    assert scratch == {str(directory)}
    assert not plain


def test_a_wal_with_a_reader_is_not_reported_empty_and_the_busy_timeout_is_kept(
    store: Store, directory: Path
) -> None:
    fill(store, 10)
    reader = connect(directory / "a.db", KEY, read_only=True)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event").fetchone()
    fill(store, 10)
    assert store.truncate_wal() is False
    assert setting(store.connection, "busy_timeout") == BUSY_TIMEOUT_RUNNING_MS
    assert (directory / "a.db-wal").stat().st_size > 0
    reader.execute("COMMIT")
    assert store.truncate_wal() is True
    assert (directory / "a.db-wal").stat().st_size == 0
    assert setting(store.connection, "busy_timeout") == BUSY_TIMEOUT_RUNNING_MS
    reader.close()


class _NoWait:
    def __init__(self, _seconds: float) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_a_forget_is_not_done_while_a_reader_keeps_the_log(store: Store, directory: Path) -> None:
    """What was erased stands in it until then; so it waits, and asks again."""
    fill(store, 10)
    reader = connect(directory / "a.db", KEY, read_only=True)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event").fetchone()
    cleaning = forgetting.clean(store, lambda: True, _NoWait)
    for _ in range(3):
        assert next(cleaning) == forgetting.CLEAN_AGAIN_S
        assert (directory / "a.db-wal").stat().st_size > 0
    reader.execute("COMMIT")
    with pytest.raises(StopIteration):
        next(cleaning)
    assert (directory / "a.db-wal").stat().st_size == 0
    reader.close()


def test_a_forget_is_not_done_before_the_vacuum_succeeds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop of the daemon interrupts that; what was erased may stand in any page until then."""
    fill(store, 10)
    outcomes = [False, False, True]
    monkeypatch.setattr(store, "vacuum", lambda _meanwhile: outcomes.pop(0))
    cleaning = forgetting.clean(store, lambda: True, _NoWait)
    for left in (2, 1):
        assert next(cleaning) == forgetting.CLEAN_AGAIN_S
        assert len(outcomes) == left
    with pytest.raises(StopIteration):
        next(cleaning)
    assert outcomes == []


def test_a_watermark_never_goes_back(store: Store) -> None:
    first = Producer(uid=1000, id=9, seed=producer_seed(9), taken=7)
    batch = Batch(10, 10**6)
    batch.touch(first)
    store.commit(batch, 1)
    stale = store.producer(1000, 9)
    stale.taken = 3
    batch = Batch(10, 10**6)
    batch.touch(stale)
    store.commit(batch, 2)
    assert store.producer(1000, 9).stored == 7


# -- the sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_socket_is_its_owners_alone_until_its_mode_is_set_and_names_senders_from_the_first_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    seen: dict[str, int] = {}

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            seen["credentials"] = self.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED)
            super().bind(address)
            seen["mode"] = os.stat(address).st_mode & 0o777

    monkeypatch.setattr(socket, "socket", Watched)
    before = os.umask(0o022)
    try:
        made = bind(directory / "s", kind, 0o660)
        assert os.umask(0o022) == 0o022, "the process's own is as it was"
    finally:
        os.umask(before)
    made.close()
    assert seen["mode"] & 0o077 == 0, "anybody may connect before its mode is set"
    assert seen["credentials"] == (kind == socket.SOCK_DGRAM)
    assert (directory / "s").stat().st_mode & 0o777 == 0o660
