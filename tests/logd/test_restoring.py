"""A restore replaces the database atomically and records it in the trail."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.audit.verify import verify
from logd.batch import LOST_CLAIMED, LOST_NOT_RECEIVED, LOST_RESTORED, Batch
from logd.clock.readings import Reading
from logd.maintenance import backup as backups
from logd.maintenance import database_swap
from logd.maintenance import restore as restoring
from logd.maintenance.database_copy import Bar, Interrupted, Stop
from logd.storage import erasure_list, keyfile
from logd.storage.database import connect
from logd.storage.migrations import MIGRATIONS
from logd.storage.store import Store
from logd_client import Client
from logd_wire.outbox.layout import RING_BYTES_MIN
from tests.logd.killing import killed_at_each_step
from tests.logd.trails import emit, interrupting, noted, silent, users
from tests.support.instance import Instance, check_sums, emitters, short_directory, until
from tests.support.namespaces import needs_users


def back_up(instance: Instance) -> Path:
    made = json.loads(instance.cli("backup", "--json"))
    until(lambda: instance.status()["own"] >= 1, "the trail says so")
    return Path(made["backup"])


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """The files of an instance with 100 events, a backup of them, and 50 more; not running."""
    directory = short_directory()
    instance = Instance(directory / "i")
    try:
        instance.start()
        emit(instance, "before", 100)
        back_up(instance)
        emit(instance, "after", 50)
        instance.stop()
        yield instance.directory
    finally:
        instance.close()
        shutil.rmtree(directory)


@pytest.fixture
def backed_up(original: Path, instance: Instance) -> tuple[Instance, Path]:
    """A copy of it, and its backup."""
    shutil.copytree(original, instance.directory, dirs_exist_ok=True)
    (backup,) = instance.config.backup_directory.glob("*.db")
    return instance, backup


def restore(instance: Instance, backup: Path, *arguments: str, code: int = 0) -> str:
    return instance.cli("restore", str(backup), "--yes", *arguments, code=code)


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
        rows = connection.execute("SELECT id, hash FROM batch ORDER BY id").fetchall()
    before = instance.status()
    restore(instance, backup)
    (event,) = instance.events("--type", "trail_restored")
    props = event["props"]
    assert (props["replaced_batch"], props["replaced_head"]) == (rows[-1][0], rows[-1][1].hex())
    at = props["backup_batch"]
    assert props["backup_head"] == dict(rows)[at].hex()
    assert (props["backup_events"], props["replaced_events"]) == (100, before["stored"])
    assert props["kept"] == next(instance.directory.glob("activity.db.before-*Z")).name
    assert event["user"] is None
    instance.start()
    status = instance.settle()
    check_sums(status, attempted=150, accepted=150)
    assert status["losses_by_cause"]["restored"]["events"] == 50
    assert status["unknown_extent"] == 0


def test_what_outboxes_hold_is_stored_again_and_the_rest_is_in_the_ledger(
    instance: Instance,
) -> None:
    instance.start()
    with Client(instance.socket) as client:
        for n in range(100):
            assert client.emit("page_view", user="long-lived", props={"n": n})
        assert client.flush(20)
        backup = back_up(instance)
        for n in range(50):
            assert client.emit("page_view", user="long-lived", props={"n": n})
        assert client.flush(20)
        instance.stop()
        restore(instance, backup)
        instance.start()
        assert client.emit("page_view", user="long-lived", durable=True)
    status = instance.settle()
    check_sums(status, attempted=151, accepted=151)
    assert status["stored"] - status["own"] + status["lost"] == 151
    assert status["lost_claimed"] == 0
    instance.cli("verify")


def test_what_no_ring_holds_any_more_is_restored_by_the_word_of_the_replaced_database(
    instance: Instance,
) -> None:
    """Without that word it is only claimed: see rule 9 in test_rules.py."""
    instance.start()
    with Client(instance.socket, outbox_bytes=RING_BYTES_MIN) as client:
        assert client.emit("page_view", durable=True)
        backup = back_up(instance)
        for n in range(3000):
            while not client.emit("page_view", props={"n": n}):
                time.sleep(0.001)
        assert client.flush(20)
        attempted = client.stats()["attempted"]
        instance.stop()
        restore(instance, backup)
        instance.start()
        assert client.emit("page_view", durable=True)
    status = instance.settle()
    check_sums(status, attempted=attempted + 1, accepted=3002, refused=attempted - 3001)
    assert status["lost"] == status["losses_by_cause"]["restored"]["events"] > 500
    assert (status["lost_claimed"], status["unknown_extent"]) == (0, 0)
    instance.cli("verify")


def test_what_was_only_claimed_before_a_restore_is_only_claimed_after_it(tmp_path: Path) -> None:
    key = bytes(32)
    stores = [Store(tmp_path / name, key, 1, 10) for name in ("replaced", "backup")]
    batch = Batch(100, 10**6)
    for producer_id in (1, 2):
        producer = stores[0].producer(1000, producer_id)
        producer.has_outbox = producer_id == 1
        batch.add_loss(producer, 1, 5, LOST_NOT_RECEIVED)
        batch.add_loss(producer, 6, 1_000_000, LOST_CLAIMED)
        producer.taken = 1_000_000
    stores[0].commit(batch, 1)
    replaced, backup = (store.connection for store in stores)
    streams = list(restoring._advanced_producers(replaced, backup))
    assert [(one.id, one.watermark, one.known) for one in streams] == [
        (1, 1_000_000, 5),
        (2, 1_000_000, 5),
    ]
    losses = Batch(0, 0)
    for one in streams:
        restoring._record_losses(stores[1], losses, one)
    assert [(one.first, one.last, one.cause) for one in losses.losses] == [
        (1, 5, LOST_RESTORED),
        (6, 1_000_000, LOST_CLAIMED),
    ]
    backup.execute("INSERT INTO replaced VALUES (1000, ?, 7)", (f"{3:016x}",))
    backup.execute("INSERT INTO replaced VALUES (1000, ?, 9)", (f"{1:016x}",))
    assert stores[1].producer(1000, 1).replaced == 0, "it was never heard of here"
    stores[1].commit(losses, 1)
    assert stores[1].producer(1000, 1).replaced == 9
    for store in stores:
        store.close()


def test_restored_under_load_every_number_adds_up(instance: Instance) -> None:
    """Emitters go on through backup, stop, restore and start: their outboxes keep what comes."""
    instance.start()
    with emitters(instance, count=2, events=6000) as running:
        until(lambda: all(e.accepted >= 500 for e in running), "events")
        backup = back_up(instance)
        until(lambda: all(e.accepted >= 2000 for e in running), "more events")
        instance.stop()
        restore(instance, backup)
        instance.start()
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
    status = instance.settle()
    check_sums(status, attempted=12_000 + refused, accepted=12_000, refused=refused)
    assert status["stored"] - status["own"] + status["lost"] + status["lost_claimed"] == 12_000
    instance.cli("verify")


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
    instance: Instance, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.logd.test_blocks import made_up, of_schema_1

    key = keyfile.read(instance.config.key_file)
    events = [next(made_up(seed)) for seed in range(200)]
    of_schema_1(directory / "old.db", key, events, monkeypatch)
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
