"""What `logd prune` and `logd forget` ask and report, also without a database or space."""

from __future__ import annotations

import time
from typing import Any

import pytest
from click.testing import CliRunner

from logd.cli import main
from logd.errors import StorageBusy
from logd.maintenance import job_client
from logd.storage import job_table
from logd.storage.store import Store
from tests.logd.hundred_days import DAY_NS, NAME, fill, found, served
from tests.support.instance import Instance

__all__ = ["served"]  # a fixture


def test_forget_asks_for_confirmation_or_takes_yes(
    served: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = fill(served, 100)
    assert "use --yes" in served.cli("forget", NAME, code=2)
    assert "USER" in served.cli("forget", "x" * 256, "--yes", code=2)
    # At a terminal it asks, with what would go.
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    command = ["forget", NAME, "--config", str(served.config.path)]
    question = (
        f"Permanently erase '{NAME}': {counts['anna']} events, {counts['mentions']} mentions?"
    )
    assert counts["anna"] > 5 and counts["mentions"] > 0
    for answer in ("n\n", "\n", ""):
        done = CliRunner().invoke(main, command, input=answer)
        assert (done.exit_code, done.stdout) == (130, "")
        assert question in done.stderr and "not confirmed" in done.stderr
        assert served.status()["erased"] == 0
    assert any(event["user"] == NAME for event in served.events())
    done = CliRunner().invoke(main, command, input="y\n")
    assert done.exit_code == 0, done.output
    assert question in done.stderr
    assert served.status()["erased"] == counts["anna"]
    assert not any(event["user"] == NAME for event in served.events())
    served.start()


def test_forget_names_the_copies_that_it_cannot_reach_until_they_expire(served: Instance) -> None:
    fill(served, 10)
    store = served.open_store()
    store.connection.execute(
        "CREATE TABLE IF NOT EXISTS copy (id INTEGER PRIMARY KEY, kind TEXT, made_ns INTEGER,"
        " expires_ns INTEGER, place TEXT)"
    )
    now_ns = time.time_ns()
    for kind, expires_ns in (("backup", now_ns + DAY_NS), ("export", None), ("backup", now_ns - 1)):
        store.connection.execute(
            "INSERT INTO copy (kind, made_ns, expires_ns, place) VALUES (?, 1, ?, ?)",
            (kind, expires_ns, f"/there/{kind}-{expires_ns}"),
        )
    store.close()
    said = served.cli("forget", NAME, "--yes")
    assert f"/there/backup-{now_ns + DAY_NS}" in said
    assert "/there/export-None, made 1970-01-01 00:00:00.000Z, never expires" in said
    assert f"{now_ns - 1}" not in said
    assert "the site's own database" in said
    served.start()


def test_without_retention_everything_is_kept_and_prune_reports_it(instance: Instance) -> None:
    fill(instance, 10)
    assert "every event is kept for ever" in instance.cli("prune")


def test_with_no_database_there_is_nothing_to_do_and_none_is_made(instance: Instance) -> None:
    instance.configure(**{"retention.page_view": "50d"})
    for arguments in (("prune",), ("prune", "--dry-run"), ("forget", "7", "--yes")):
        assert "no database here yet" in instance.cli(*arguments, code=73)
    assert not instance.config.database.exists()


def test_a_forget_without_space_for_the_vacuum_waits_and_reports_it(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(instance, 100)
    monkeypatch.setattr("logd.maintenance.worker.RETRY_S", 0.01)
    real, tries = Store.vacuum, []

    def vacuum(self: Store, meanwhile: Any) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise StorageBusy("too little room")
        return real(self, meanwhile)

    monkeypatch.setattr(Store, "vacuum", vacuum)
    seen = []
    job_client.run_job(
        instance.config, job_table.FORGET, {"users": [NAME]}, lambda job: seen.append(job.trouble)
    )
    assert "too little room" in seen
    assert seen[-1] is None
    assert found(instance) == []


@pytest.mark.parametrize(
    ("arguments", "at"),
    [
        (("forget", NAME, "--yes"), "logd.storage.mentions.PersonKeys.may_name"),
        (("forget", NAME, "--yes"), "logd.maintenance.event_removal.Steps.remove"),
        (("prune",), "logd.maintenance.event_removal.Steps.remove"),
    ],
)
def test_ctrl_c_without_a_daemon_ends_it_as_that_and_it_can_be_done_again(
    instance: Instance,
    arguments: tuple[str, ...],
    at: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also in the middle of a statement, with which the database cannot be closed."""
    instance.configure(**{"retention.page_view": "50d"})
    fill(instance, 200)
    calls = 0

    def interrupt(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(at, interrupt)
        out = instance.cli(*arguments, code=130)
    assert calls == 1
    assert out.splitlines()[-1] == "logd: interrupted"
    assert "locked" not in out
    assert "change of its key" not in caplog.text and "change of the key" not in caplog.text
    done = CliRunner().invoke(main, [*arguments, "--config", str(instance.config.path)])
    assert (done.exit_code, done.stderr) == (0, "")
    if arguments[0] == "forget":
        assert found(instance) == []
    instance.cli("verify")


def test_the_status_shows_the_last_forget(instance: Instance) -> None:
    fill(instance, 20)
    before_ns = time.time_ns()

    def forget() -> dict[str, Any]:
        (run,) = (run for run in instance.status()["maintenance"] if run["task"] == "forget")
        return dict(run)

    assert forget() == {"task": "forget", "at_ns": None, "ok_ns": None, "problem": None}
    instance.cli("forget", NAME, "--yes")
    run = forget()
    assert run["at_ns"] == run["ok_ns"] and before_ns < run["ok_ns"] < time.time_ns()
    assert "forget       last good " in instance.cli("status")
