"""The Flask extension: durable events and their outcomes."""

from __future__ import annotations

from typing import Any

import pytest
from flask import (
    Flask,
    get_flashed_messages,
    jsonify,
)

from flask_logd import ActivityLog
from flask_logd.durable import MESSAGE
from logd_client import Outcome
from tests.webapp.flask_apps import (
    Clients,
    logging_to,
    make_app,
    with_flask_login,
)


def quiz_app(clients: Clients, **config: Any) -> tuple[ActivityLog, Flask]:
    """Creates an app with durable quizzes, and a page that returns the flashed messages."""
    app = with_flask_login(make_app(ACTIVITY_LOG_DURABLE=["quiz_submitted"], **config))
    activity = logging_to(clients, app)

    @app.get("/quiz")
    def quiz() -> str:
        return str(activity.log("quiz_submitted", quiz=3))

    @app.get("/messages")
    def messages() -> Any:
        return jsonify(get_flashed_messages(with_categories=True))

    return activity, app


def test_only_durable_event_types_wait_for_the_disk(clients: Clients) -> None:
    activity, app = quiz_app(clients, ACTIVITY_LOG_DURABLE_TIMEOUT_S=0.25)
    with app.app_context():
        assert activity.log("quiz_submitted", quiz=1) is Outcome.STORED
        assert activity.log("quiz_submitted", quiz=2, timeout_s=9) is Outcome.STORED
        assert activity.log("quiz_submitted", quiz=3, durable=False) is True
        assert activity.log("task_completed", task=4) is True
        assert activity.log("task_completed", task=5, durable=True) is Outcome.STORED
    assert [(event.durable, event.timeout_s) for event in clients.events] == [
        (True, 0.25), (True, 9), (False, 5.0), (False, 5.0), (True, 0.25),
    ]  # fmt: skip


@pytest.mark.parametrize("outcome", list(Outcome))
def test_by_default_an_outcome_is_counted_and_the_page_is_unchanged(
    outcome: Outcome,
) -> None:
    clients = Clients(outcome=outcome)
    activity, app = quiz_app(clients)
    browser = app.test_client()
    browser.get("/login/7")
    response = browser.get("/quiz")
    assert (response.status_code, response.text) == (200, str(outcome))
    assert "Set-Cookie" not in response.headers
    assert browser.get("/messages").get_json() == []
    with app.app_context():
        assert activity.stats()["durable"] == {
            "stored": 0, "refused": 0, "unknown": 0, outcome.value: 1,
        }  # fmt: skip
    assert clients.events[1].tell_user is False


@pytest.mark.parametrize(
    ("outcome", "flashed"),
    [(Outcome.STORED, []), (Outcome.REFUSED, []), (Outcome.UNKNOWN, [["warning", MESSAGE]])],
)
def test_an_unknown_outcome_is_flashed_once_with_tell_user(
    outcome: Outcome, flashed: list[list[str]]
) -> None:
    clients = Clients(outcome=outcome)
    activity, app = quiz_app(clients, ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user")
    browser = app.test_client()
    browser.get("/login/7")
    assert browser.get("/quiz").text == str(outcome)
    assert browser.get("/messages").get_json() == flashed
    assert browser.get("/messages").get_json() == []
    assert clients.events[1].tell_user is True, "so that the trail can say so"
    with app.app_context():
        assert activity.stats()["durable"][outcome.value] == 1


def test_the_flashed_message_is_a_setting() -> None:
    clients = Clients(outcome=Outcome.UNKNOWN)
    words = "Your quiz is kept."
    _, app = quiz_app(
        clients, ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user", ACTIVITY_LOG_DURABLE_MESSAGE=words
    )
    browser = app.test_client()
    browser.get("/quiz")
    assert browser.get("/messages").get_json() == [["warning", words]]


def test_outside_a_request_no_message_is_flashed_and_none_is_recorded() -> None:
    clients = Clients(outcome=Outcome.UNKNOWN)
    activity, app = quiz_app(clients, ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user")
    with app.app_context():
        assert activity.log("quiz_submitted") is Outcome.UNKNOWN
    assert [event.tell_user for event in clients.events] == [False]


def test_a_failure_to_flash_does_not_change_the_outcome() -> None:
    """Without a secret key there is no session to flash into."""
    clients = Clients(outcome=Outcome.UNKNOWN)
    app = make_app(
        ACTIVITY_LOG_DURABLE=["quiz_submitted"], ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user"
    )
    app.config["SECRET_KEY"] = None
    activity = logging_to(clients, app)

    @app.get("/quiz")
    def quiz() -> str:
        return str(activity.log("quiz_submitted"))

    assert app.test_client().get("/quiz").text == str(Outcome.UNKNOWN)
    with app.app_context():
        stats = activity.stats()
    assert (stats["hook_failures"], stats["durable"]["unknown"]) == (1, 1)


def test_a_durable_event_is_refused_if_the_client_fails() -> None:
    clients = Clients(broken=OSError("secret of an event"))
    activity, app = quiz_app(clients, ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user")
    assert app.test_client().get("/quiz").text == str(Outcome.REFUSED)
    with app.app_context():
        stats = activity.stats()
    assert (stats["hook_failures"], stats["durable"]["refused"]) == (1, 1)


def test_a_disabled_extension_refuses_a_durable_event_too() -> None:
    app = make_app(
        ACTIVITY_LOG_SOCKET=None,
        ACTIVITY_LOG_ENABLED=False,
        ACTIVITY_LOG_DURABLE={"quiz_submitted"},
    )
    activity = ActivityLog(app)
    with app.app_context():
        assert activity.log("quiz_submitted") is Outcome.REFUSED
        assert activity.stats()["refused_by_cause"] == {"disabled": 1}
