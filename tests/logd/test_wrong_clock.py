"""A night with a wrong clock: the timers' commands remove nothing that a right clock would keep."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.clock.readings import DAY_NS, HOUR_NS, Reading
from logd.maintenance.worker import Worker
from logd.storage import copy_registry, erasure_list, job_table, trail_clock
from logd.storage.copy_registry import Copy
from logd.storage.store import Store
from logd.storage.trail_clock import TrailClock
from logd_client import Client
from logd_wire.wire import Event, producer_seed
from tests.support.instance import ROOT, Instance, Process, check_sums, until

YEARS_2_NS = 2 * 365 * DAY_NS
WRONG = {
    "two years ahead": lambda now_ns: now_ns + YEARS_2_NS,
    "eight days ahead": lambda now_ns: now_ns + 8 * DAY_NS,
    "1970": lambda now_ns: now_ns % (300 * DAY_NS),
    "2025": lambda now_ns: 1_736_000_000 * 10**9 + now_ns % DAY_NS,
}
Clock = Callable[[int], int]


def timers() -> list[list[str]]:
    """The commands that the timers start, in the order of the night."""
    found = []
    for timer in sorted((ROOT / "systemd").glob("logd-*.timer")):
        at = re.search(r"^OnCalendar=\S+ (\S+)", timer.read_text(), re.MULTILINE)
        starts = re.search(
            r"^ExecStart=.* -m logd (.*)$", timer.with_suffix(".service").read_text(), re.M
        )
        assert at and starts, timer
        found.append((at[1], starts[1].split()))
    return [command for _, command in sorted(found)]


def test_the_nights_commands_are_these() -> None:
    assert timers() == [["backup"], ["prune"], ["verify", "--anchor", "--incremental"]]


# Of these days events are stored, counted back from now, two a day; six are past ninety days.
DAYS = (100, 95, 92, 60, 34, 20, 8, 1)


def days_of_events(instance: Instance, per_day: int = 2) -> None:
    """Each stored as it was made."""
    store = instance.open_store()
    producer = Producer(uid=4000, id=9, seed=producer_seed(9), ended=True)
    now_ns = time.time_ns()
    for day in DAYS:
        batch = Batch(per_day, 10**9)
        for _ in range(per_day):
            producer.taken += 1
            event = Event("page_view", now_ns - day * DAY_NS + HOUR_NS, "7", msgpack.packb({}))
            batch.add(producer, producer.taken, event, 1)
        store.commit(batch, now_ns - day * DAY_NS + HOUR_NS)
        batch.mark_committed()
    store.close()


@pytest.fixture
def kept(instance: Instance) -> Iterator[Instance]:
    """Hundred days of a trail that keeps ninety, with backups of which two are over a month old."""
    instance.configure(**{"retention.page_view": "90d", "backup_keep_days": 30})
    days_of_events(instance)
    place = instance.config.backup_directory
    place.mkdir()
    for day in (40, 35, 20, 10):
        name = f"activity-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(time.time() - day * 86400))}"
        (place / f"{name}.db").write_bytes(b"of some night")
    yield instance
    instance.cli("verify")


def backups(instance: Instance) -> set[str]:
    return {path.name for path in instance.config.backup_directory.glob("*.db")}


@contextmanager
def clock(patch: pytest.MonkeyPatch, at: Clock) -> Iterator[None]:
    real = time.time_ns
    with patch.context() as patched:
        patched.setattr(time, "time_ns", lambda: at(real()))
        yield


def night(instance: Instance, *, refused: bool) -> str:
    """Runs what the timers start, without the journal's anchors; returns the output."""
    said = ""
    for command, *_ in timers():
        code = 75 if refused and command != "verify" else 0
        said += instance.cli(command, code=code)
    return said


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_night_with_a_wrong_clock_removes_nothing(
    kept: Instance, monkeypatch: pytest.MonkeyPatch, wrong: Clock
) -> None:
    events, files = len(kept.events()), backups(kept)
    with clock(monkeypatch, wrong):
        said = night(kept, refused=True)
    assert len([e for e in kept.events() if e["type"] == "page_view"]) == events
    assert backups(kept) > files, "a backup is made all the same"
    for act in (
        "no event was pruned: the clock says",
        "no older backup was removed: the clock says",
    ):
        assert act in said
    assert said.count("If it is right, run this again with --yes.") == 2
    # The next night the clock is right again, and does what it would have done.
    night(kept, refused=False)
    assert kept.status()["pruned"] == 6
    assert files - backups(kept) == set(sorted(files)[:2])


