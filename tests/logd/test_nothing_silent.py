"""Losses, quarantine, refusals, failed backups and prunes are logged at warning, with sender and
cause, and are in the status and the metrics.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd import log_format
from logd.batch import LOST_CLAIMED, LOST_NOT_RECEIVED, LOST_TAIL_UNKNOWN, Batch, Producer
from logd.commands import _output
from logd.errors import StorageBusy
from logd.ingest import commit_log
from logd.maintenance import backup as backups
from logd.maintenance import database_copy, job_client
from logd.maintenance.worker import Worker
from logd.storage import job_table, last_runs, trail_clock
from logd_client import Client
from tests.logd.stepped_daemon import SteppedDaemon, look, new_daemon
from tests.support.instance import NO_DIRECTORY, Instance, check_sums, until

UID = os.getuid()


@pytest.fixture
def daemon(instance: Instance) -> Iterator[SteppedDaemon]:
    made = new_daemon(instance)
    yield made
    made.close()


def warnings_in(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and record.getMessage().startswith(start)
    ]


# -- what a commit records


def test_what_a_commit_records_is_logged_with_sender_and_cause() -> None:
    batch, lines = Batch(100, 10**6), []
    first, second = (Producer(uid=7, id=number, seed=0, pid=70 + number) for number in (1, 2))
    other = Producer(uid=8, id=3, seed=0, pid=80)
    batch.add_loss(first, 1, 5, LOST_NOT_RECEIVED)
    batch.add_loss(second, 1, 2, LOST_NOT_RECEIVED)
    batch.add_loss(first, 9, None, LOST_TAIL_UNKNOWN)
    batch.add_loss(other, 1, 1, LOST_CLAIMED)
    batch.add_quarantine(7, 71, "malformed: first", b"")
    batch.add_quarantine(9, 90, "outbox: logged with its name", b"")
    batch.add_quarantine(7, 72, "malformed: \x1b[31m\nforged", b"")
    other.refused = {"outbox_full": 4, "malformed": 1}
    commit_log.log_commit(batch, lambda message, *args, user: lines.append((message % args, user)))
    assert lines == [
        ("lost, not received: 7 events of user 7, pid 71, producer 7-0000000000000001 and 1 more"
         " (logd losses)", 7),
        ("lost, tail unknown: an unknown number of events of user 7, pid 71, producer"
         " 7-0000000000000001 (logd losses)", 7),
        ("lost, claimed: 1 events of user 8, pid 80, producer 8-0000000000000003 (logd losses)", 8),
        ("quarantine: 2 of user 7, the last of pid 72: malformed: \\x1b[31m\\nforged (logd"
         " quarantine)", 7),
        ("refused: 5 events by the client of user 8, pid 80, in all: outbox_full 4, malformed 1",
         8),
    ]  # fmt: skip
    lines.clear()
    again = Batch(100, 10**6)
    again.touch(other)
    commit_log.log_commit(again, lambda message, *args, user: lines.append((message % args, user)))
    assert lines == [], "once"
    other.refused["malformed"] = 3
    commit_log.log_commit(again, lambda message, *args, user: lines.append((message % args, user)))
    assert [line[:18] for line, _ in lines] == ["refused: 2 events "]


def test_a_gap_without_an_outbox_is_logged(
    instance: Instance, daemon: SteppedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.start()
    with Client(instance.socket, outbox_directory=NO_DIRECTORY) as client:
        assert client.emit("page_view", user="a")
        look(daemon)
        assert client.emit("page_view", user="b")
        drop_one(daemon)
        assert client.emit("page_view", user="c")
        look(daemon)
    look(daemon)
    (line,) = warnings_in(caplog, "lost, ")
    assert re.fullmatch(
        rf"lost, not received: 1 events of user {UID}, pid \d+, producer {UID}-[0-9a-f]{{16}}"
        r" \(logd losses\)",
        line,
    )
    check_sums(instance.status(), attempted=3, accepted=3)


def drop_one(daemon: SteppedDaemon) -> None:
    """Takes what is in the socket, as a full queue would have."""
    for _ in daemon._receiver.datagrams():
        pass


def test_quarantine_is_logged_and_so_is_a_type_too_many(
    instance: Instance, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = new_daemon(instance)
    try:
        daemon.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"garbage", str(instance.socket))
        look(daemon)
        (line,) = warnings_in(caplog, "quarantine: ")
        assert re.match(rf"quarantine: 1 of user {UID}, the last of pid {os.getpid()}: \S", line)
        caplog.clear()
        daemon.delivery.state._throttled._kinds.clear()  # 30 s later
        daemon.store._types._limits = type(daemon.store._types._limits)(0, 0)
        with Client(instance.socket) as client:
            assert client.emit("a_new_type")
            look(daemon)
            (line,) = warnings_in(caplog, "quarantine: ")
            assert "event type refused" in line or "has introduced" in line
    finally:
        daemon.close()
    assert instance.status()["quarantined"] == 2
    check_sums(instance.status(), attempted=1, accepted=1)


def test_what_a_client_refused_is_logged_once_also_over_a_restart(instance: Instance) -> None:
    daemon = instance.start()
    with Client(instance.socket) as client:
        assert client.emit("page_view", durable=True)
        assert not client.emit("Not a type")
        assert client.emit("page_view", durable=True)
        until(lambda: daemon.says("refused: "), "the refusal in the log")
        instance.stop()
        (line,) = (line for line in daemon.lines if "refused: " in line)
        pid = os.getpid()
        assert line.endswith(
            f"refused: 1 events by the client of user {UID}, pid {pid}, in all: malformed 1"
        )
        again = instance.start()
        assert client.emit("page_view", durable=True)
        assert not client.emit("Not a type")
        assert client.emit("page_view", durable=True)
        until(lambda: again.says("refused: "), "another one")
        instance.stop()
    (line,) = (line for line in again.lines if "refused: " in line)
    assert line.endswith(f"refused: 1 events by the client of user {UID}, pid {pid}, in all:"
                         " malformed 2")  # fmt: skip
    status = instance.status()
    assert status["refused_by_clients"] == 2
    check_sums(status, attempted=6, accepted=4, refused=2)


# -- maintenance


def state_of(instance: Instance, task: str) -> dict[str, object]:
    return next(one for one in instance.status()["maintenance"] if one["task"] == task)


def test_a_failed_backup_is_in_the_status_and_the_metrics_until_one_succeeds(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.open_store().close()
    assert state_of(instance, "backup") == {
        "task": "backup", "at_ns": None, "ok_ns": None, "problem": None,
    }  # fmt: skip
    instance.cli("backup")
    good = state_of(instance, "backup")
    assert good["problem"] is None and good["ok_ns"] == good["at_ns"] is not None

    def full(*_: object) -> None:
        raise StorageBusy("/backups: no space\x1b left")

    with monkeypatch.context() as broken:
        broken.setattr(database_copy, "copy", full)
        instance.cli("backup", code=75)
    failed = state_of(instance, "backup")
    assert failed["ok_ns"] == good["ok_ns"] != failed["at_ns"]
    assert failed["problem"] == "/backups: no space\x1b left"
    assert re.search(r"backup +PROBLEM 20.*: /backups: no space\\x1b left; last good 20",
                     instance.cli("status"))  # fmt: skip
    metrics = instance.cli("metrics")
    assert 'logd_maintenance_failed{task="backup"} 1.0' in metrics
    assert 'logd_maintenance_failed{task="prune"} 0.0' in metrics
    assert 'logd_maintenance_success_timestamp_seconds{task="backup"}' in metrics
    instance.cli("backup")
    assert state_of(instance, "backup")["problem"] is None
    assert 'logd_maintenance_failed{task="backup"} 0.0' in instance.cli("metrics")


def test_a_failed_prune_is_in_the_status_until_one_succeeds(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.open_store().close()
    with open(instance.config.path, "a") as file:
        file.write('retention.page_view = "1d"\n')

    def no(*_: object) -> None:
        raise StorageBusy("locked by another program")

    with monkeypatch.context() as broken:
        broken.setattr(job_client, "run_job", no)
        instance.cli("prune", code=75)
    assert state_of(instance, "prune")["problem"] == "locked by another program"
    instance.cli("prune", "--dry-run")
    assert state_of(instance, "prune")["problem"] is not None, "a dry run mends nothing"
    instance.cli("prune")
    assert state_of(instance, "prune")["problem"] is None


def test_a_job_that_fails_in_the_daemon_is_in_the_status(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if no command waits for it any more."""
    store = instance.open_store()
    job_table.add_job(store.connection, job_table.PRUNE, {"before": {"page_view": 1}}, 1)
    worker = Worker(store, instance.directory / "list")

    def changed(*_: object) -> Iterator[None]:
        raise ValueError("not msgpack")
        yield

    monkeypatch.setattr("logd.maintenance.worker.prune", changed)
    worker.step()
    store.close()
    assert "stored data was changed" in str(state_of(instance, "prune")["problem"])
    assert any("stored data was changed" in record.getMessage() for record in caplog.records)


