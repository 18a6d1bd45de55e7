"""`reconcile`: what the site has and the trail has not is added, once, and no removal is undone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from logd_client import Client
from tests.support.instance import Instance, check_streams
from tests.support.tally import Tally
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, MakeApp, database, fill
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients, FakeClient
from webapp.classroom.model import reconciliation
from webapp.classroom.model.analytics import Event
from webapp.classroom.model.catalogue import list_quizzes
from webapp.classroom.model.scoring import dump_questions
from webapp.classroom.model.work import insert_attempt
from webapp.classroom.present.texts import describe_event

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
QUIZ, TASK = "data-chance-quiz", "data-dice"


def add_attempt(app: Flask, number: int, at_ns: int, user_id: int = STUDENT) -> None:
    quiz = next(q for q in list_quizzes(database(app), "data") if q.id == QUIZ)
    asked = dump_questions(quiz.questions)
    with database(app).transaction() as connection:
        insert_attempt(connection, user_id, QUIZ, number, asked, {}, 0.25 * number, at_ns)


def add_completion(app: Flask, at_ns: int, user_id: int = STUDENT, task: str = TASK) -> None:
    with database(app).transaction() as connection:
        connection.execute("INSERT INTO completions VALUES (?, ?, ?)", (user_id, task, at_ns))


def states(app: Flask) -> dict[str, int]:
    rows = (
        database(app)
        .connection()
        .execute("SELECT state, count(*) FROM trail_entries GROUP BY state")
    )
    return {row[0]: row[1] for row in rows}


@dataclass
class Site:
    """A site and an instance of logd; events go through a client of the test's own, too."""

    app: Flask
    instance: Instance
    client: Client

    def run(self, *arguments: str, code: int = 0) -> str:
        result: Result = self.app.test_cli_runner().invoke(args=["reconcile", *arguments])
        assert result.exit_code == code, result.output
        return result.output

    def log(self, event_type: str, at_ns: int, user_id: int = STUDENT, **props: Any) -> None:
        """Logs an event as the site does at the time of its row."""
        assert self.client.emit(event_type, user=str(user_id), props=props, ts_ns=at_ns)
        assert self.client.flush(30)

    def log_attempt(self, number: int, at_ns: int, user_id: int = STUDENT) -> None:
        self.log(
            "quiz_submitted", at_ns, user_id, quiz=QUIZ, course="data", score=0.5, attempt=number
        )

    def events(self) -> list[dict[str, Any]]:
        """Returns the events of work that `reconcile` has added and that are still there."""
        return [e for e in self.instance.events() if e["props"].get("reconciled") is True]

    def account(self, tally: Tally, removed: int = 0) -> None:
        own = self.app.extensions["activity_log"].client(self.app)
        counts = [self.client.stats(), own.stats()]
        own.close()
        self.client.close()
        status = self.instance.settle()
        events = [event for event in self.instance.events() if event["producer"] != "logd"]
        tally.account(
            status,
            events if not removed else [],
            **{
                name: sum(count[name] for count in counts)
                for name in ("attempted", "accepted", "refused")
            },
        )
        assert status["pruned"] + status["erased"] == removed


@pytest.fixture
def site(instance: Instance, make_app: MakeApp) -> Iterator[Site]:
    app = make_app(
        ACTIVITY_LOG_CLIENT=Client,
        ACTIVITY_LOG_SOCKET=instance.socket,
        ACTIVITY_QUERY_SOCKET=str(Path(instance.socket).with_name("query.sock")),
    )
    fill(app)
    instance.start()
    made = Site(app, instance, Client(instance.socket))
    yield made
    made.client.close()
    app.extensions["activity_log"].client(app).close()


def test_what_is_missing_is_added_with_its_time_and_a_mark_and_only_once(
    site: Site, tally: Tally
) -> None:
    at_ns = time.time_ns() - HOUR_NS
    for number in (1, 2):
        add_attempt(site.app, number, at_ns + number)
    add_completion(site.app, at_ns + 3)
    add_completion(site.app, at_ns + 4, OTHER_STUDENT)
    site.log_attempt(1, at_ns + 1_000_000)
    site.log("task_completed", at_ns + 4, OTHER_STUDENT, task=TASK, course="data")
    dry = site.run("--dry-run", code=1)
    assert "missing: 2" in dry
    assert f"user {STUDENT} quiz_submitted {QUIZ} attempt 2 " in dry
    assert site.events() == []
    assert states(site.app) == {}
    assert "emitted: 2, refused: 0" in site.run()
    added = sorted(site.events(), key=lambda event: int(event["ts_ns"]))
    assert [(e["type"], e["user"], e["ts_ns"], e["props"]) for e in added] == [
        (
            "quiz_submitted",
            str(STUDENT),
            at_ns + 2,
            {"quiz": QUIZ, "course": "data", "score": 0.5, "attempt": 2, "reconciled": True},
        ),
        (
            "task_completed",
            str(STUDENT),
            at_ns + 3,
            {"task": TASK, "course": "data", "reconciled": True},
        ),
    ]
    again = site.run()
    assert "not yet known to be in the trail: 0" in again
    assert "emitted: 0" in again
    site.run("--dry-run")
    assert len(site.events()) == 2
    assert states(site.app) == {"stored": 4}
    site.account(tally)