@pytest.mark.parametrize("wrong", ["two years ahead", "1970", "2025"])
def test_what_is_stored_in_such_a_night_is_kept_as_long_as_all_else(
    kept: Instance, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """The daemon has the wrong clock too, and so have the events."""
    shift_ns = WRONG[wrong](time.time_ns()) - time.time_ns()
    code = (
        f"import time; real = time.time_ns; time.time_ns = lambda: real() + ({shift_ns})\n"
        "from logd.cli import main; main()"
    )
    kept.daemon = Process("-c", code, "run", "--config", str(kept.config.path))
    until(lambda: kept.daemon is not None and kept.daemon.says("logd: ready"), "logd is ready")
    assert kept.daemon.says("until it is set, or confirmed by `logd prune --yes`")
    with Client(kept.socket) as client:
        for _ in range(20):
            assert client.emit("page_view", user="8", ts_ns=time.time_ns() + shift_ns)
        assert client.flush(20)
    with clock(monkeypatch, WRONG[wrong]):
        said = kept.cli("prune", code=75)
        said += kept.cli("backup", code=75)
    assert said.count("If it is right") == 2
    kept.stop()
    made_then = backups(kept)
    night(kept, refused=False)
    check_sums(kept.status(), attempted=36, accepted=36)
    assert kept.status()["pruned"] == 6
    assert [event["user"] for event in kept.events()].count("8") == 20
    assert max(made_then) in backups(kept)


def test_yes_is_given_once_and_is_how_a_long_pause_ends(
    kept: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_the_holidays(now_ns: int) -> int:
        return now_ns + 56 * DAY_NS

    with clock(monkeypatch, after_the_holidays):
        assert "--yes" in kept.cli("prune", code=75)
        assert json.loads(kept.cli("prune", "--dry-run", "--json"))["removed"] == 8
        assert "removed 8 events" in kept.cli("prune", "--yes")
        made = json.loads(kept.cli("backup", "--json"))
        assert made["kept_all"] is None
        assert len(made["removed"]) == 3, "and one, though 66 days old: the newest two stay"
        assert "removed 0 events" in kept.cli("prune")
    # Now this machine's clock is behind what a person has confirmed: again a refusal.
    assert "behind the last time" in kept.cli("prune", code=75)


def test_yes_makes_no_clock_right_that_is_older_than_the_program(
    kept: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clock(monkeypatch, WRONG["1970"]):
        for command in ("prune", "backup"):
            assert "before this program was written" in kept.cli(command, "--yes", code=75)
    assert "removed 6 events" in kept.cli("prune")


# -- a jump in the middle ------------------------------------------------------------------------


@pytest.mark.parametrize("jump_ns", [YEARS_2_NS, 3 * DAY_NS, -20 * 365 * DAY_NS])
def test_a_jump_in_the_middle_of_a_job_stops_it(
    kept: Instance, monkeypatch: pytest.MonkeyPatch, jump_ns: int
) -> None:
    for bound in ("MIN", "START", "MAX"):
        monkeypatch.setattr(f"logd.maintenance.event_removal.STEP_EVENTS_{bound}", 1)
    monkeypatch.setattr("logd.maintenance.worker.STEP_S", 1e-9)
    store = kept.open_store()
    start = trail_clock.read()
    now = [start]
    worker = Worker(store, kept.directory / "forgotten", TrailClock(store, lambda: now[0]))
    params = {"before": {"page_view": start.wall_ns - 90 * DAY_NS}}
    job_id = job_table.add_job(store.connection, job_table.PRUNE, params, start.wall_ns)
    worker.poll()
    done = 0
    for _ in range(1000):
        worker.step()
        job = job_table.read_job(store.connection, job_id)
        assert job is not None
        if job.finished_ns is not None:
            break
        done = job.outcome.get("page_view", 0)
        if done == 5:
            now[0] = Reading(start.wall_ns + jump_ns, start.boot_id, start.boottime_ns)
    store.close()
    assert job is not None
    assert (job.phase, job.outcome) == (job_table.STOPPED, {"page_view": 5})
    assert "the clock was set" in (job.trouble or "")


def test_a_prune_requested_with_a_later_clock_than_the_daemons_is_refused(kept: Instance) -> None:
    store = kept.open_store()
    worker = Worker(store, kept.directory / "forgotten")
    later_ns = time.time_ns() + YEARS_2_NS
    job_id = job_table.add_job(
        store.connection, job_table.PRUNE, {"before": {"page_view": later_ns}}, later_ns
    )
    worker.poll()
    worker.step()
    job = job_table.read_job(store.connection, job_id)
    store.close()
    assert job is not None and job.phase == job_table.STOPPED
    assert kept.status()["pruned"] == 0


def test_a_leftover_prune_does_not_run_under_a_wrong_clock(kept: Instance) -> None:
    store = kept.open_store()
    right = trail_clock.read()
    trail_clock.save(store.connection, right)
    params = {"before": {"page_view": right.wall_ns - 90 * DAY_NS}}
    job_id = job_table.add_job(store.connection, job_table.PRUNE, params, right.wall_ns)
    wrong = Reading(right.wall_ns + YEARS_2_NS, "after a kill", 0)
    worker = Worker(store, kept.directory / "forgotten", TrailClock(store, lambda: wrong))
    worker.step()
    job = job_table.read_job(store.connection, job_id)
    store.close()
    assert job is not None and (job.phase, job.outcome) == (job_table.STOPPED, {})


# -- copies --------------------------------------------------------------------------------------


def test_a_copy_expires_only_by_a_trusted_clock(kept: Instance) -> None:
    now = trail_clock.read()
    copy = Copy(copy_registry.EXPORT, "/there", now.wall_ns, now.wall_ns + DAY_NS)
    copy_registry.register_copy(kept.config, copy, {})
    store = kept.open_store()

    def known(days: int) -> list[Any]:
        later = Reading(now.wall_ns + days * DAY_NS, "", 0)
        return copy_registry.list_unexpired(store.connection, later)

    assert [len(known(days)) for days in (0, 2, 700)] == [1, 0, 1]
    (file := kept.directory / "export").touch()
    copy_registry.register_copy(kept.config, replace(copy, place=str(file)), {})
    assert [one.place for one in known(2)] == [str(file)], "it has expired, and is still there"
    file.unlink()
    assert known(2) == []
    store.close()


def test_a_forget_updates_the_list_beside_an_expired_backup_that_still_exists(
    kept: Instance,
) -> None:
    """Otherwise it would bring the person back, when it is all that is left."""
    made = Path(json.loads(kept.cli("backup", "--json"))["backup"])
    store = kept.open_store()
    store.connection.execute("UPDATE copy SET expires_ns = 1")
    store.close()
    kept.cli("forget", "7", "--yes")
    assert len(erasure_list.read_file(erasure_list.file_beside(made))) == 1


def test_a_restored_trail_knows_the_time_that_the_replaced_one_had_seen(
    kept: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup of weeks ago is restored: that is not a long pause."""
    kept.cli("prune")
    made = json.loads(kept.cli("backup", "--json"))["backup"]
    with clock(monkeypatch, lambda now_ns: now_ns + 56 * DAY_NS):
        kept.cli("prune", "--yes")
        kept.cli("restore", "--yes", made)
        assert "removed" in kept.cli("prune")


def test_the_reading_is_stored_at_intervals_and_not_at_each_poll(directory: Path) -> None:
    store = Store(directory / "a.db", bytes(32), 1, 100)
    now = [trail_clock.read()]
    own = TrailClock(store, lambda: now[0])
    kept_at = []
    for _minute in range(60):
        start = now[0]
        own.record_reading()
        seen = trail_clock.load(store.connection)
        assert seen is not None
        kept_at.append(seen.boottime_ns)
        passed_ns = 60 * 10**9
        now[0] = Reading(start.wall_ns + passed_ns, start.boot_id, start.boottime_ns + passed_ns)
    store.close()
    assert len(set(kept_at)) == 6
    assert kept_at == sorted(kept_at)


def test_a_clock_that_is_not_synchronised_yet_is_neither_kept_nor_warned_of(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each boot begins so. One that is two years ahead is warned of, once."""
    store = Store(directory / "a.db", bytes(32), 1, 100)
    seen = Reading(time.time_ns(), "a boot before", HOUR_NS, synchronised=True)
    trail_clock.save(store.connection, seen)
    now = [Reading(seen.wall_ns + HOUR_NS, "this boot", 10**9, synchronised=False)]
    own = TrailClock(store, lambda: now[0])
    own.record_reading()
    assert (trail_clock.load(store.connection), caplog.messages) == (seen, [])
    for hours in (1, 2):
        now[0] = Reading(seen.wall_ns + YEARS_2_NS, "this boot", hours * HOUR_NS, synchronised=None)
        own.record_reading()
        assert trail_clock.load(store.connection) == seen
    assert len(caplog.messages) == 1 and "2.0 years ahead" in caplog.messages[0]
    now[0] = Reading(seen.wall_ns + 3 * HOUR_NS, "this boot", 3 * HOUR_NS, synchronised=True)
    own.record_reading()
    assert trail_clock.load(store.connection) == now[0]
    store.close()
