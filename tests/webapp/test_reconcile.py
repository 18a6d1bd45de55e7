"""`reconcile`: what the site has and the trail has not is added, once, and no removal is undone."""

from __future__ import annotations

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
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, MakeApp, fill
from tests.webapp.site_work import DAY_NS, HOUR_NS, QUIZ, TASK, add_attempt, add_completion, states
from webapp.classroom.model import reconciliation


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
