"""The record of an export: in the trail before its first row goes out, or there is no export."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any, BinaryIO

import pytest
from click.testing import CliRunner

from logd.cli import main
from logd.errors import StorageBusy
from logd.reports.export import FORMS
from tests.logd.exports import PROPS, copies, export, fill, stored_events, the_notes
from tests.support.instance import Instance, Process, check_sums


@pytest.fixture(autouse=True)
def _polls_often(instance: Instance) -> None:
    instance.configure(look_interval_ms=50)


@pytest.mark.parametrize("daemon", ["running", "none"])
@pytest.mark.parametrize("form", list(FORMS))
def test_an_export_is_in_the_trail_before_its_first_row_is_written(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, form: str, daemon: str
) -> None:
    """With the copy, and without a person."""
    fill(instance)
    if daemon == "running":
        instance.start()
    output = instance.directory / "out"
    seen: list[dict[str, Any]] = []
    write = FORMS[form]

    def observed(rows: Iterable[Any], out: BinaryIO) -> None:
        assert out.tell() == 0
        seen.extend(instance.events("--type", "trail_export_started"))
        assert copies(instance) == [("export", str(output))]
        write(rows, out)

    monkeypatch.setitem(FORMS, form, observed)
    began_ns = time.time_ns()
    chosen = ["--user", "7", "--type", "page_view", "--expires", "7d", "--format", form]
    command = ["export", *chosen, "-o", str(output), "--config", str(instance.config.path)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.stderr
    (event,) = seen
    assert event["user"] is None
    instance.cli("verify")
    if daemon == "none":
        instance.start()
    started, ended = the_notes(instance)
    assert started == event
    expires_ns = started["props"]["expires_ns"]
    assert 0 <= expires_ns - began_ns - 7 * 86_400 * 10**9 < 60 * 10**9
    facts = {
        "export": started["props"]["export"], "uid": os.getuid(), "format": form,
        "expires_ns": expires_ns, "filters": {"types": ["page_view"], "by_user": True},
    }  # fmt: skip
    assert started["props"] == facts
    assert ended["props"] == {**facts, "events": len(PROPS), "complete": True, "kept": True}
    check_sums(instance.settle(), attempted=36, accepted=36)


def refuse_to_register(*_: object, **__: object) -> None:
    raise StorageBusy("the database: is full, by a test")


@pytest.mark.parametrize("output", ["-", "out"])
@pytest.mark.parametrize("form", list(FORMS))
def test_what_cannot_be_recorded_is_not_exported(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, form: str, output: str
) -> None:
    fill(instance)
    monkeypatch.setattr("logd.maintenance.export_record.register_copy", refuse_to_register)
    monkeypatch.chdir(instance.directory)
    before = sorted(instance.directory.iterdir())
    command = ["export", "--format", form, "-o", output, "--config", str(instance.config.path)]
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, done.stdout_bytes) == (75, b"")
    assert "is full, by a test" in done.stderr
    assert {path.name for path in instance.directory.iterdir()} <= {
        *(path.name for path in before), "activity.db-wal", "activity.db-shm"
    }  # fmt: skip


def test_beside_a_daemon_that_stores_nothing_there_is_no_export(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused in time; once the daemon works again, the trail shows what was asked for."""
    fill(instance)
    daemon = instance.start()
    daemon.popen.send_signal(signal.SIGSTOP)
    try:
        monkeypatch.setattr("logd.maintenance.job_client.RECORDED_LATE_S", 0.2)
        command = ["export", "--config", str(instance.config.path)]
        done = CliRunner().invoke(main, command)
    finally:
        daemon.popen.send_signal(signal.SIGCONT)
    assert (done.exit_code, done.stdout) == (75, "")
    assert "stored no record of it within" in done.stderr and "logd status" in done.stderr
    _, ended = the_notes(instance)
    props = ended["props"]
    assert (props["events"], props["complete"], props["kept"]) == (0, False, False)
    assert copies(instance) == []
    check_sums(instance.settle(), attempted=36, accepted=36)


def test_an_export_that_is_killed_is_known_as_one_that_did_not_end(instance: Instance) -> None:
    """Also one that is killed before its first row, and none that comes later hides it."""
    fill(instance, repeats=30)
    instance.start()
    process = Process("-m", "logd", "export", "--config", str(instance.config.path))
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    process.close()  # kills it: the pipe is full, so it cannot have ended
    export(instance, "csv")
    events = the_notes(instance)
    ended = {event["props"]["export"] for event in events if event["type"] == "trail_exported"}
    started = {event["props"]["export"] for event in events} - ended
    assert (len(ended), len(started)) == (1, 1)
    places = [place for _kind, place in copies(instance)]
    assert places == ["standard output", str(instance.directory / "out.csv")]
    check_sums(instance.settle(), attempted=1080, accepted=1080)


def test_an_end_that_cannot_be_recorded_is_noted_and_the_export_is_good(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(instance)
    monkeypatch.setattr("logd.maintenance.export_record.register_export_end", refuse_to_register)
    command = ["export", "--type", "page_view", "--config", str(instance.config.path)]
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 36)
    assert "the trail shows it as interrupted: the database: is full, by a test" in done.stderr
    assert len(instance.events("--type", "trail_export_started")) == 1
    assert instance.events("--type", "trail_exported") == []


def test_reading_is_no_export(instance: Instance) -> None:
    fill(instance)
    for command in (("query",), ("query", "--format", "spreadsheet"), ("tail",), ("person", "7")):
        instance.cli(*command)
    assert [event for event in instance.events() if event["type"] != "page_view"] == []
    assert copies(instance) == []


def test_what_a_reader_got_before_it_left_is_in_the_trail_too(instance: Instance) -> None:
    fill(instance, repeats=30)
    instance.start()
    process = Process("-m", "logd", "export", "--config", str(instance.config.path))
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    process.popen.stdout.close()
    assert process.popen.wait(60) == 0
    process.close()
    _, ended = the_notes(instance)
    assert (ended["props"]["complete"], ended["props"]["kept"]) == (False, True)
    assert 0 < ended["props"]["events"] <= 1080
    assert copies(instance) == [("export", "standard output")]
    check_sums(instance.settle(), attempted=1080, accepted=1080)


def test_an_export_that_could_not_begin_left_no_copy_and_no_event(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(instance)
    (instance.directory / "out.jsonl").touch()
    export(instance, "jsonl", code=73)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    command = ["export", "--format", "parquet", "-o", str(instance.directory / "out")]
    assert (
        CliRunner().invoke(main, [*command, "--config", str(instance.config.path)]).exit_code == 69
    )
    assert stored_events(instance) == instance.events()
    assert copies(instance) == []
