"""A backup is verified where it lies, and nothing is put beside it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from logd.errors import EXIT_KEY, EXIT_USAGE
from logd.storage.last_verification import path_of
from tests.logd.trails import back_up, emit
from tests.support.instance import Instance, check_sums


def backup_of(instance: Instance) -> Path:
    instance.start()
    emit(instance, "7", 50)
    backup = back_up(instance)
    emit(instance, "7", 50)
    check_sums(instance.settle(), attempted=100, accepted=100)
    instance.stop()
    return backup


def listing(directory: Path) -> list[tuple[str, int]]:
    return sorted((file.name, file.stat().st_mtime_ns) for file in directory.iterdir())


def test_a_backup_is_verified_where_it_lies(instance: Instance) -> None:
    backup = backup_of(instance)
    before = listing(backup.parent)
    backup.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        said = instance.cli("verify", str(backup), "--processes", "1")
    finally:
        backup.parent.chmod(0o700)
    assert "whole: 50 events" in said
    assert listing(backup.parent) == before
    assert not path_of(instance.config.database).exists()  # it says nothing about the instance


def test_a_changed_backup_is_not_whole(instance: Instance) -> None:
    backup = backup_of(instance)
    with backup.open("r+b") as file:
        file.seek(backup.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    assert "the trail is not whole" in instance.cli("verify", str(backup), code=1)
    backup.write_bytes(b"no database" * 1000)
    assert "cannot be decrypted" in instance.cli("verify", str(backup), code=EXIT_KEY)


def test_an_older_key_can_be_named(instance: Instance, directory: Path) -> None:
    backup, old = backup_of(instance), directory / "old.key"
    shutil.copy(instance.config.key_file, old)
    instance.cli("rekey")
    instance.cli("verify", str(backup), code=EXIT_KEY)
    assert "whole: 50 events" in instance.cli("verify", str(backup), "--key-file", str(old))


def test_what_makes_no_sense_for_a_backup_is_refused(instance: Instance) -> None:
    backup = backup_of(instance)
    for arguments in (
        (str(backup), "--incremental"),
        (str(backup), "--anchor"),
        (str(backup) + ".none",),
        ("--key-file", str(instance.config.key_file)),
    ):
        instance.cli("verify", *arguments, code=EXIT_USAGE)
    backup.with_name(backup.name + "-wal").write_bytes(b"frames")
    assert "not a backup" in instance.cli("verify", str(backup), code=EXIT_USAGE)
