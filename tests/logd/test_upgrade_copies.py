"""Copies of a trail from before the Merkle tree, and of the trail since, replace one another."""

from __future__ import annotations

import shutil

import pytest

from logd.storage import keyfile
from logd.storage.database import connect
from tests.logd.chained_trail import TREE, make, some
from tests.logd.trails import emit, restore
from tests.support.instance import Instance, check_sums


def lay(instance: Instance, schema: int) -> int:
    """Puts a trail of that schema in place, with the anchors that its daemon has logged.

    Returns how many events it has accepted.
    """
    anchors, _end = make(instance.config.database, schema, keyfile.read(instance.config.key_file))
    lines = [
        f"anchor batch={one.head.batch} events={one.head.events} head={one.head.hash.hex()}\n"
        for one in anchors
    ]
    (instance.directory / "anchors.log").write_text("".join(lines))
    with instance.database(read_only=True) as connection:
        (accepted,) = connection.execute(
            "SELECT sum(value) FROM counter WHERE name IN ('stored', 'lost', 'lost_claimed')"
        ).fetchone()
    return int(accepted)


def run_and_emit(instance: Instance, count: int) -> None:
    """Runs the daemon for some events; its anchors are added to the others."""
    daemon = instance.start()
    emit(instance, "new", count)
    instance.stop()
    with open(instance.directory / "anchors.log", "a") as log:
        log.write("\n".join(daemon.lines) + "\n")


def match_anchors(instance: Instance) -> str:
    return instance.cli("verify", "--anchors", str(instance.directory / "anchors.log"))


@pytest.mark.parametrize("schema", some(1, 3, 8, TREE))
def test_a_backup_from_before_is_verified_where_it_lies_by_its_chain(
    schema: int, instance: Instance
) -> None:
    lay(instance, schema)
    backup = instance.directory / "old.db"
    shutil.move(instance.config.database, backup)
    before = backup.read_bytes()
    said = instance.cli("verify", str(backup))
    assert "whole" in said
    assert backup.read_bytes() == before
    assert [path.name for path in instance.directory.glob("old.db*")] == ["old.db"]
    connection = connect(backup, keyfile.read(instance.config.key_file))
    connection.execute("UPDATE batch SET hash = zeroblob(32) WHERE id = 77")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    said = instance.cli("verify", str(backup), code=1)
    assert "batch 77 (" in said and "does not follow from the batch before it" in said


@pytest.mark.parametrize("schema", some(1, TREE))
def test_an_old_backup_restored_over_the_migrated_trail_matches_all_anchors(
    schema: int, instance: Instance
) -> None:
    before = lay(instance, schema)
    old = instance.directory / "old.db"
    shutil.copy(instance.config.database, old)
    run_and_emit(instance, 30)
    assert "root=" in (instance.directory / "anchors.log").read_text()
    match_anchors(instance)
    restore(instance, old)
    assert "anchors are of batches that it took away" in match_anchors(instance)
    run_and_emit(instance, 20)
    match_anchors(instance)
    check_sums(instance.status(), attempted=before + 50, accepted=before + 50)


@pytest.mark.parametrize("schema", some(1, TREE))
def test_a_new_backup_restored_over_an_old_trail_matches_all_anchors(
    schema: int, instance: Instance
) -> None:
    """The old file was put back by hand, say, and no newer daemon has opened it yet."""
    before = lay(instance, schema)
    old, new = instance.directory / "old.db", instance.directory / "new.db"
    shutil.copy(instance.config.database, old)
    run_and_emit(instance, 30)
    instance.cli("backup", str(new))
    for end in ("", "-wal", "-shm"):
        instance.config.database.with_name(f"activity.db{end}").unlink(missing_ok=True)
    shutil.copy(old, instance.config.database)
    restore(instance, new)
    match_anchors(instance)
    run_and_emit(instance, 20)
    match_anchors(instance)
    check_sums(instance.status(), attempted=before + 50, accepted=before + 50)
