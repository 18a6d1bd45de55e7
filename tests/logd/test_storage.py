"""Failures of the database: nothing is confirmed that is not on disk, and logd reports why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from logd.storage.database import connect
from logd.storage.store import Store
from tests.faults.faulty_disk import faulty_disk
from tests.support.instance import Instance, Process, check_sums, emitters, until


def test_rule_7_a_failed_flush_ends_the_daemon_and_confirms_nothing(
    instance: Instance, directory: Path
) -> None:
    with faulty_disk(directory) as disk:
        daemon = instance.start(env=disk.env)
        with emitters(instance, count=1, events=50) as (emitter,):
            emitter.finish()
        until(lambda: instance.status()["stored"] == 50, "stored")
        disk.fail_flushes()
        with emitters(instance, count=1, events=100) as (emitter,):
            until(lambda: daemon.popen.poll() is not None, "the daemon ends")
            assert daemon.popen.returncode == 74
            assert any("Nothing of this commit is confirmed" in line for line in daemon.lines)
            assert not any("Traceback" in line for line in daemon.lines)
            emitter.finish()
        instance.start()  # the disk is well again
        status = instance.settle()
    check_sums(status, attempted=150 + emitter.refused, accepted=150, refused=emitter.refused)
    assert status["stored"] == 150
    instance.cli("verify")


def test_rule_7_a_start_that_cannot_flush_confirms_nothing(
    instance: Instance, directory: Path
) -> None:
    """What a killed predecessor left in its WAL is visible, and perhaps not on the disk."""
    instance.start()
    with emitters(instance, count=1, events=50) as (emitter,):
        emitter.finish()
    instance.kill()
    with faulty_disk(directory) as disk:
        disk.fail_flushes()
        daemon = Process("-m", "logd", "run", "--config", str(instance.config.path), env=disk.env)
        try:
            assert daemon.popen.wait(30) == 74
            daemon.end()
            assert not any("ready" in line or "Traceback" in line for line in daemon.lines)
        finally:
            daemon.close()
    instance.start()
    status = instance.settle()
    check_sums(status, attempted=50 + emitter.refused, accepted=50, refused=emitter.refused)


def test_a_wrong_key_is_reported_and_changes_nothing(instance: Instance) -> None:
    instance.start()
    instance.stop()
    before = instance.config.database.read_bytes()
    instance.config.key_file.write_text("ab" * 32 + "\n")
    for command in ("run", "status", "query", "tail", "verify"):
        assert "the key is not this database's" in instance.cli(command, code=77)
    assert instance.config.database.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.chmod(0o644), "open to others (mode 0644)"),
        (lambda path: path.write_text("secret\n"), "64 hexadecimal digits"),
    ],
)
def test_an_unusable_key_file_is_reported_by_name(
    instance: Instance, damage: Callable[[Path], object], message: str
) -> None:
    damage(instance.config.key_file)
    said = instance.cli("run", code=77)
    assert message in said
    assert "logd.key" in said


def test_a_damaged_database_is_reported_and_confirms_nothing(instance: Instance) -> None:
    instance.start()
    with emitters(instance, count=1, events=2000) as (emitter,):
        emitter.finish()
    instance.settle()
    instance.stop()
    database = instance.config.database
    data = bytearray(database.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8192] = os.urandom(8192)
    database.write_bytes(data)
    said = instance.cli("verify", code=1)
    assert "page" in said and "not whole" in said


def test_an_empty_or_foreign_file_is_refused_as_a_database(instance: Instance) -> None:
    instance.config.database.write_bytes(b"not a database, certainly not" * 500)
    assert "damaged" in instance.cli("run", code=77)
    assert "damaged" in instance.cli("status", code=77)


def test_a_newer_schema_is_refused_and_left_alone(instance: Instance) -> None:
    instance.start()
    instance.stop()
    with instance.database() as connection:
        connection.execute("INSERT INTO migration VALUES (99, 'from the future', 1)")
    for command in ("run", "status", "query"):
        assert "Install the newer logd" in instance.cli(command, code=65)


def test_a_migration_and_its_record_are_one_transaction(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from logd.storage import migrations

    key = os.urandom(32)
    Store(directory / "a.db", key, 1, 10).close()
    broken = [*migrations.MIGRATIONS, ("broken", "CREATE TABLE half (a); CREATE TABLE half (a)")]
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    with pytest.raises(Exception, match="half"):
        Store(directory / "a.db", key, 1, 10)
    connection = connect(directory / "a.db", key)
    version = len(broken) - 1
    assert connection.execute("SELECT max(version) FROM migration").fetchone() == (version,)
    assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchall()
    connection.close()
    monkeypatch.setattr(migrations, "MIGRATIONS", [*broken[:-1], ("good", "CREATE TABLE half (a)")])
    store = Store(directory / "a.db", key, 1, 10)
    assert store.schema == version + 1
    store.close()


def test_after_a_new_boot_producers_without_a_farewell_have_a_row_tail_unknown(
    instance: Instance,
) -> None:
    instance.start()
    with emitters(instance, count=1, events=10) as (emitter,):
        emitter.finish()
    instance.settle()
    until(lambda: instance.status()["outboxes"] == 0, "its end is stored")
    instance.stop()
    with instance.database() as connection:
        connection.execute("UPDATE producer SET boot_id = 'an earlier boot'")
        connection.execute(
            "INSERT INTO producer VALUES (99, 0, '00000000000000ff', 7, 1, 0, 'an earlier boot',"
            " 1, 1, 1)"
        )
    instance.start()
    status = instance.settle()
    assert (status["unknown_extent"], status["lost"], status["stored"]) == (1, 0, 10)
    instance.stop()
    instance.start()
    assert instance.status()["unknown_extent"] == 1  # booked once
    instance.cli("verify")
