"""The Flask extension: callables of the application that add to events, filter them, or fail."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Response, g, request

from flask_logd import ActivityLog, Outcome, callables, failures
from flask_logd.callables import EXTRA_BYTES_MAX, BadResult, LoggedInFilter
from logd_wire.schema import check_props
from tests.support.instance import Instance, check_sums
from tests.webapp.flask_apps import (
    Clients,
    DatabaseClosed,
    FakeClient,
    app_of_7,
    logging_to,
    make_app,
)


def test_extra_properties_are_in_all_events_of_a_request_and_asked_for_once(
    clients: Clients,
) -> None:
    asked = []

    def extra() -> Mapping[str, Any]:
        asked.append(request.path)
        return {"tenant": g.tenant, "on_behalf_of": {"user": 9}, "route": "forged", "task": 0}

    app, activity = app_of_7(clients, ACTIVITY_LOG_EXTRA=extra)

    @app.before_request
    def find_tenant() -> None:
        g.tenant = "north"

    @app.get("/task")
    def task() -> str:
        activity.log("task_completed", task=12)
        return "done"

    app.test_client().get("/task")
    completed, view = clients.events
    assert asked == ["/task"]
    assert completed.props == {
        "request_id": view.props["request_id"],
        "tenant": "north",
        "on_behalf_of": {"user": 9},
        "route": "forged",
        "task": 12,
    }
    assert (view.props["tenant"], view.props["route"]) == ("north", "/task")


def test_extra_properties_are_not_asked_for_where_nothing_is_logged(clients: Clients) -> None:
    asked: list[str] = []
    app, activity = app_of_7(
        clients,
        ACTIVITY_LOG_EXTRA=lambda: asked.append(request.path),
        ACTIVITY_LOG_STATUSES=["4xx"],
        ACTIVITY_LOG_EXCLUDE=["forbidden"],
    )
    for path in ("/text", "/forbidden"):
        app.test_client().get(path)
    with app.app_context():
        activity.log("term_started")
    assert asked == []
    app.test_client().get("/no-such-page")
    assert asked == ["/no-such-page"]


def raising() -> Any:
    raise DatabaseClosed("the name of a pupil")


def too_large() -> Any:
    return {"text": "x" * EXTRA_BYTES_MAX}


def endless() -> Any:
    itself: dict[str, Any] = {}
    itself["itself"] = [itself] * 100
    return itself


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        (raising, "DatabaseClosed"),
        (too_large, "BadResult"),
        (lambda: {"text": "x" * 10**6}, "TooLarge"),
        (endless, "TooLarge"),
        (lambda: "tenant", "Malformed"),
        (lambda: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_a_failing_extra_costs_no_page_and_no_event_and_is_counted(
    clients: Clients, extra: Any, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, activity = app_of_7(clients, ACTIVITY_LOG_EXTRA=extra)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            assert app.test_client().get("/text").text == "text"
    assert [event.props["status"] for event in clients.events] == [200] * 100
    assert all(event.props["extra_error"].endswith(error) for event in clients.events)
    with app.app_context():
        assert activity.stats()["hook_failures"] == 100
    assert len(caplog.records) == 1, "at most one message a minute"
    assert "pupil" not in caplog.text


def test_extra_properties_are_a_copy_of_what_the_app_keeps(clients: Clients) -> None:
    tags = ["a"]
    kept = {"tenant": "north", "tags": tags}
    app, activity = app_of_7(clients, ACTIVITY_LOG_EXTRA=lambda: kept)

    @app.get("/task")
    def task() -> str:
        activity.log("task_completed")
        tags.append("b")
        return "done"

    app.test_client().get("/task")
    assert [event.props["tags"] for event in clients.events] == [["a"], ["a"]]


def test_an_extra_that_logs_is_called_once(clients: Clients) -> None:
    def extra() -> dict[str, Any]:
        activity.log("tenant_found")
        return {"tenant": "north"}

    app, activity = app_of_7(clients, ACTIVITY_LOG_EXTRA=extra)
    app.test_client().get("/text")
    assert [(event.type, event.props.get("tenant")) for event in clients.events] == [
        ("tenant_found", None),
        ("page_view", "north"),
    ]


def test_a_filter_redacts_and_drops_and_what_it_drops_is_counted(clients: Clients) -> None:
    seen = []

    def keep(event_type: str, user: str | None, props: dict[str, Any]) -> dict[str, Any] | None:
        seen.append((event_type, user))
        if props.get("endpoint") == "text":
            return None
        props.pop("answer", None)
        return props

    app, activity = app_of_7(clients, ACTIVITY_LOG_FILTER=keep)

    @app.get("/ask")
    def ask() -> str:
        given = {"answer": "the name of a pupil", "quiz": 3}
        assert activity.log("asked", props=given)
        assert given == {"answer": "the name of a pupil", "quiz": 3}, "the caller's own is kept"
        return "asked"

    for path in ("/text", "/ask"):
        app.test_client().get(path)
    assert seen == [("page_view", "7"), ("asked", "7"), ("page_view", "7")]
    assert [event.type for event in clients.events] == ["asked", "page_view"]
    assert clients.events[0].props.keys() == {"request_id", "quiz"}
    with app.app_context():
        stats = activity.stats()
    assert (stats["filtered"], stats["attempted"], stats["hook_failures"]) == (1, 2, 0)


def test_a_filter_can_sample(clients: Clients) -> None:
    chance = random.Random(3)
    app, activity = app_of_7(
        clients,
        ACTIVITY_LOG_FILTER=lambda _type, _user, props: props if chance.random() < 0.5 else None,
    )
    for _ in range(200):
        app.test_client().get("/text")
    with app.app_context():
        dropped = activity.stats()["filtered"]
    assert len(clients.events) + dropped == 200
    assert 60 < dropped < 140


def test_a_dropped_event_is_not_accepted(clients: Clients) -> None:
    app, activity = app_of_7(clients, ACTIVITY_LOG_FILTER=lambda *_: None)
    with app.app_context():
        assert activity.log("asked") is False
        assert activity.log("asked", durable=True) is Outcome.REFUSED
        assert activity.stats()["filtered"] == 2
    assert clients.events == []


@pytest.mark.parametrize(
    ("keep", "error"),
    [
        (lambda *_: raising(), "DatabaseClosed"),
        (lambda *_: True, "BadResult"),
        (lambda *_: [("quiz", 3)], "BadResult"),
        (lambda _only_one: {}, "TypeError"),
    ],
)
def test_an_event_whose_filter_fails_is_logged_without_what_it_should_redact(
    clients: Clients, keep: Any, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, activity = app_of_7(clients, ACTIVITY_LOG_FILTER=keep, ACTIVITY_LOG_VIEW_ARGS="all")

    @app.get("/ask")
    def ask() -> str:
        return str(activity.log("asked", answer="the name of a pupil"))

    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            assert app.test_client().get("/ask").text == "True"
    assert [event.type for event in clients.events] == ["asked", "page_view"] * 50
    for event in clients.events:
        assert event.props.keys() == {"request_id", "filter_error"}
        assert event.props["filter_error"].endswith(error)
        assert event.user == "7"
    with app.app_context():
        stats = activity.stats()
    assert (stats["hook_failures"], stats["filtered"]) == (100, 0)
    assert len(caplog.records) == 1
    assert "pupil" not in caplog.text


def test_a_filter_that_logs_does_not_call_itself(clients: Clients) -> None:
    def keep(event_type: str, user: str | None, props: dict[str, Any]) -> dict[str, Any]:
        assert activity.log("filtered_something") is False
        return props

    app, activity = app_of_7(clients, ACTIVITY_LOG_FILTER=keep)
    app.test_client().get("/text")
    assert [event.type for event in clients.events] == ["page_view"]
    with app.app_context():
        assert activity.stats()["hook_failures"] == 1
    app.testing = True
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(LoggedInFilter):
        app.test_client().get("/text")


@pytest.mark.parametrize(
    "config",
    [
        {"ACTIVITY_LOG_EXTRA": too_large},
        {"ACTIVITY_LOG_FILTER": lambda *_: True},
    ],
)
def test_a_bad_callable_raises_while_testing(clients: Clients, config: dict[str, Any]) -> None:
    app, _ = app_of_7(clients, TESTING=True, **config)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(BadResult):
        app.test_client().get("/text")


@pytest.mark.parametrize(
    ("setting", "function"),
    [
        ("ACTIVITY_LOG_EXTRA", dict),
        ("ACTIVITY_LOG_FILTER", lambda _type, _user, props: props),
        ("ACTIVITY_LOG_ACTOR", lambda: None),
        ("ACTIVITY_LOG_USER", lambda: 7),
    ],
)
def test_a_slow_callable_is_counted_and_named_at_a_bounded_rate(
    clients: Clients,
    setting: str,
    function: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app(**({"ACTIVITY_LOG_USER": lambda: 7} | {setting: function}))
    activity = logging_to(clients, app)
    app.test_client().get("/text")
    with app.app_context():
        assert activity.stats()["slow_calls"] == 0
    monkeypatch.setattr(failures, "SLOW_S", -1.0)  # every call takes longer than that
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            assert app.test_client().get("/text").status_code == 200
    with app.app_context():
        assert activity.stats()["slow_calls"] >= 20
    assert len(clients.events) == 21
    messages = [record.getMessage() for record in caplog.records]
    (message,) = (message for message in messages if setting in message)
    assert "took" in message and "the request waited for it" in message


@pytest.mark.parametrize("setting", ["EXTRA", "FILTER"])
def test_no_lock_is_held_while_a_callable_runs(instance: Instance, setting: str) -> None:
    """Another thread logs while it runs: with a lock of ours held, neither would ever end."""

    def run(*_: Any) -> dict[str, Any]:
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=log_elsewhere)
            other.start()
            other.join(30)
            assert not other.is_alive(), "the other thread waits for this one"
        return {"by": "callable"}

    def log_elsewhere() -> None:
        with app.app_context():
            assert activity.log("logged_elsewhere")
            activity.stats()

    app = make_app(
        ACTIVITY_LOG_SOCKET=instance.socket,
        ACTIVITY_LOG_USER=lambda: 7,
        **{f"ACTIVITY_LOG_{setting}": run},
    )
    activity = ActivityLog(app)
    assert app.test_client().get("/text").status_code == 200
    with app.app_context():
        stats = activity.stats()
    assert (stats["attempted"], stats["accepted"], stats["hook_failures"]) == (2, 2, 0)
    instance.start()
    check_sums(instance.settle(), attempted=2, accepted=2)
    activity.client(app).close()
    assert [event["type"] for event in instance.events()][-2:] == ["logged_elsewhere", "page_view"]


def test_no_lock_is_held_while_a_client_is_made_and_one_is_used() -> None:
    made: list[FakeClient] = []

    def make(socket_path: str, **options: Any) -> FakeClient:
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=lambda: activity.client(app).emit("logged_elsewhere"))
            other.start()
            other.join(30)
            assert not other.is_alive(), "the other thread waits for this one"
        made.append(FakeClient(socket_path, options=options))
        return made[-1]

    app = make_app(ACTIVITY_LOG_USER=lambda: 7)
    activity = logging_to(make, app)
    assert app.test_client().get("/text").status_code == 200
    used, spare = made
    assert activity.client(app) is used
    assert [event.type for event in used.events] == ["logged_elsewhere", "page_view"]
    assert (used.closed, spare.closed, spare.events) == (False, True, [])


def test_extra_properties_fit_what_an_event_may_hold(clients: Clients) -> None:
    app, _ = app_of_7(
        clients, ACTIVITY_LOG_EXTRA=lambda: {"when": Response, 5: {"a", "b"}, "text": "x" * 4000}
    )
    app.test_client().get("/text")
    (event,) = clients.events
    check_props(event.props)
    assert event.props["5"] == ["a", "b"]
    assert callables.EXTRA_ERROR not in event.props
