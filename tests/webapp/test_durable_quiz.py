"""Durable quiz events: the page waits until the event is stored, or shows that it may not be."""

from __future__ import annotations

import html
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from logd_client import Client, Outcome
from tests.support.instance import Instance, until
from tests.support.tally import Tally
from tests.webapp.browser import Browser
from tests.webapp.conftest import STUDENT, MakeApp, fill
from tests.webapp.flask_apps import Clients
from webapp.classroom.config import QUIZ_UNCONFIRMED
from webapp.classroom.views.courses import NOT_IN_THE_RECORD as TASK_NOT_IN_THE_RECORD
from webapp.classroom.views.quizzes import NOT_IN_THE_RECORD

QUIZ = "/courses/data/quizzes/data-chance-quiz"


def hand_in(browser: Browser, number: int = 1) -> str:
    """Hands in an empty quiz; returns the text of the page that follows."""
    answer = browser.post(QUIZ, {"number": str(number)})
    assert answer.status_code == 302
    return html.unescape(browser.get(answer.location).text)


# -- with each outcome ----------------------------------------------------------------------------


def test_a_stored_quiz_shows_no_message(student: Browser, clients: Clients) -> None:
    page = hand_in(student)
    assert "Your result: 0" in page
    assert 'class="notice' not in page
    assert len(clients.of("quiz_submitted")) == 1


def test_an_unconfirmed_quiz_is_saved_and_flashed(student: Browser, clients: Clients) -> None:
    (client,) = clients.made
    client.outcome = Outcome.UNKNOWN
    page = hand_in(student)
    assert "Your result: 0" in page
    assert page.count(QUIZ_UNCONFIRMED) == 1
    assert "saved" in QUIZ_UNCONFIRMED and "not confirmed yet" in QUIZ_UNCONFIRMED
    assert [event.tell_user for event in clients.of("quiz_submitted")] == [True]
    assert QUIZ_UNCONFIRMED not in html.unescape(student.get("/results").text), "flashed once"


def test_a_refused_quiz_event_is_flashed_and_the_quiz_saved(
    student: Browser, clients: Clients
) -> None:
    (client,) = clients.made
    client.outcome = Outcome.REFUSED
    page = hand_in(student)
    assert "Your result: 0" in page
    assert page.count(NOT_IN_THE_RECORD) == 1


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome.STORED, None),
        (Outcome.UNKNOWN, QUIZ_UNCONFIRMED),
        (Outcome.REFUSED, TASK_NOT_IN_THE_RECORD),
    ],
)
def test_a_task_waits_like_a_quiz_and_its_outcome_is_flashed_once(
    student: Browser, clients: Clients, outcome: Outcome, message: str | None
) -> None:
    (client,) = clients.made
    client.outcome = outcome
    student.post("/courses/data/tasks/data-dice/complete")
    assert [event.tell_user for event in clients.of("task_completed")] == [True]
    page = html.unescape(student.get("/courses/data").text)
    assert "Task completed: A hundred dice" in page
    assert page.count('class="notice open"') == (message is not None)
    assert message is None or page.count(message) == 1
    assert "not confirmed" not in html.unescape(student.get("/results").text)


# -- with a real logd ----------------------------------------------------------------------------


@dataclass
class Site:
    """The site with the real client, on an instance of logd."""

    app: Flask
    instance: Instance
    student: Browser

    @property
    def client(self) -> Client:
        client = self.app.extensions["activity_log"].client(self.app)
        assert isinstance(client, Client)
        return client

    def account(self, tally: Tally) -> list[dict[str, Any]]:
        """Closes the client; checks the totals; returns the stored events."""
        self.client.close()
        stats = self.client.stats()
        status = self.instance.settle()
        events = self.instance.events()
        counts = {name: stats[name] for name in ("attempted", "accepted", "refused")}
        tally.account(status, events, **counts)
        return events


@pytest.fixture
def site(instance: Instance, make_app: MakeApp, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The site, with a timeout of a minute for quizzes unless the test sets another."""
    app = make_app(
        ACTIVITY_LOG_CLIENT=Client,
        ACTIVITY_LOG_SOCKET=instance.socket,
        ACTIVITY_LOG_DURABLE_TIMEOUT_S=getattr(request, "param", 60.0),
    )
    fill(app)
    student = Browser(app)
    instance.start()
    student.log_in("student")
    made = Site(app, instance, student)
    yield made
    made.client.close()


def test_a_quiz_is_on_disk_when_its_page_is_sent(site: Site, tally: Tally) -> None:
    page = hand_in(site.student)
    assert QUIZ_UNCONFIRMED not in page
    (event,) = site.instance.events("--type", "quiz_submitted")
    assert (event["user"], event["props"]["quiz"]) == (str(STUDENT), "data-chance-quiz")
    assert "durable_unknown" not in {event["type"] for event in site.account(tally)}


impatient = pytest.mark.parametrize("site", [0.1], indirect=True)


@impatient
def test_while_logd_is_paused_page_and_trail_report_an_unknown_outcome_resolved_later(
    site: Site, tally: Tally
) -> None:
    assert site.instance.daemon is not None
    site.instance.daemon.popen.send_signal(signal.SIGSTOP)
    page = hand_in(site.student)
    assert "Your result: 0" in page
    assert page.count(QUIZ_UNCONFIRMED) == 1
    site.instance.daemon.popen.send_signal(signal.SIGCONT)
    assert site.client.flush(60)
    # The next event of any page records the outcome.
    assert site.student.get("/results").status_code == 200
    until(lambda: site.client.stats()["unsettled"] == 0, "it is settled")
    events = site.account(tally)
    (at,) = (n for n, event in enumerate(events) if event["type"] == "quiz_submitted")
    quiz, unknown, sent = events[at : at + 3]
    assert (unknown["type"], sent["type"]) == ("durable_unknown", "request_redirected")
    assert unknown["props"] == {
        "producer": quiz["producer"],
        "sequence": quiz["sequence"],
        "type": "quiz_submitted",
        "user_told": True,
    }
    (settled,) = (event for event in events if event["type"] == "durable_settled")
    assert settled["props"]["sequence"] == quiz["sequence"]
    assert settled["props"]["outcome"] == "stored"
    assert {event["user"] for event in (quiz, unknown, settled)} == {str(STUDENT)}


@impatient
def test_without_logd_a_quiz_is_accepted_and_stored_once_logd_is_back(
    site: Site, tally: Tally
) -> None:
    site.instance.kill()
    for number in (1, 2):
        assert QUIZ_UNCONFIRMED in hand_in(site.student, number)
    site.instance.start()
    events = site.account(tally)
    attempts = [e["props"]["attempt"] for e in events if e["type"] == "quiz_submitted"]
    assert attempts == [1, 2]
    assert len([event for event in events if event["type"] == "durable_unknown"]) == 2
