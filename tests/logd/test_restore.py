"""A restore replaces the database atomically and records it in the trail."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.audit.verify import verify
from logd.clock.readings import Reading
from logd.maintenance import backup as backups
from logd.maintenance import database_swap
from logd.maintenance import restore as restoring
from logd.maintenance.database_copy import Bar, Interrupted, Stop
from logd.storage import erasure_list, keyfile
from logd.storage.database import connect
from logd.storage.migrations import MIGRATIONS
from logd.storage.tree import Tree
from tests.logd.killing import killed_at_each_step
from tests.logd.older import older
from tests.logd.trails import (
    back_up,
    emit,
    interrupting,
    noted,
    original_instance,
    restore,
    silent,
    users,
)
from tests.support.instance import Instance, check_sums
from tests.support.namespaces import needs_users


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """The files of an instance with 100 events, a backup of them, and 50 more; not running."""
    with original_instance() as instance:
        instance.start()
        emit(instance, "before", 100)
        back_up(instance)
        emit(instance, "after", 50)
        instance.stop()
        yield instance.directory


@pytest.fixture
def backed_up(original: Path, instance: Instance) -> tuple[Instance, Path]:
    """A copy of it, and its backup."""
    shutil.copytree(original, instance.directory, dirs_exist_ok=True)
    (backup,) = instance.config.backup_directory.glob("*.db")
    return instance, backup


def test_the_backup_is_the_database_and_what_it_replaced_is_kept(
    backed_up: tuple[Instance, Path],
) -> None:
    instance, backup = backed_up
    said = restore(instance, backup)
    assert "the backup is complete: 100 events in" in said
    assert "51 more than the backup" in said
    assert "start logd" in said and "logd losses" in said
    assert users(instance) == {"before": 100}
    (kept,) = instance.directory.glob("activity.db.before-*Z")
    assert str(kept) in said
    assert users(instance, kept) == {"before": 100, "after": 50}
    assert not list(instance.directory.glob("*.making*"))
    assert instance.config.database.stat().st_mode & 0o777 == 0o600


def test_a_restore_is_recorded_with_both_ends(backed_up: tuple[Instance, Path]) -> None:
    instance, backup = backed_up
    with instance.database(read_only=True) as connection:
        tree = Tree(connection)
        roots = [tree.root_at(size).hex() for size in range(tree.size() + 1)]
    before = instance.status()
    restore(instance, backup)
    (event,) = instance.events("--type", "trail_restored")
    props = event["props"]
    assert (props["replaced_batch"], props["replaced_head"]) == (len(roots) - 1, roots[-1])
    assert props["backup_head"] == roots[props["backup_batch"]]
    assert (props["backup_events"], props["replaced_events"]) == (100, before["stored"])
    assert props["kept"] == next(instance.directory.glob("activity.db.before-*Z")).name
    assert event["user"] is None
    instance.start()
    status = instance.settle()
    check_sums(status, attempted=150, accepted=150)
    assert status["losses_by_cause"]["restored"]["events"] == 50
    assert status["unknown_extent"] == 0


def test_events_that_are_only_in_the_wal_are_kept_too(
    backed_up: tuple[Instance, Path],
) -> None:
    instance, backup = backed_up
    instance.start()
    emit(instance, "in the log", 30)
    instance.kill()
    assert Path(f"{instance.config.database}-wal").stat().st_size > 0
    restore(instance, backup)
    (kept,) = instance.directory.glob("activity.db.before-*Z")
    assert users(instance, kept)["in the log"] == 30
    assert not Path(f"{instance.config.database}-wal").exists()
    assert users(instance) == {"before": 100}


def test_a_running_daemon_is_not_disturbed_and_one_hears_how_to_stop_it(
    backed_up: tuple[Instance, Path],
) -> None:
    instance, backup = backed_up
    daemon = instance.start()
    said = restore(instance, backup, code=75)
    assert "systemctl stop logd" in said
    assert f"pid {daemon.popen.pid}" in said
    assert instance.stop() == 0
    assert users(instance) == {"before": 100, "after": 50}


def test_without_a_yes_nothing_happens(backed_up: tuple[Instance, Path]) -> None:
    instance, backup = backed_up
    assert "use --yes" in instance.cli("restore", str(backup), code=2)
    assert users(instance) == {"before": 100, "after": 50}


def test_a_backup_that_is_not_whole_replaces_nothing(backed_up: tuple[Instance, Path]) -> None:
    instance, backup = backed_up
    with instance.database(backup) as connection:
        connection.execute("UPDATE event SET user = 'mallory' WHERE id = 30")
    said = restore(instance, backup, code=1)
    assert "not whole" in said and "an event was changed" in said
    assert users(instance) == {"before": 100, "after": 50}
    assert not list(instance.directory.glob("activity.db.before-*Z"))


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("nothing.db", 73, "no such file"), ("activity.db", 73, "is the database itself")],
)
def test_a_file_that_is_not_a_backup_is_refused(
    backed_up: tuple[Instance, Path], name: str, code: int, message: str
) -> None:
    instance, _ = backed_up
    assert message in restore(instance, instance.directory / name, code=code)


def test_a_backup_with_another_key_asks_for_that_key(backed_up: tuple[Instance, Path]) -> None:
    instance, backup = backed_up
    instance.cli("rekey")
    assert "needs the old key: --key-file" in restore(instance, backup, code=77)
    (old_key,) = instance.directory.glob("logd.key.old-*")
    restore(instance, backup, "--key-file", str(old_key))
    assert users(instance) == {"before": 100}, "and is now encrypted with the present key"
    with pytest.raises(Exception, match="the key is not this database's"):
        connect(instance.config.database, keyfile.read_file(old_key), read_only=True)


def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    instance: Instance, directory: Path
) -> None:
    from tests.logd.test_blocks import made_up

    key = keyfile.read(instance.config.key_file)
    events = [next(made_up(seed)) for seed in range(200)]
    older(directory / "old.db", key, 1, events)
    restore(instance, directory / "old.db")
    with instance.database(read_only=True) as connection:
        verdict = verify(connection)
        (schema,) = connection.execute("SELECT max(version) FROM migration").fetchone()
    assert (verdict.findings, verdict.events, schema) == ([], 201, len(MIGRATIONS))
    assert not list(instance.directory.glob("activity.db.before-*Z")), "there was none"
    instance.start()
    assert instance.settle()["stored"] == 201


def test_a_database_that_cannot_be_read_is_kept_as_it_is(backed_up: tuple[Instance, Path]) -> None:
    instance, backup = backed_up
    instance.start()
    emit(instance, "in the log", 30)
    instance.kill()
    database = instance.config.database
    with open(database, "r+b") as file:
        file.write(os.urandom(4096))
    damaged, log = database.read_bytes(), Path(f"{database}-wal").read_bytes()
    assert "cannot be read with this key" in restore(instance, backup)
    (kept,) = instance.directory.glob("activity.db.before-*Z")
    assert kept.read_bytes() == damaged
    assert Path(f"{kept}-wal").read_bytes() == log
    assert users(instance) == {"before": 100}


def test_an_emptied_instance_is_whole_again(backed_up: tuple[Instance, Path]) -> None:
    """The daemon takes a missing database for no new trail; a restore is what it asks for."""
    instance, backup = backed_up
    instance.config.database.unlink()
    assert "Restore a backup" in instance.cli("run", code=65)
    assert "nothing is replaced" in restore(instance, backup)
    instance.start()
    assert users(instance) == {"before": 100}


def test_copies_that_were_made_since_the_backup_are_still_known(
    backed_up: tuple[Instance, Path],
) -> None:
    instance, backup = backed_up
    now = Reading(time.time_ns() + 10**10, "", 0)
    later = backups.backup(instance.config, None, None, now, Stop(), silent)
    restore(instance, backup)
    with instance.database(read_only=True) as connection:
        rows = connection.execute("SELECT place, kind FROM copy").fetchall()
    (kept,) = instance.directory.glob("activity.db.before-*Z")
    assert {Path(place).name: kind for place, kind in rows} == {
        backup.name: "backup", later.path.name: "backup", kept.name: "replaced",
    }  # fmt: skip


def test_persons_forgotten_since_the_backup_do_not_come_back(
    backed_up: tuple[Instance, Path],
) -> None:
    """By the list in the database that is replaced; with no daemon in between."""
    instance, backup = backed_up
    instance.cli("forget", "before", "--yes")
    assert users(instance) == {"after": 50}
    restore(instance, backup)
    assert users(instance) == {}
    instance.start()
    status = instance.settle()
    assert (status["erased"], status["stored"] - status["own"]) == (100, 100)


def test_lists_of_forgotten_persons_beside_backup_and_database_are_put_together(
    backed_up: tuple[Instance, Path],
) -> None:
    """Also if the database that knows of them is lost."""
    instance, backup = backed_up
    with instance.database(read_only=True) as connection:
        token = erasure_list.load(connection).token("before")
    erasure_list.merge_file(erasure_list.file_beside(backup), {token: 2**62})
    erasure_list.merge_file(erasure_list.file_beside(instance.config.database), {b"d" * 32: 7})
    instance.config.database.unlink()
    restore(instance, backup)
    assert users(instance) == {}
    listed = erasure_list.read_file(erasure_list.file_beside(instance.config.database))
    assert listed == {token: 2**62, b"d" * 32: 7}


def test_it_takes_the_place_once_it_is_on_the_disk(
    backed_up: tuple[Instance, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, backup = backed_up
    with noted(monkeypatch) as happened:
        restore(instance, backup)
    place = happened.index("name activity.db")
    assert happened[:place].count("flush activity.db.making") == 1
    assert happened[place - 1 : place + 2] == ["flush i", "name activity.db", "flush i"]


def test_a_restore_drops_the_verification_of_the_replaced_database(
    backed_up: tuple[Instance, Path],
) -> None:
    instance, backup = backed_up
    instance.cli("verify")
    assert instance.status()["integrity"]["whole"] is True
    restore(instance, backup)
    assert instance.status()["integrity"] is None
    instance.cli("verify")
    assert instance.status()["integrity"]["whole"] is True


@pytest.mark.parametrize("at", ["copying", "verifying"])
def test_interrupted_it_replaces_nothing(backed_up: tuple[Instance, Path], at: str) -> None:
    instance, backup = backed_up
    stop = Stop()
    with database_swap.hold_instance(instance.config):
        plan = restoring.plan(instance.config, backup, None, Stop(), silent)
        with pytest.raises(Interrupted, match="SIGTERM"):
            restoring.restore(instance.config, plan, time.time_ns(), stop, interrupting(stop, at))
    assert users(instance) == {"before": 100, "after": 50}
    assert not list(instance.directory.glob("*.making*"))
    assert not list(instance.directory.glob("*.before-*"))


def test_killed_at_any_step_it_leaves_the_old_database_or_the_new_one_whole(
    backed_up: tuple[Instance, Path],
) -> None:
    instance, backup = backed_up
    shutil.copy(backup, instance.directory / "backup.db")
    old, new = {"before": 100, "after": 50}, {"before": 100}
    seen = []

    def work(bar: Bar) -> None:
        with database_swap.hold_instance(instance.config):
            plan = restoring.plan(
                instance.config, instance.directory / "backup.db", None, Stop(), bar
            )
            restoring.restore(instance.config, plan, time.time_ns(), Stop(), bar)

    for _ in killed_at_each_step(instance.directory, work):
        found = users(instance)
        assert found in (old, new)
        seen.append(found == new)
        for path in instance.directory.glob("activity.db.before-*Z"):
            assert users(instance, path) == old
        with database_swap.hold_instance(instance.config):
            database_swap.remove_leftovers(instance.config)
        kept = list(instance.directory.glob("activity.db.before-*Z"))
        assert len(kept) == (found == new), "one other name for the database is no copy of it"
    assert seen == sorted(seen) and not seen[0] and seen[-1]
    assert len(seen) > 20


@needs_users
def test_a_restore_by_root_keeps_the_databases_owner(backed_up: tuple[Instance, Path]) -> None:
    instance, backup = backed_up
    for path in (instance.directory, instance.config.database):
        os.chown(path, 65534, 65534)
    restore(instance, backup)
    for path in (instance.config.database, instance.config.lock_file):
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534), path
    assert not list(instance.directory.glob("*-wal"))
