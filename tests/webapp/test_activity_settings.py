"""The Flask extension: `ActivityLog.log`, its apps and its settings."""

from __future__ import annotations

from typing import Any

import flask_login
import pytest

from flask_logd import ActivityLog, ConfigError
from tests.webapp.flask_apps import (
    Clients,
    Event,
    FakeClient,
    logging_to,
    make_app,
    with_flask_login,
)

# -- log, request ids, users -------------------------------------------------------------------


def test_log_adds_the_request_s_user_and_id(clients: Clients) -> None:
    app = with_flask_login(make_app())
    activity = logging_to(clients, app)

    @app.get("/task")
    def task() -> str:
        assert activity.log("task_completed", task=12)
        assert activity.log("task_graded", user=99, durable=True, timeout_s=0.5, event_type="e")
        return activity.request_id or ""

    browser = app.test_client()
    browser.get("/login/7")
    request_id = browser.get("/task").get_data(as_text=True)
    _, completed, graded, page_view = clients.events
    assert completed == Event(
        "task_completed", "7", {"task": 12, "request_id": request_id}, False, 5
    )
    assert graded == Event(
        "task_graded", "99", {"event_type": "e", "request_id": request_id}, True, 0.5
    )
    assert page_view.props["request_id"] == request_id


def test_log_after_the_logout_belongs_to_the_user_who_left(clients: Clients) -> None:
    app = with_flask_login(make_app())
    activity = logging_to(clients, app)

    @app.get("/leave")
    def leave() -> str:
        flask_login.logout_user()
        activity.log("logout")
        return "bye"

    browser = app.test_client()
    browser.get("/login/7")
    browser.get("/leave")
    assert [(event.type, event.user) for event in clients.events[1:]] == [
        ("logout", "7"),
        ("page_view", "7"),
    ]


def test_log_outside_a_request_has_neither_user_nor_request_id(clients: Clients) -> None:
    app = with_flask_login(make_app())
    activity = logging_to(clients, app)
    with app.app_context():
        assert activity.log("term_started", term="2026-1")
        assert activity.request_id is None
    assert clients.events == [Event("term_started", None, {"term": "2026-1"}, False, 5)]


# -- apps and settings -------------------------------------------------------------------------


def test_one_extension_serves_two_apps_with_a_client_each() -> None:
    clients = Clients()
    activity = ActivityLog()
    school = make_app(ACTIVITY_LOG_SOCKET="/school/logd.sock", ACTIVITY_LOG_USER=lambda: "s")
    library = make_app(ACTIVITY_LOG_SOCKET="/library/logd.sock", ACTIVITY_LOG_USER=lambda: "l")
    for app in (school, library):
        app.config["ACTIVITY_LOG_CLIENT"] = clients
    activity.init_app(school)
    activity.init_app(library)

    @school.get("/asks-the-library")
    def asks() -> str:
        return library.test_client().get("/text").get_data(as_text=True)

    assert school.test_client().get("/asks-the-library").get_data(as_text=True) == "text"
    by_socket = {client.socket_path: client.events for client in clients.made}
    assert [event.user for event in by_socket["/school/logd.sock"]] == ["s"]
    assert [event.user for event in by_socket["/library/logd.sock"]] == ["l"]
    assert activity.client(school) is not activity.client(library)


def test_an_app_mounted_as_a_handler_of_another_is_logged_by_both(clients: Clients) -> None:
    outer, inner = make_app(ACTIVITY_LOG_USER=lambda: "o"), make_app(ACTIVITY_LOG_USER=lambda: "i")
    for each in (outer, inner):
        logging_to(clients, each)
    outer.add_url_rule("/<path:rest>", "mounted", lambda rest: inner.wsgi_app)  # noqa: ARG005 - the route names it
    assert outer.test_client().get("/courses/python/").status_code == 404
    assert sorted(view[0] or "" for view in clients.requests) == ["i", "o"]


def test_settings_are_passed_to_the_client(clients: Clients) -> None:
    app = make_app(
        ACTIVITY_LOG_OUTBOX_BYTES=4096,
        ACTIVITY_LOG_OUTBOX_DIRECTORY="/dev/shm/x",
        ACTIVITY_LOG_DURABLE_WAITERS=3,
    )
    activity = logging_to(clients, app)
    assert activity.client(app) is clients.made[0]
    assert clients.made[0] == FakeClient(
        "/nowhere/logd.sock",
        False,
        {"outbox_bytes": 4096, "outbox_directory": "/dev/shm/x", "durable_waiters": 3},
    )


def test_an_unknown_setting_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"ACTIVITY_LOG_SOKET.*mean ACTIVITY_LOG_SOCKET\?"):
        ActivityLog(make_app(ACTIVITY_LOG_SOKET="/run/logd.sock"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ACTIVITY_LOG_SOCKET", None),
        ("ACTIVITY_LOG_SOCKET", 7),
        ("ACTIVITY_LOG_SOCKET", "/" + "x" * 107),
        ("ACTIVITY_LOG_ENABLED", "no"),
        ("ACTIVITY_LOG_EXCLUDE", "static"),
        ("ACTIVITY_LOG_EXCLUDE", [7]),
        ("ACTIVITY_LOG_OUTBOX_BYTES", "8 MiB"),
        ("ACTIVITY_LOG_OUTBOX_BYTES", True),
        ("ACTIVITY_LOG_DURABLE_WAITERS", 0),
        ("ACTIVITY_LOG_DURABLE_WAITERS", 1.5),
        ("ACTIVITY_LOG_OUTBOX_BYTES", 0),
        ("ACTIVITY_LOG_OUTBOX_DIRECTORY", 7),
        ("ACTIVITY_LOG_USER", "7"),
        ("ACTIVITY_LOG_ACTOR", "7"),
        ("ACTIVITY_LOG_CLIENT", None),
        ("ACTIVITY_LOG_REQUEST_ID_HEADER", None),
        ("ACTIVITY_LOG_DURABLE", "quiz_submitted"),
        ("ACTIVITY_LOG_DURABLE", ["Quiz Submitted"]),
        ("ACTIVITY_LOG_DURABLE", [7]),
        ("ACTIVITY_LOG_DURABLE", ["page_view"]),
        ("ACTIVITY_LOG_DURABLE", True),
        ("ACTIVITY_LOG_DURABLE_TIMEOUT_S", "5"),
        ("ACTIVITY_LOG_DURABLE_TIMEOUT_S", -1),
        ("ACTIVITY_LOG_DURABLE_TIMEOUT_S", float("nan")),
        ("ACTIVITY_LOG_DURABLE_TIMEOUT_S", float("inf")),
        ("ACTIVITY_LOG_DURABLE_TIMEOUT_S", True),
        ("ACTIVITY_LOG_DURABLE_UNKNOWN", "raise"),
        ("ACTIVITY_LOG_DURABLE_UNKNOWN", None),
        ("ACTIVITY_LOG_DURABLE_UNKNOWN", []),
        ("ACTIVITY_LOG_DURABLE_MESSAGE", ""),
        ("ACTIVITY_LOG_DURABLE_MESSAGE", None),
    ],
)
def test_a_bad_setting_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        ActivityLog(make_app(**{key: value}))


def test_a_second_init_app_is_refused() -> None:
    app = make_app()
    activity = logging_to(Clients(), app)
    with pytest.raises(RuntimeError, match="already"):
        activity.init_app(app)


def test_an_app_without_the_extension_raises_with_the_remedy() -> None:
    app = make_app()
    with app.app_context(), pytest.raises(RuntimeError, match=r"init_app\(app\)"):
        ActivityLog().log("task_completed")
