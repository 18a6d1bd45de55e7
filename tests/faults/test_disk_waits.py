"""The disk is slow, or another program holds the database: nobody waits for it who need not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logd.errors import StorageBusy
from logd.storage import database, keyfile
from logd.storage.database import connect
from logd.storage.store import Store
from tests.faults.faulty_disk import faulty_disk
from tests.faults.steady import Steady, one_line
from tests.support.instance import Instance, until
from tests.support.tally import Tally

# -- slow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flush_ms", [80, pytest.param(2000, marks=pytest.mark.long(minutes=0.2))])
def test_a_slow_disk_makes_larger_batches_and_no_request_notices(
    instance: Instance, directory: Path, tally: Tally, flush_ms: int
) -> None:
    with faulty_disk(directory) as disk, Steady(instance) as steady:
        daemon = instance.start(env=disk.env)
        disk.slow_flushes(flush_ms)
        flushes = disk.flushes
        begin_s = time.monotonic()
        assert steady.emit(4000) == 4000
        took_s = time.monotonic() - begin_s
        # While it emitted, the disk had not the time for a flush every other event.
        assert disk.flushes - flushes <= took_s * 1000 / flush_ms + 1
        until(lambda: disk.flushes > flushes, "the first flush")
        steady.emit(1000)
        begin_s = time.monotonic()
        assert instance.stop() == 0
        assert time.monotonic() - begin_s < instance.config.stop_timeout_s + 2
        assert daemon.lines[-1] == "logd: stopped"
        state = instance.status()
        assert state["stored"] + state["pending"] == 5000
        assert state["stored"] / state["commits"] > 50
        instance.start()
        steady.account(tally)


# -- locked --------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(instance: Instance, *before: str) -> Iterator[None]:
    """Another program, which has executed the statements `before`, locks the database."""
    other = connect(instance.config.database, keyfile.read(instance.config.key_file))
    try:
        for statement in (*before, "BEGIN EXCLUSIVE"):
            other.execute(statement)
        yield
    finally:
        other.close()


def test_a_database_locked_by_another_program_is_reported_and_waited_for(
    instance: Instance, tally: Tally
) -> None:
    with Steady(instance) as steady:
        daemon = instance.start()
        steady.emit_stored(100)
        with locked(instance):
            steady.emit(200)
            until(lambda: instance.status()["trouble"], "status shows it")
            until(lambda: daemon.says("activity.db: locked by another program"), "a line")
            state = instance.status()
            assert "locked by another program" in state["trouble"]["what"]
            assert (state["stored"], state["pending"], state["lost"]) == (100, 200, 0)
            assert steady.confirmed == 100
        steady.account(tally)
        assert instance.status()["trouble"] is None
        assert instance.stop() == 0


def test_stopped_while_it_is_locked_it_keeps_to_its_time_and_says_what_waits(
    instance: Instance, tally: Tally
) -> None:
    instance.configure(stop_timeout_s=2)
    with Steady(instance) as steady:
        daemon = instance.start()
        steady.emit_stored(100)
        with locked(instance):
            steady.emit(200)
            until(lambda: instance.status()["trouble"], "status shows it")
            begin_s = time.monotonic()
            assert instance.stop() == 75
            assert time.monotonic() - begin_s < 2 + 4
            assert "locked by another program" in daemon.lines[-1]
            assert "locked by another program" in instance.status()["trouble"]["what"]
        instance.start()
        steady.account(tally)


def test_locked_at_the_start_it_says_so_at_once_and_ends_with_its_own_code(
    instance: Instance, tally: Tally
) -> None:
    with Steady(instance) as steady:
        instance.start()
        steady.emit_stored(100)
        assert instance.stop() == 0
        steady.emit(50)
        # Each waits a while for the lock to go, so they wait at once.
        with locked(instance, "PRAGMA locking_mode = EXCLUSIVE"), ThreadPoolExecutor() as at_once:
            said = at_once.map(lambda name: instance.cli(name, code=75), ("run", "status"))
            for line in said:
                assert "locked by another program" in one_line(line)
        instance.start()
        steady.account(tally)


def test_what_a_killed_predecessor_left_is_not_confirmed_while_another_program_holds_it(
    instance: Instance, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log it is visible, and perhaps not on the disk: that must be flushed first."""
    with Steady(instance) as steady:
        instance.start()
        steady.emit_stored(100)
        instance.kill()
        key = keyfile.read(instance.config.key_file)
        with locked(instance):
            monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
            with pytest.raises(StorageBusy, match="another program reads or locks it"):
                Store(instance.config.database, key, 1, 10)
        assert StorageBusy.exit_code == 75
        instance.start()
        steady.account(tally, kills=1)