def test_the_record_of_a_run_that_cannot_be_written_hides_no_error(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.open_store().close()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(last_runs, "replace_file", fail)
    with (
        pytest.raises(StorageBusy, match="the disk"),
        last_runs.recorded(instance.config, last_runs.BACKUP),
    ):
        raise StorageBusy("the disk")
    with last_runs.recorded(instance.config, last_runs.BACKUP):
        pass
    for torn in ("", "{", "[]", '{"backup": 5}', '{"backup": {"at": 1}}'):
        last_runs.path_of(instance.config.database).write_text(torn)
        assert last_runs.read_runs(instance.config.database) == {}


def test_an_expired_backup_that_cannot_be_removed_is_reported(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    instance.open_store().close()
    for _ in range(2):
        instance.cli("backup")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith("Z.db"):
            raise OSError(errno.EPERM, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    made = backups.backup(
        instance.config, None, backups.Keep(count=1), trail_clock.read(),
        database_copy.Stop(), _output.progress_bar,
    )  # fmt: skip
    assert made.removed == ()
    assert set(made.not_removed.values()) == {"Operation not permitted"}
    assert len(made.not_removed) == 2


@pytest.mark.parametrize("function", ["print_note", "warn_in_journal", "fail"])
def test_what_a_command_reports_has_a_level_in_the_journal(
    function: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that `journalctl -u 'logd*' -p warning` shows it."""
    monkeypatch.setattr(log_format, "reads_stderr", lambda: True)
    if function == "fail":
        with pytest.raises(SystemExit):
            _output.fail("it failed", 75)
        assert capsys.readouterr().err == "<3>it failed\n"
    else:
        getattr(_output, function)("it is so")
        assert capsys.readouterr().err == "<4>it is so\n"
