"""Files of the instance are cut, overwritten, torn, or the key is not there: it is said by name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from logd.errors import DatabaseDamaged, LogdError
from logd.storage.opening import open_for_reading
from tests.faults.steady import Steady, one_line
from tests.faults.torn import Killed, tear
from tests.support.instance import Instance, until
from tests.support.progress import Progress
from tests.support.tally import Tally

PAGE = 4096


class Backup:
    """The database as it was at a clean stop, to be put back when the fault is over."""

    def __init__(self, instance: Instance) -> None:
        self._file = instance.config.database
        self.data = self._file.read_bytes()

    def put_back(self) -> None:
        for name in (self._file.name + "-wal", self._file.name + "-shm"):
            self._file.with_name(name).unlink(missing_ok=True)
        self._file.write_bytes(self.data)


def stored_and_stopped(instance: Instance, steady: Steady) -> Backup:
    """An instance with 2,000 stored events, stopped, and 100 more that wait."""
    instance.start()
    steady.emit_stored(2000)
    assert instance.stop() == 0
    steady.emit(100)
    return Backup(instance)


def refused_status(instance: Instance, code: int) -> str:
    """The line that `logd status` says instead of the sums, by its exit code."""
    with pytest.raises(LogdError) as caught:
        instance.status()
    assert caught.value.exit_code == code
    return f"logd: {caught.value}"


# -- the database --------------------------------------------------------------------------------


def test_a_database_cut_short_while_it_was_stopped_is_not_taken_for_one(
    instance: Instance, tally: Tally
) -> None:
    with Steady(instance) as steady:
        backup = stored_and_stopped(instance, steady)
        length = len(backup.data)
        for keep, code, said in (
            (0, 65, "is empty or gone"),
            (100, 77, "the key is not this database's, or the file is damaged"),
            (PAGE, 65, "the database is damaged"),
            (length // 2 + 77, 65, "the database is damaged"),
            (length - PAGE, 65, "the database is damaged"),
        ):
            instance.config.database.write_bytes(backup.data[:keep])
            assert said in one_line(instance.cli("run", code=code)), keep
            assert refused_status(instance, code) == one_line(instance.cli("status", code=code))
            assert instance.config.database.stat().st_size == keep  # nothing was done to it
            assert steady.confirmed == 2000
            backup.put_back()
        instance.start()
        steady.account(tally)


def test_a_database_that_is_gone_is_no_reason_to_begin_a_new_trail(
    instance: Instance, tally: Tally
) -> None:
    """Unless somebody says so, by removing the lock file too."""
    with Steady(instance) as steady:
        backup = stored_and_stopped(instance, steady)
        database = instance.config.database
        database.unlink()
        line = one_line(instance.cli("run", code=65))
        assert "is empty or gone" in line and "activity.db.lock" in line
        assert refused_status(instance, 65) == line
        assert not database.exists()
        backup.put_back()
        instance.start()
        steady.account(tally)
    instance.stop()
    database.unlink()
    instance.config.lock_file.unlink()
    assert instance.status()["stored"] == 0
    instance.start()
    assert instance.status()["commits"] == 0


@pytest.mark.parametrize("seed", range(1))
def test_a_database_overwritten_while_it_was_stopped_confirms_nothing_false(
    instance: Instance, tally: Tally, seed: int
) -> None:
    """What it does not read it cannot know to be damaged: then `logd verify` tells."""
    chosen = random.Random(seed)
    with Steady(instance) as steady:
        backup = stored_and_stopped(instance, steady)
        damaged = bytearray(backup.data)
        at = chosen.randrange(PAGE, len(damaged) - 3 * PAGE)
        damaged[at : at + 2 * PAGE] = chosen.randbytes(2 * PAGE)
        instance.config.database.write_bytes(damaged)
        code, words = (1, "page") if opens(instance) else (65, "the database is damaged")
        assert words in instance.cli("verify", code=code), f"seed {seed}"
        assert steady.confirmed == 2000
        backup.put_back()
        instance.start()
        steady.account(tally, seeds=1)


def opens(instance: Instance) -> bool:
    """Whether what is read at the opening is undamaged."""
    try:
        open_for_reading(instance.config).close()
    except DatabaseDamaged:
        return False
    return True


@pytest.mark.parametrize("damage", ["overwritten in the middle", "emptied"])
def test_a_database_damaged_under_a_daemon_ends_it_when_it_reads_there(
    instance: Instance, tally: Tally, damage: str
) -> None:
    with Steady(instance) as steady:
        instance.start()
        steady.emit_stored(2000)
        assert instance.stop() == 0
        backup = Backup(instance)
        daemon = instance.start()
        spoil(instance.config.database, damage)
        steady.emit(100)
        until(lambda: daemon.popen.poll() is not None, "it ends")
        assert daemon.end() == 65
        assert "the database is damaged" in daemon.lines[-1]
        assert not any("Traceback" in line for line in daemon.lines)
        if damage == "overwritten in the middle":
            # The daemon may store into pages that are whole before it reads one that is not.
            assert steady.confirmed in (2000, 2100)
        else:
            assert steady.confirmed == 2000
        if damage == "emptied":
            assert "is empty or gone" in refused_status(instance, 65)
        backup.put_back()
        assert "the database is damaged" in instance.status()["trouble"]["what"]
        instance.start()
        steady.account(tally)


def test_what_a_daemon_confirmed_into_a_damaged_database_is_read_again_from_the_outboxes(
    instance: Instance, tally: Tally
) -> None:
    """What it has in memory it does not read, so it may go on for a while."""
    with Steady(instance) as steady:
        instance.start()
        steady.emit_stored(1000)
        assert instance.stop() == 0
        backup = Backup(instance)
        instance.start()
        steady.emit_stored(500)
        spoil(instance.config.database, "overwritten in the middle")
        steady.emit(500)
        steady.flush(0.5)
        instance.kill()
        backup.put_back()
        instance.start()
        steady.account(tally, kills=1)


def spoil(database: Path, damage: str) -> None:
    """Damages the file in one of three ways."""
    length = database.stat().st_size
    with open(database, "r+b") as file:
        if damage == "overwritten in the middle":
            file.seek(length // 4)
            file.write(random.Random(1).randbytes(length // 2))
        else:
            file.truncate(0 if damage == "emptied" else length // 2 // PAGE * PAGE)


# -- the log -------------------------------------------------------------------------------------


@pytest.fixture
def killed(instance: Instance, directory: Path) -> Killed:
    """Files and outboxes as a daemon leaves them that was killed with -9."""
    return Killed(instance, directory / "keep")


def test_whatever_byte_a_log_is_torn_at_each_event_is_stored_or_in_the_ledger_once(
    killed: Killed, tally: Tally
) -> None:
    """What outboxes confirm and the log lost is read from the ring, or booked as claimed."""
    assert killed.check(killed.log, tally, seed=-1) == (killed.accepted, 0)  # an undamaged one
    kept, lost = killed.check(b"", tally, seed=-2)
    # The rings hold what waits and a good deal of what was confirmed, but not all of it.
    assert kept >= 3 * 200 and lost >= 3 * 100
    stored = {killed.check(tear(killed.log, seed), tally, seed)[0] for seed in range(24)}
    assert len(stored) > 5, "the tears were all alike"


@pytest.mark.long(minutes=2)
def test_a_log_torn_at_800_other_places(killed: Killed, tally: Tally, progress: Progress) -> None:
    for seed in progress(range(1000, 1800), "tears"):
        killed.check(tear(killed.log, seed), tally, seed)


# -- the key -------------------------------------------------------------------------------------


def test_without_its_key_nothing_starts_and_what_waits_is_stored_once_it_is_back(
    instance: Instance, tally: Tally
) -> None:
    with Steady(instance) as steady:
        backup = stored_and_stopped(instance, steady)
        key = instance.config.key_file
        before = key.read_text()
        for text, mode, said in (
            (None, 0, "the key cannot be read: No such file"),
            (before, 0o640, "the key is open to others (mode 0640)"),
            ("ab" * 32, 0o600, "the key is not this database's"),
            ("ab" * 31, 0o600, "expected 64 hexadecimal digits"),
        ):
            if text is None:
                key.unlink()
            else:
                key.write_text(text)
                key.chmod(mode)
            assert said in one_line(instance.cli("run", code=77))
            assert said in refused_status(instance, 77)
            assert instance.config.database.read_bytes() == backup.data
        assert steady.confirmed == 2000
        key.write_text(before)
        key.chmod(0o600)
        instance.start()
        steady.account(tally)


def test_a_key_file_spoiled_under_a_running_daemon_stops_no_event(
    instance: Instance, tally: Tally
) -> None:
    """It was read at the start; `status` needs it, and says so."""
    with Steady(instance) as steady:
        instance.start()
        steady.emit_stored(100)
        key = instance.config.key_file
        before = key.read_text()
        key.write_text("ab" * 32)
        steady.emit_stored(100)
        assert "the key is not this database's" in one_line(instance.cli("status", code=77))
        key.unlink()
        steady.emit_stored(100)
        assert "the key cannot be read" in refused_status(instance, 77)
        key.write_text(before)
        key.chmod(0o600)
        steady.account(tally)
        assert instance.stop() == 0
