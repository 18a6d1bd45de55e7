"""Backups: taken while the daemon runs, whole, encrypted, and never written over another file."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.clock.readings import Reading
from logd.maintenance import backup as backups
from logd.maintenance.backup import DAY_NS, Backup, Keep, expired
from logd.maintenance.database_copy import Interrupted, Stop
from logd.storage import database, erasure_list
from logd.storage.database import connect
from logd.storage.trail_clock import read
from logd_client import Client
from tests.logd.trails import interrupting, noted, silent
from tests.support.instance import Instance, check_sums, emitters, until


def emit(instance: Instance, count: int, mark: str = "7") -> None:
    """Emits that many events; they are on disk on return."""
    with Client(instance.socket) as client:
        assert all(client.emit("page_view", user=mark, props={mark: n}) for n in range(count))
        assert client.flush(20)


def make(instance: Instance, *arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(instance.cli("backup", "--json", *arguments))
    return made


def make_at(instance: Instance, now_ns: int, directory: Path | None = None) -> Backup:
    return backups.backup(instance.config, directory, None, Reading(now_ns, "", 0), Stop(), silent)


def test_a_backup_taken_under_load_is_whole_and_holds_all_that_was_on_the_disk(
    instance: Instance,
) -> None:
    instance.start()
    with emitters(instance, count=2, events=10_000) as running:
        until(lambda: all(e.accepted >= 2000 for e in running), "events")
        with Client(instance.socket) as client:
            for number in range(200):
                assert client.emit("login", user="acknowledged", props={"number": number})
            assert client.flush(20)
            made = make(instance)
        for emitter in running:
            emitter.finish()
        refused = sum(e.refused for e in running)
    with instance.database(Path(made["backup"]), read_only=True) as copy:
        (there,) = copy.execute("SELECT count(*) FROM event WHERE user = 'acknowledged'").fetchone()
        verdict = verify(copy)
    assert (there, verdict.findings, verdict.head) == (200, [], made["head"])
    assert made["events"] == verdict.events
    until(lambda: instance.status()["own"] == 1, "the trail knows of it")
    check_sums(instance.settle(), attempted=20_200 + refused, accepted=20_200, refused=refused)
    instance.cli("verify")


def test_a_backup_is_for_its_owner_alone_and_nothing_of_it_is_readable(instance: Instance) -> None:
    instance.start()
    emit(instance, 300, mark="a-name-nobody-would-find-by-chance")
    made = Path(make(instance)["backup"])
    assert made.stat().st_mode & 0o777 == 0o600
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert b"a-name-nobody" not in made.read_bytes()
    with pytest.raises(Exception, match="the key is not this database's"):
        connect(made, bytes(32), read_only=True)
    assert [path.name for path in made.parent.iterdir()] == [made.name], "and nothing beside it"


def test_a_backup_prints_what_a_restore_needs(instance: Instance) -> None:
    instance.start()
    emit(instance, 10)
    said = instance.cli("backup")
    assert "verified" in said and "events: 10 in" in said
    (path,) = instance.config.backup_directory.iterdir()
    with instance.database(path, read_only=True) as copy:
        (expected,) = copy.execute("SELECT hash FROM batch ORDER BY id DESC").fetchone()
    assert f"head: {expected.hex()}" in said
    assert (
        f"logd restore --config {instance.config.path} {instance.config.backup_directory}" in said
    )


def test_a_backup_is_recorded_in_the_trail_with_its_place(instance: Instance) -> None:
    instance.start()
    emit(instance, 10)
    made = make(instance, "--keep-days", "3")
    until(lambda: instance.status()["own"] == 1, "the event is stored")
    (event,) = instance.events("--type", "trail_backed_up")
    assert event["user"] is None
    assert event["props"] == {
        name: made[name] for name in ("batch", "events", "head", "bytes", "expires_ns")
    } | {"place": made["backup"]}
    assert made["expires_ns"] == made["made_ns"] + 3 * DAY_NS
    with instance.database(read_only=True) as connection:
        rows = connection.execute("SELECT kind, made_ns, expires_ns, place FROM copy").fetchall()
    assert rows == [("backup", made["made_ns"], made["expires_ns"], made["backup"])]


def test_a_backup_without_a_daemon_is_recorded_at_the_next_start(instance: Instance) -> None:
    instance.start()
    emit(instance, 10)
    instance.stop()
    made = make(instance)
    assert (made["unrecorded"], instance.status()["own"]) == (None, 0)
    instance.start()
    until(lambda: instance.status()["own"] == 1, "the event is stored")
    check_sums(instance.settle(), attempted=10, accepted=10)
    instance.cli("verify")


def test_forgotten_persons_are_listed_beside_a_backup_for_the_older_ones_there(
    instance: Instance,
) -> None:
    """The list holds tokens, so that it reveals no name."""
    instance.start()
    emit(instance, 5, mark="somebody")
    old = make_at(instance, time.time_ns() - DAY_NS)
    instance.cli("forget", "somebody", "--yes")
    listed = erasure_list.read_file(erasure_list.file_beside(Path(old.path)))
    assert listed, "at once, not only by the next backup"
    made = Path(make(instance)["backup"])
    instance.stop()
    assert erasure_list.read_file(erasure_list.file_beside(made)) == listed
    with instance.database(made, read_only=True) as copy:
        assert set(listed) == {erasure_list.load(copy).token("somebody")}
    assert b"somebody" not in erasure_list.file_beside(made).read_bytes()
    for path in (instance.config.database, erasure_list.file_beside(instance.config.database)):
        path.unlink()  # the disk with the database is gone
    instance.cli("restore", "--yes", str(old.path))
    assert instance.events("--user", "somebody") == []
    instance.cli("verify")


def test_a_backup_that_could_not_be_recorded_is_valid_and_reported_as_unrecorded(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.start()
    emit(instance, 10)
    instance.stop()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    with instance.database() as other:
        other.execute("BEGIN IMMEDIATE")
        said = instance.cli("backup")
        other.execute("ROLLBACK")
    assert "the backup is good, but it is not noted in the trail" in said
    assert "locked by another program" in said
    (made,) = instance.config.backup_directory.iterdir()
    with instance.database(made, read_only=True) as copy:
        assert verify(copy).findings == []


def test_nothing_is_ever_overwritten(instance: Instance, directory: Path) -> None:
    instance.start()
    file = directory / "mine.db"
    file.write_text("precious")
    assert "is not overwritten" in instance.cli("backup", str(file), code=73)
    assert file.read_text() == "precious"
    assert "is not overwritten" in instance.cli("backup", str(instance.config.database), code=73)
    instance.cli("verify")


def test_a_place_may_be_a_directory_or_a_new_file(instance: Instance, directory: Path) -> None:
    instance.start()
    emit(instance, 5)
    assert make(instance, str(directory / "new.db"))["backup"] == str(directory / "new.db")
    in_directory = Path(make(instance, str(directory))["backup"])
    assert in_directory.parent == directory
    assert re.fullmatch(r"activity-\d{8}T\d{6}Z\.db", in_directory.name)
    assert "cannot be opened" in instance.cli("backup", str(directory / "none" / "x.db"), code=73)
    assert "is not a directory" in instance.cli(
        "backup", "--keep", "2", str(directory / "y.db"), code=2
    )


def test_it_has_its_name_once_it_is_on_the_disk_and_the_name_is_too(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.start()
    emit(instance, 5)
    with instance.database() as connection:
        erasure_list.save(connection, {b"t" * 32: 5})
    with noted(monkeypatch) as happened:
        name = make_at(instance, time.time_ns()).path.name
    steps = [one for one in happened if ".forgotten-" not in one]
    # With the list of forgotten persons first: a backup without it would bring them back.
    assert steps[-5:] == [
        f"flush .{name}.partial",
        "name forgotten", "flush backups",
        f"name {name}", "flush backups",
    ]  # fmt: skip


# -- when it cannot be finished


@pytest.mark.parametrize("at", ["copying", "verifying"])
def test_an_interrupted_backup_leaves_nothing_behind(instance: Instance, at: str) -> None:
    instance.start()
    emit(instance, 3000)
    instance.stop()
    stop = Stop()
    with pytest.raises(Interrupted, match="SIGTERM"):
        backups.backup(instance.config, None, None, read(), stop, interrupting(stop, at))
    assert list(instance.config.backup_directory.iterdir()) == []


def test_a_trail_that_is_not_whole_makes_no_backup_and_removes_none(instance: Instance) -> None:
    instance.start()
    emit(instance, 50)
    instance.stop()
    good = make_at(instance, time.time_ns() - DAY_NS).path
    with instance.database() as connection:
        connection.execute("UPDATE event SET user = 'mallory' WHERE id = 30")
    said = instance.cli("backup", "--keep", "1", str(instance.config.backup_directory), code=1)
    assert "not whole" in said and "an event was changed" in said
    assert list(instance.config.backup_directory.iterdir()) == [good]


def test_without_space_a_backup_reports_how_much_it_needs(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.start()
    emit(instance, 5)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))
    said = instance.cli("backup", code=75)
    assert "4,096 are free" in said
    assert list(instance.config.backup_directory.iterdir()) == []


def test_what_a_killed_one_left_is_removed_by_the_next(instance: Instance) -> None:
    instance.start()
    emit(instance, 5)
    place = instance.config.backup_directory
    place.mkdir()
    (place / ".activity-20200101T000000Z.db.partial").write_bytes(b"half")
    (place / ".activity-20200101T000000Z.db.partial-journal").write_bytes(b"half")
    made = Path(make(instance)["backup"])
    assert list(place.iterdir()) == [made]


def test_two_at_a_time_in_one_directory_do_not_disturb_each_other(instance: Instance) -> None:
    instance.start()
    emit(instance, 5)
    place = instance.config.backup_directory
    place.mkdir()
    unfinished = place / ".activity-20200101T000000Z.db.partial"
    unfinished.write_bytes(b"half")
    fd = os.open(place, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert "another backup is being written there" in instance.cli("backup", code=75)
    assert unfinished.exists()
    os.close(fd)
    make(instance)
    assert not unfinished.exists()


def test_before_there_is_a_trail_there_is_nothing_to_back_up(instance: Instance) -> None:
    assert "no database here yet" in instance.cli("backup", code=73)
    assert not instance.config.backup_directory.exists()


# -- the end of old ones


NAMES = [f"activity-2026010{day}T000000Z.db" for day in range(1, 7)]
OTHERS = [
    "activity.db", "activity-20260101.db", "activity-20260101T000000Z.db.gpg", "notes.txt",
    "other-20260101T000000Z.db", "forgotten", ".activity-20260101T000000Z.db.partial",
]  # fmt: skip
JAN_6_NS = 1_767_657_600 * 10**9


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (Keep(), []),
        (Keep(count=6), []),
        (Keep(count=4), NAMES[:2]),
        (Keep(count=1), NAMES[:5]),
        (Keep(days=5), []),
        (Keep(days=3), NAMES[:2]),
        (Keep(days=1), NAMES[:4]),
    ],
)
def test_the_oldest_backups_expire_by_count_or_by_days(keep: Keep, gone: list[str]) -> None:
    names = sorted(NAMES + OTHERS, key=hash)
    assert expired(names, Path("activity.db"), NAMES[5], keep, JAN_6_NS) == gone


def test_the_newest_backup_stays_whatever_the_clock() -> None:
    for keep in (Keep(count=1), Keep(days=1)):
        assert NAMES[0] not in expired(NAMES, Path("activity.db"), NAMES[0], keep, 10**19)


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (Keep(days=1), NAMES[:4]),
        (Keep(days=1, least=4), NAMES[:2]),
        (Keep(days=1, least=6), []),
        (Keep(count=2), NAMES[:4]),
    ],
)
def test_one_named_after_a_time_to_come_takes_no_others_place_and_stays(
    keep: Keep, gone: list[str]
) -> None:
    """A backup made with a clock that was ahead would be the newest for years."""
    names = [*NAMES, "activity-20280101T000000Z.db", "activity-20290101T000000Z.db"]
    assert expired(names, Path("activity.db"), NAMES[5], keep, JAN_6_NS) == gone


def test_old_ones_end_by_the_configuration_and_the_trail_knows(instance: Instance) -> None:
    instance.configure(backup_keep_days=2)
    instance.start()
    emit(instance, 5)
    place = instance.config.backup_directory
    old, newer = [make_at(instance, time.time_ns() - days * DAY_NS) for days in (5, 4)]
    (place / "notes.txt").write_text("mine")
    directory = backups.backup_name(instance.config.database, time.time_ns() - 3 * DAY_NS)
    (place / directory).mkdir()  # named so, and no backup: it takes no place among the newest
    made = make(instance)
    assert made["removed"] == [old.path.name], "the newest two stay, however old"
    assert sorted(path.name for path in place.iterdir()) == sorted(
        [Path(made["backup"]).name, newer.path.name, "notes.txt", directory]
    )
    with instance.database(read_only=True) as connection:
        rows = connection.execute("SELECT place FROM copy ORDER BY id").fetchall()
    assert rows == [(str(newer.path),), (made["backup"],)]


def test_backups_of_one_second_by_a_clock_of_1970_are_all_made(instance: Instance) -> None:
    instance.start()
    emit(instance, 5)
    made = [make_at(instance, 0) for _ in range(3)]
    assert [one.path.is_file() for one in made] == [True] * 3
    today = backups.backup_name(instance.config.database, time.time_ns() - 3600 * 10**9)
    assert all(one.path.name > today for one in made), "and named after the time that it is"


def test_in_a_directory_one_names_nothing_is_removed_unless_asked(
    instance: Instance, directory: Path
) -> None:
    instance.configure(backup_keep_days=1)
    instance.start()
    emit(instance, 5)
    old = directory / "activity-20200101T000000Z.db"
    old.write_bytes(b"of years ago")
    newer = make_at(instance, time.time_ns() - DAY_NS, directory)
    assert newer.removed == ()
    assert make(instance, "--keep", "1", str(directory))["removed"] == [old.name, newer.path.name]
    assert not old.exists()


def test_to_keep_by_count_and_by_days_is_asked_one_at_a_time(instance: Instance) -> None:
    assert "not both" in instance.cli("backup", "--keep", "1", "--keep-days", "1", code=2)
