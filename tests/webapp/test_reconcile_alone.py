"""The command reconcile with a stand-in for logd: waiting, killed and refused runs."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from tests.webapp.conftest import STUDENT, database
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients, FakeClient
from tests.webapp.site_work import DAY_NS, HOUR_NS, QUIZ, add_attempt, add_completion, states
from webapp.classroom.model.analytics import Event
from webapp.classroom.present.texts import describe_event


def invoke(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["reconcile", *arguments])


def emitted(clients: Clients) -> list[str]:
    return [event.type for event in clients.events if event.props.get("reconciled")]


def test_what_may_still_be_on_its_way_waits(
    app: Flask, reports: FakeReports, clients: Clients
) -> None:
    now_ns = time.time_ns()
    add_attempt(app, 1, now_ns - 60 * 10**9)
    add_attempt(app, 2, now_ns + DAY_NS)
    result = invoke(app)
    assert result.exit_code == 0
    assert "left for the next run: 2" in result.output
    assert emitted(clients) == []


def test_two_runs_at_once_emit_it_once(app: Flask, reports: FakeReports, clients: Clients) -> None:
    add_attempt(app, 1, time.time_ns() - HOUR_NS)
    asked, go_on = threading.Event(), threading.Event()

    def slow(_params: dict[str, Any]) -> dict[str, Any]:
        asked.set()
        assert go_on.wait(30)
        return {"ok": True, "rows": [], "next": None}

    reports.reports["events"] = slow
    first: list[Result] = []
    thread = threading.Thread(target=lambda: first.append(invoke(app)))
    thread.start()
    assert asked.wait(30)
    second = invoke(app)
    go_on.set()
    thread.join()
    assert second.exit_code == 75
    assert "Another `reconcile` is at work" in second.output
    assert first[0].exit_code == 0, first[0].output
    assert emitted(clients) == ["quiz_submitted"]


def test_a_run_killed_after_emitting_emits_nothing_twice(
    app: Flask, reports: FakeReports, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_ns = time.time_ns() - HOUR_NS
    add_attempt(app, 1, at_ns)

    def killed(_self: FakeClient, _timeout_s: float) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FakeClient, "flush", killed)
        invoke(app)
    assert emitted(clients) == ["quiz_submitted"]
    assert states(app) == {"sent": 1}
    result = invoke(app)
    assert "left for the next run: 1" in result.output
    # Later it is looked for in the trail; if it is not there, it is emitted again.
    with database(app).transaction() as connection:
        connection.execute("UPDATE trail_entries SET at_ns = 1")
    assert "missing: 1" in invoke(app, "--dry-run").output
    row = {"user": str(STUDENT), "ts_ns": at_ns, "props": {"quiz": QUIZ, "attempt": 1}}
    reports.rows("events", row)
    assert "found there: 1" in invoke(app).output
    assert emitted(clients) == ["quiz_submitted"]
    assert states(app) == {"stored": 1}


def test_what_the_client_refuses_is_tried_again(
    app: Flask, reports: FakeReports, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_attempt(app, 1, time.time_ns() - HOUR_NS)
    with monkeypatch.context() as patch:
        patch.setattr(FakeClient, "emit", lambda *_, **__: False)
        result = invoke(app)
    assert result.exit_code == 75
    assert "refused: 1" in result.output
    assert states(app) == {}
    assert invoke(app).exit_code == 0
    assert emitted(clients) == ["quiz_submitted"]


def test_what_logd_does_not_confirm_is_said_and_not_emitted_again(
    app: Flask, reports: FakeReports, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_attempt(app, 1, time.time_ns() - HOUR_NS)
    monkeypatch.setattr(FakeClient, "flush", lambda *_: False)
    result = invoke(app)
    assert result.exit_code == 75
    assert "has not confirmed" in result.output
    assert invoke(app).exit_code == 0
    assert emitted(clients) == ["quiz_submitted"]


def test_an_erasure_during_the_run_is_said(
    app: Flask, reports: FakeReports, clients: Clients
) -> None:
    add_attempt(app, 1, time.time_ns() - HOUR_NS)
    counts = iter([0, 3])

    def types(_params: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "rows": [{"type": "person_erased", "events": next(counts)}]}

    reports.reports["event_types"] = types
    result = invoke(app)
    assert result.exit_code == 75
    assert "was erased from the trail during this run" in result.output


def test_a_refused_report_is_a_message(app: Flask, reports: FakeReports, clients: Clients) -> None:
    add_attempt(app, 1, time.time_ns() - HOUR_NS)
    reports.refuse("events", "unavailable", "the reading cannot be recorded")
    result = invoke(app)
    assert result.exit_code == 75
    assert "the reading cannot be recorded" in result.output
    assert emitted(clients) == []
    assert states(app) == {}


def test_no_person_is_named_in_what_is_asked(
    app: Flask, reports: FakeReports, clients: Clients
) -> None:
    """A reading is an event with the persons of its question: an erased one must not be in it."""
    add_attempt(app, 1, time.time_ns() - HOUR_NS)
    invoke(app)
    for message in reports.requests:
        assert set(message["params"]) <= {"type", "since_ns", "limit"}
    assert {message["report"] for message in reports.requests} == {"events", "event_types"}


def test_an_account_is_deleted_with_what_was_compared(
    app: Flask, reports: FakeReports, clients: Clients
) -> None:
    add_completion(app, time.time_ns() - HOUR_NS)
    invoke(app)
    assert states(app) == {"stored": 1}
    with database(app).transaction() as connection:
        connection.execute("DELETE FROM completions")
        connection.execute("DELETE FROM users WHERE id = ?", (STUDENT,))
    assert states(app) == {}


@pytest.mark.parametrize("props", [{"task": "data-dice"}, {"quiz": QUIZ, "score": 0.5}])
def test_what_was_added_later_says_so(props: dict[str, Any]) -> None:
    event_type = "task_completed" if "task" in props else "quiz_submitted"

    def told(**more: Any) -> str:
        event = Event(1, 1, 1, event_type, "7", "1-a", 1, {**props, **more})
        return describe_event(event, {})

    later = "entered later, from the site's own records"
    assert later in told(reconciled=True)
    for other in ({}, {"reconciled": "yes"}, {"reconciled": False}):
        assert later not in told(**other)
