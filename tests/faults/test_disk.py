"""The disk is full, broken or read-only: it is said, shown, and nothing accepted is lost."""

from __future__ import annotations

import contextlib
import errno
import random
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faulty_disk import FaultyDisk, faulty_disk
from tests.faults.places import (
    break_disk,
    breakable_disk,
    fill,
    instance_at,
    mount,
    mounted,
    small_disk,
    unmount,
    wait_until_full,
)
from tests.faults.steady import Steady, check_whole, one_line, status_json
from tests.support.instance import Instance, Process, until
from tests.support.namespaces import needs_root
from tests.support.progress import Progress
from tests.support.tally import Tally


@contextlib.contextmanager
def on_small_disk(directory: Path, *, kib: int) -> Iterator[tuple[Path, Instance, Steady]]:
    """An instance on a disk of its own, and what emits to it."""
    with (
        small_disk(directory / "disk", kib=kib) as disk,
        instance_at(disk / "i") as instance,
        Steady(instance) as steady,
    ):
        yield disk, instance, steady


def ended(daemon: Process) -> tuple[int, str]:
    """The exit code of a daemon that ends by itself, and its last line."""
    until(lambda: daemon.popen.poll() is not None, "the daemon ends")
    code = daemon.end()
    assert not any("Traceback" in line for line in daemon.lines), daemon.lines
    return code, daemon.lines[-1]


# -- full ----------------------------------------------------------------------------------------


@needs_root
def test_a_full_disk_is_reported_and_all_events_are_stored_when_there_is_space(
    directory: Path, tally: Tally
) -> None:
    with on_small_disk(directory, kib=3072) as (disk, instance, steady):
        daemon = instance.start()
        steady.emit_stored(500)
        filler = fill(disk)
        before_ns = time.time_ns()
        steady.emit(5000)
        wait_until_full(instance)
        until(lambda: daemon.says("activity.db: no space left on the device. Free some"), "a line")
        state = status_json(instance)
        assert before_ns < state["trouble"]["since_ns"] < time.time_ns()
        assert (state["stored"], state["pending"]) == (500, 5000)
        first = instance.cli("status").splitlines()[0]
        assert first.startswith("trouble ") and "since" in first and "Free some" in first
        assert steady.confirmed == 500
        check_whole(instance)
        filler.unlink()
        steady.account(tally)
        assert instance.status()["trouble"] is None
        until(lambda: daemon.says("logd: stored again after"), "a line")
        assert instance.stop() == 0


@needs_root
def test_stopped_and_started_on_a_full_disk_it_says_so_with_its_own_code(
    directory: Path, tally: Tally
) -> None:
    with on_small_disk(directory, kib=3072) as (disk, instance, steady):
        instance.configure(stop_timeout_s=1)
        daemon = instance.start()
        steady.emit_stored(500)
        filler = fill(disk)
        steady.emit(5000)
        wait_until_full(instance)
        assert instance.stop() == 75  # what had arrived is not stored
        assert "no space left on the device" in daemon.lines[-1]
        state = instance.status()
        assert state["running_pid"] is None and "no space left" in state["trouble"]["what"]
        assert "no space left on the device" in one_line(instance.cli("run", code=75))
        assert instance.status()["pending"] == 5000
        filler.unlink()
        instance.start()
        steady.account(tally)
        assert instance.status()["trouble"] is None


@needs_root
def test_killed_on_a_full_disk_it_loses_nothing(directory: Path, tally: Tally) -> None:
    with on_small_disk(directory, kib=3072) as (disk, instance, steady):
        instance.start()
        steady.emit_stored(500)
        filler = fill(disk)
        steady.emit(5000)
        wait_until_full(instance)
        instance.kill()
        assert "no space left" in instance.status()["trouble"]["what"]  # what it ended in
        assert "no space left on the device" in one_line(instance.cli("run", code=75))
        filler.unlink()
        instance.start()
        steady.account(tally, kills=1)


def test_a_limit_on_a_files_size_ends_it_with_the_limits_name(
    instance: Instance, tally: Tally
) -> None:
    """Any user can meet this one. The signal that comes with it (SIGXFSZ) kills nobody."""
    limit = 500_000

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with Steady(instance) as steady:
        daemon = instance.start(preexec_fn=limited)
        steady.emit(5000)
        code, line = ended(daemon)
        assert code == 74
        assert f"no file may be over {limit} bytes here (RLIMIT_FSIZE)" in line
        state = instance.status()
        assert "RLIMIT_FSIZE" in state["trouble"]["what"]
        assert state["stored"] + state["pending"] == 5000 and state["pending"] > 0
        assert steady.confirmed <= state["stored"]
        instance.start()
        steady.account(tally)


