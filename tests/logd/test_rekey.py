"""A new key: no event lost, and at no moment a database that no key opens."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.maintenance import database_swap, rekey
from logd.maintenance.database_copy import Bar, Interrupted, Stop
from logd.storage import keyfile
from logd.storage.database import connect
from logd_client import Client
from tests.logd.killing import killed_at_each_step
from tests.logd.trails import emit, interrupting, noted, original_instance, silent, users
from tests.support.instance import (
    Instance,
    check_streams,
    check_sums,
    emitters,
    until,
)
from tests.support.namespaces import needs_users


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """The files of an instance with 100 events, 20 of them in the log only; not running."""
    with original_instance() as instance:
        instance.start()
        emit(instance, "7", 80)
        instance.stop()
        instance.start()
        emit(instance, "8", 20)
        instance.kill()
        for path in instance.directory.glob("*.sock"):
            path.unlink()
        yield instance.directory


def opens(path: Path, key: bytes) -> bool:
    try:
        connect(path, key, read_only=True).close()
    except Exception:  # noqa: BLE001 - whatever it says
        return False
    return True


def test_the_database_has_a_new_key_and_all_of_its_events(stored: Instance) -> None:
    old = keyfile.read(stored.config.key_file)
    said = stored.cli("rekey")
    new = keyfile.read(stored.config.key_file)
    assert new != old
    assert not opens(stored.config.database, old)
    assert users(stored) == {"7": 80, "8": 20}
    (old_file,) = stored.directory.glob("logd.key.old-*")
    assert keyfile.read_file(old_file) == old
    assert str(old_file) in said and "keep a copy of" in said
    assert {path.stat().st_mode & 0o777 for path in stored.directory.glob("logd.key*")} == {0o600}
    assert sorted(path.name for path in stored.directory.glob("activity.db*")) == [
        "activity.db", "activity.db-shm", "activity.db-wal", "activity.db.lock",
    ], "nothing of the old one is left; the log is of the reading just now"  # fmt: skip
    assert Path(f"{stored.config.database}-wal").stat().st_size == 0


def test_a_rekey_is_recorded_without_the_key(stored: Instance) -> None:
    keys = [keyfile.read(stored.config.key_file)]
    stored.cli("rekey")
    keys.append(keyfile.read(stored.config.key_file))
    (event,) = stored.events("--type", "trail_rekeyed")
    assert (event["user"], event["props"]) == (None, {})
    stored.start()
    status = stored.settle()
    check_sums(status, attempted=100, accepted=100)
    assert status["own"] == 1


def test_a_new_key_may_be_brought_along(stored: Instance, directory: Path) -> None:
    keyfile.create(directory / "brought.key")
    stored.cli("rekey", "--new-key-file", str(directory / "brought.key"))
    assert keyfile.read(stored.config.key_file) == keyfile.read(directory / "brought.key")
    assert users(stored) == {"7": 80, "8": 20}
    again = stored.cli("rekey", "--new-key-file", str(directory / "brought.key"), code=77)
    assert "has the present key" in again
    (directory / "brought.key").chmod(0o644)
    said = stored.cli("rekey", "--new-key-file", str(directory / "brought.key"), code=77)
    assert "open to others" in said


def test_with_the_daemon_running_rekey_prints_how_long_the_stop_will_be(stored: Instance) -> None:
    stored.start()
    key = keyfile.read(stored.config.key_file)
    said = stored.cli("rekey", code=75)
    assert "It will take about 1 s (100 events" in said
    assert "systemctl stop logd" in said
    assert keyfile.read(stored.config.key_file) == key
    assert stored.stop() == 0
    assert users(stored) == {"7": 80, "8": 20}


def test_events_that_come_meanwhile_are_stored_after_it(instance: Instance) -> None:
    instance.start()
    with emitters(instance, count=2, events=4000) as running:
        until(lambda: all(e.accepted >= 500 for e in running), "events")
        instance.stop()
        with database_swap.hold_instance(instance.config):
            rekey.rekey(instance.config, None, time.time_ns(), Stop(), silent)
        instance.start()
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
    status = instance.settle()
    check_sums(status, attempted=8000 + refused, accepted=8000, refused=refused)
    assert (status["stored"], status["own"], status["lost"]) == (8001, 1, 0)
    check_streams(instance.events())
    instance.cli("verify")


def test_a_database_that_is_not_whole_keeps_its_key(stored: Instance) -> None:
    key = keyfile.read(stored.config.key_file)
    connection = connect(stored.config.database, key)
    connection.execute("UPDATE event SET user = 'mallory' WHERE id = 30")
    connection.close()
    assert "an event was changed" in stored.cli("rekey", code=1)
    assert keyfile.read(stored.config.key_file) == key
    assert opens(stored.config.database, key)
    assert [path.name for path in stored.directory.glob("logd.key*")] == ["logd.key"]


def test_the_key_changes_once_the_database_under_it_is_on_the_disk(
    stored: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noted(monkeypatch) as happened:
        stored.cli("rekey")
    steps = [one for one in happened if not one.startswith("flush i")]
    assert steps == [
        "flush activity.db.lock", "flush logd.key.next", "flush activity.db.making",
        "name activity.db.rekeyed", "name logd.key", "name activity.db",
    ]  # fmt: skip
    assert all(happened[n + 1] == "flush i" for n, one in enumerate(happened) if "name" in one)
    # Its own name is on the disk before it takes the old key's, or a power cut leaves neither.
    at = happened.index("name logd.key")
    assert happened[at - 1] == "flush i"
    assert happened.index("name activity.db.rekeyed") < at - 2, "that flush is another"


@pytest.mark.parametrize("at", ["copying", "verifying"])
def test_interrupted_it_keeps_key_and_database(stored: Instance, at: str) -> None:
    key = keyfile.read(stored.config.key_file)
    stop = Stop()
    with database_swap.hold_instance(stored.config), pytest.raises(Interrupted, match="SIGTERM"):
        rekey.rekey(stored.config, None, time.time_ns(), stop, interrupting(stop, at))
    assert keyfile.read(stored.config.key_file) == key
    assert users(stored) == {"7": 80, "8": 20}
    assert [path.name for path in stored.directory.glob("logd.key*")] == ["logd.key"]
    assert not list(stored.directory.glob("*.making*")) + list(stored.directory.glob("*.rekeyed*"))


def test_killed_at_any_step_the_next_start_sets_it_right(stored: Instance) -> None:
    old = keyfile.read(stored.config.key_file)
    config = stored.config

    def work(bar: Bar) -> None:
        with database_swap.hold_instance(config):
            rekey.rekey(config, None, time.time_ns(), Stop(), bar)

    stages = []
    for _ in killed_at_each_step(stored.directory, work):
        key = keyfile.read(config.key_file)
        stages.append((key != old, opens(config.database, key)))
        with database_swap.hold_instance(config):  # as a start does
            rekey.complete_rekey(config, key)
        assert users(stored) == {"7": 80, "8": 20}
        assert not config.rekeyed_file.exists()
    order = [(False, True), (True, False), (True, True)]
    assert list(dict.fromkeys(stages)) == order, "before, between key and database, behind it"
    assert len(stages) > 20


def test_killed_between_key_and_database_a_rekey_is_completed_by_the_next_start(
    stored: Instance,
) -> None:
    _interrupt(stored)
    said = stored.cli("status", code=77)
    assert "a change of its key was interrupted" in said and "Start logd" in said
    daemon = stored.start()
    assert any("an interrupted change of its key is completed" in line for line in daemon.lines)
    assert users(stored) == {"7": 80, "8": 20}


def test_killed_between_key_and_database_the_same_command_completes_it(stored: Instance) -> None:
    _interrupt(stored)
    stored.cli("rekey")
    assert users(stored) == {"7": 80, "8": 20}
    assert not stored.config.rekeyed_file.exists()


def test_a_service_that_may_write_only_beside_its_database_completes_it(
    stored: Instance, directory: Path
) -> None:
    """It has its key as a credential, and sees no other file of it."""
    _interrupt(stored)
    credentials = directory / "credentials"
    credentials.mkdir()
    for path in stored.directory.glob("logd.key*"):
        path.rename(credentials / path.name)
    stored.start(env={"CREDENTIALS_DIRECTORY": str(credentials)})
    stored.stop()
    assert "cannot be read" in stored.cli("run", code=77), "without it there is no key"
    (credentials / "logd.key").rename(stored.config.key_file)
    assert users(stored) == {"7": 80, "8": 20}


def _interrupt(instance: Instance) -> None:
    """The new key is the key, and the database is still the old one."""
    config = instance.config
    old = shutil.copy(config.database, instance.directory / "old.db")
    log = Path(f"{config.database}-wal").read_bytes()
    with database_swap.hold_instance(config):
        rekey.rekey(config, None, time.time_ns(), Stop(), silent)
    config.database.rename(config.rekeyed_file)
    Path(old).rename(config.database)
    Path(f"{config.database}-wal").write_bytes(log)


def test_what_came_after_an_interrupted_change_is_not_lost_by_completing_it(
    stored: Instance,
) -> None:
    """Killed before the key changed: the daemon continues with the old database."""
    config = stored.config
    shutil.copy(config.database, config.rekeyed_file)
    daemon = stored.start()
    assert any("incomplete change of the key: removed" in line for line in daemon.lines)
    with Client(stored.socket) as client:
        assert client.emit("page_view", user="9", durable=True)
    stored.stop()
    stored.cli("rekey")
    assert users(stored) == {"7": 80, "8": 20, "9": 1}


@needs_users
def test_a_rekey_by_root_keeps_the_owner(stored: Instance) -> None:
    os.chown(stored.directory, 65534, 65534)
    os.chown(stored.config.database, 65534, 65534)
    stored.cli("rekey")
    assert stored.config.database.stat().st_uid == 65534
    assert stored.config.key_file.stat().st_uid == 0