def test_attempts_are_compared_by_number_and_not_counted(site: Site, tally: Tally) -> None:
    at_ns = time.time_ns() - HOUR_NS
    for number in (1, 2, 3):
        add_attempt(site.app, number, at_ns + number)
    for number in (1, 1, 3):
        site.log_attempt(number, at_ns + number)
    site.log_attempt(2, at_ns, OTHER_STUDENT)
    site.log("quiz_submitted", at_ns, quiz=QUIZ, attempt="2", score=1.0)
    site.log("quiz_submitted", at_ns, quiz="another", attempt=2, score=1.0)
    assert "emitted: 1" in site.run()
    assert [event["props"]["attempt"] for event in site.events()] == [2]
    site.account(tally)


def test_all_pages_of_the_trail_are_compared(
    site: Site, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "PAGE_EVENTS", 3)
    at_ns = time.time_ns() - HOUR_NS
    for number in range(1, 12):
        add_attempt(site.app, number, at_ns)
        if number != 6:
            site.log_attempt(number, at_ns)  # all at the same time: a page ends among them
    assert "found there: 10" in site.run()
    assert [event["props"]["attempt"] for event in site.events()] == [6]
    site.account(tally)


def test_an_erased_person_s_events_are_not_added_again(site: Site, tally: Tally) -> None:
    at_ns = time.time_ns() - HOUR_NS
    add_attempt(site.app, 1, at_ns)
    site.log_attempt(1, at_ns)
    site.run()
    # Neither what was compared before the erasure, nor what was not, nor what was never logged.
    add_attempt(site.app, 2, at_ns + 1)
    site.log_attempt(2, at_ns + 1)
    add_completion(site.app, at_ns + 2)
    site.instance.cli("forget", str(STUDENT), "--yes")
    told = site.run()
    assert "missing: 0" in told
    assert "withheld, since an erasure (person_erased) may have removed them: 2" in told
    for _ in range(2):
        assert "withheld, since an erasure (person_erased) may have removed them: 2" in site.run()
    # Work of others that is missing later is added.
    add_attempt(site.app, 1, time.time_ns() - HOUR_NS, OTHER_STUDENT)
    assert "emitted: 1" in site.run()
    assert {event["user"] for event in site.events()} == {str(OTHER_STUDENT)}
    assert site.instance.events("--user", str(STUDENT)) == []
    site.account(tally, removed=2)


def test_an_erasure_before_the_first_comparison_withholds_too(site: Site) -> None:
    at_ns = time.time_ns() - HOUR_NS
    add_attempt(site.app, 1, at_ns)
    site.log_attempt(1, at_ns)
    site.instance.cli("forget", str(STUDENT), "--yes")
    assert "missing: 0" in site.run("--dry-run")
    assert "missing: 0" in site.run()
    assert site.events() == []
    # Who has made sure that it was another person may say so.
    assert "emitted: 1" in site.run("--not-erased")
    assert len(site.events()) == 1
    assert "emitted: 0" in site.run("--not-erased")


def test_pruned_events_are_not_added_again(site: Site, tally: Tally) -> None:
    now_ns = time.time_ns()
    add_attempt(site.app, 1, now_ns - 3 * DAY_NS)
    site.log_attempt(1, now_ns - 3 * DAY_NS)
    add_attempt(site.app, 1, now_ns - 8 * DAY_NS, OTHER_STUDENT)  # pruned before the first run
    site.run()
    site.instance.configure(**{"retention.quiz_submitted": "2d"})
    site.instance.cli("prune", "--yes")
    told = site.run()
    assert "missing: 0" in told
    assert "older than 7 days, not compared: 1" in told
    assert site.events() == []
    # With more days, the older row is compared.
    assert "missing: 1" in site.run("--days", "30", "--dry-run", code=1)
    site.account(tally, removed=1)


def test_without_logd_nothing_is_recorded_and_the_next_run_adds_it(
    site: Site, tally: Tally
) -> None:
    add_attempt(site.app, 1, time.time_ns() - HOUR_NS)
    site.instance.kill()
    told = site.run(code=75)
    assert "could not be compared with the trail" in told
    assert "Start logd" in told
    assert "Traceback" not in told
    assert states(site.app) == {}
    site.instance.start()
    assert "emitted: 1" in site.run()
    check_streams([e for e in site.instance.events() if e["producer"] != "logd"])
    site.account(tally)


# -- with stand-ins -------------------------------------------------------------------------------


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