def test_no_space_for_a_while_ends_nobody(
    instance: Instance, directory: Path, tally: Tally
) -> None:
    """At whichever write it comes: the transaction is tried again from its beginning."""
    with faulty_disk(directory) as disk, Steady(instance) as steady:
        instance.start(env=disk.env)
        for after in (0, 7):
            steady.emit_stored(50)
            disk.fail_writes(errno.ENOSPC, after=after)
            steady.emit(300, text="x" * 200)
            wait_until_full(instance)
            disk.heal()
            steady.emit_stored(1)
        steady.account(tally)
        assert instance.stop() == 0


# -- broken --------------------------------------------------------------------------------------


def broken_write(instance: Instance, disk: FaultyDisk, steady: Steady, seed: int) -> None:
    """The daemon meets a write that fails, ends, and begins again on a disk that is well."""
    daemon = instance.start(env=disk.env)
    steady.emit_stored(100)
    disk.fail_writes(errno.EIO, after=random.Random(seed).randrange(30))
    confirmed = steady.confirmed
    for _ in range(1000):
        if daemon.popen.poll() is not None:
            break
        steady.emit(20)
        time.sleep(0.002)
        confirmed = max(confirmed, steady.confirmed)
    code, line = ended(daemon)
    assert code == 74, f"seed {seed}"
    assert "disk I/O error" in line and "Look at the disk" in line, f"seed {seed}"
    state = instance.status()
    assert "disk I/O error" in state["trouble"]["what"], f"seed {seed}"
    assert disk.writes_failed >= 1
    assert steady.confirmed == confirmed <= state["stored"], f"seed {seed}"
    disk.heal()
    instance.start(env=disk.env)
    instance.settle()


def broken_flush(instance: Instance, disk: FaultyDisk, steady: Steady, seed: int) -> None:
    """A flush fails once and would work the second time: nobody may ask it."""
    daemon = instance.start(env=disk.env)
    steady.emit_stored(100)
    for _ in range(random.Random(seed).randrange(6)):
        steady.emit_stored(10)
    failed_before = disk.flushes_failed
    disk.fail_flushes(errno.EIO, times=1)
    confirmed = steady.confirmed
    steady.emit(1)
    assert steady.flush(0.5) is False, f"seed {seed}"
    code, line = ended(daemon)
    assert code == 74, f"seed {seed}"
    assert "disk I/O error" in line and "Nothing of this commit is confirmed" in line
    assert disk.flushes_failed == failed_before + 1
    assert steady.confirmed == confirmed, f"seed {seed}"
    assert instance.status()["trouble"] is not None
    instance.start(env=disk.env)
    instance.settle()


@pytest.mark.parametrize("seed", range(1))
def test_a_write_that_fails_ends_it_and_nothing_of_it_is_confirmed(
    instance: Instance, directory: Path, tally: Tally, seed: int
) -> None:
    with faulty_disk(directory) as disk, Steady(instance) as steady:
        broken_write(instance, disk, steady, seed)
        steady.account(tally, seeds=1)


@pytest.mark.parametrize("seed", range(2))
def test_a_flush_that_failed_is_never_trusted_when_tried_again(
    instance: Instance, directory: Path, tally: Tally, seed: int
) -> None:
    with faulty_disk(directory) as disk, Steady(instance) as steady:
        broken_flush(instance, disk, steady, seed)
        steady.account(tally, seeds=1)


def test_a_durable_event_whose_flush_failed_is_not_reported_as_stored(
    instance: Instance, directory: Path, tally: Tally
) -> None:
    with faulty_disk(directory) as disk, Steady(instance) as steady:
        daemon = instance.start(env=disk.env)
        assert steady.emit_durable(timeout_s=30) == "stored"
        disk.fail_flushes(errno.EIO, times=1)
        assert steady.emit_durable(timeout_s=0.5) == "unknown"
        assert ended(daemon)[0] == 74
        instance.start(env=disk.env)
        assert steady.flush(30)
        until(lambda: steady.emit(1) and steady.stats["unsettled"] == 0, "the unknown is settled")
        steady.account(tally)
        types = [event["type"] for event in instance.events()]
        assert types.count("durable_unknown") == types.count("durable_settled") == 1


@pytest.mark.long(minutes=2)
def test_fifty_writes_and_fifty_flushes_that_fail_one_after_the_other(
    instance: Instance, directory: Path, tally: Tally, progress: Progress
) -> None:
    with faulty_disk(directory) as disk, Steady(instance) as steady:
        for seed in progress(range(100, 150), "seeds"):
            broken_write(instance, disk, steady, seed)
            instance.kill()
            broken_flush(instance, disk, steady, seed)
            instance.kill()
        instance.start()
        steady.account(tally, seeds=50, kills=100)


def test_a_flush_of_the_database_that_fails_behind_a_commit_ends_it_too(
    instance: Instance, directory: Path, tally: Tally
) -> None:
    """The log goes into the database now and then: SQLite by itself tells nobody how it went."""
    with faulty_disk(directory, "/activity.db") as disk, Steady(instance) as steady:
        daemon = instance.start(env=disk.env)
        steady.emit_stored(100)
        disk.fail_flushes(errno.EIO, times=1)
        while daemon.popen.poll() is None and steady.accepted < 80_000:
            steady.emit(500, text="x" * 1000)
            steady.flush(0.05)
        code, line = ended(daemon)
        assert code == 74 and "disk I/O error" in line
        assert disk.flushes_failed == 1
        instance.start(env=disk.env)
        steady.account(tally)


def test_a_flush_that_fails_at_the_stop_is_reported_and_nothing_of_it_is_missing(
    instance: Instance, directory: Path, tally: Tally
) -> None:
    with faulty_disk(directory, "/activity.db") as disk, Steady(instance) as steady:
        daemon = instance.start(env=disk.env)
        steady.emit_stored(100)
        disk.fail_flushes(errno.EIO)
        assert instance.stop() == 74
        assert "disk I/O error" in daemon.lines[-1]
        disk.heal()
        instance.start(env=disk.env)
        steady.account(tally)


# -- read-only -----------------------------------------------------------------------------------


@needs_root
def test_a_disk_that_turns_read_only_ends_it_and_what_waited_is_stored_once_it_is_mended(
    directory: Path, tally: Tally
) -> None:
    """As the kernel does to an ext4 with an error: `mount -o remount,ro` refuses while it runs."""
    place = directory / "disk"
    with breakable_disk(place), instance_at(place / "i") as instance, Steady(instance) as steady:
        daemon = instance.start()
        steady.emit_stored(200)
        break_disk(place)
        steady.emit(300)
        code, line = ended(daemon)
        assert code == 74
        assert "Read-only file system" in line and "Look at the disk" in line
        state = instance.status()  # a read-only database can be read
        assert (state["stored"], state["pending"], state["running_pid"]) == (200, 300, None)
        assert "Read-only file system" in one_line(instance.cli("run", code=73))
        assert steady.confirmed == 200
        check_whole(instance)
        unmount(place)
        # A copy: a mount namespace of somebody else may still hold the old one, read-only.
        image = shutil.copy(place.with_suffix(".image"), place.with_suffix(".mended"))
        with mounted(place, "-o", "loop", str(image)):
            instance.start()
            steady.account(tally)
            assert instance.stop() == 0


@needs_root
def test_on_a_read_only_disk_it_does_not_start_and_everything_can_still_be_read(
    directory: Path, tally: Tally
) -> None:
    with on_small_disk(directory, kib=16_384) as (disk, instance, steady):
        for stop in (instance.stop, instance.kill):  # with the log in the database, and beside it
            instance.start()
            steady.emit_stored(100)
            stop()
            steady.emit(100)
            mount("-o", "remount,bind,ro", str(disk))
            line = one_line(instance.cli("run", code=73))
            assert "Read-only file system" in line and "how its file system is mounted" in line
            state = instance.status()
            assert (state["stored"], state["pending"]) == (steady.accepted - 100, 100)
            assert len(instance.events()) == steady.accepted - 100
            check_whole(instance)
            mount("-o", "remount,bind,rw", str(disk))
        instance.start()
        steady.account(tally, kills=1)
