"""The Flask extension: the user of an event, and who acts for that user."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import flask_login
import pytest
from flask import Flask, session

from tests.webapp.flask_apps import (
    Account,
    Clients,
    acting,
    logging_to,
    make_app,
    with_flask_login,
    with_own_login,
)


@pytest.mark.parametrize("way_to_log_in", [with_flask_login, with_own_login])
def test_events_of_a_switching_request_belong_to_who_began_it(
    clients: Clients, way_to_log_in: Callable[[Flask], Flask]
) -> None:
    app = way_to_log_in(make_app())
    activity = logging_to(clients, app)

    @app.get("/look-as/<other>")
    def look_as(other: str) -> str:
        activity.log("asked")
        app.view_functions["login"](other)
        activity.log("looked")
        activity.log("page_shown", user=other)
        app.view_functions["login"]("7")
        activity.log("came_back")
        return "looked"

    browser = app.test_client()
    browser.get("/login/7")
    browser.get("/look-as/8")
    switched = {"actor": "7", "switched_to": "8"}
    assert [(event.type, event.user, acting(event)) for event in clients.events[1:]] == [
        ("asked", "7", {}),
        ("looked", "7", switched),
        ("page_shown", "8", switched),
        ("came_back", "7", {}),
        ("page_view", "7", {}),
    ]


@pytest.mark.parametrize("way_to_log_in", [with_flask_login, with_own_login])
def test_a_logout_and_a_login_in_one_request_are_a_switch(
    clients: Clients, way_to_log_in: Callable[[Flask], Flask]
) -> None:
    app = way_to_log_in(make_app())
    logging_to(clients, app)

    @app.get("/change/<other>")
    def change(other: str) -> str:
        app.view_functions["logout"]()
        return str(app.view_functions["login"](other))

    browser = app.test_client()
    browser.get("/login/7")
    browser.get("/change/8")
    _, event = clients.events
    assert (event.user, acting(event)) == ("7", {"actor": "7", "switched_to": "8"})


def test_a_login_in_the_session_of_a_deleted_account_belongs_to_the_new_user(
    clients: Clients,
) -> None:
    accounts = {"7": Account("7"), "8": Account("8")}
    app = with_flask_login(make_app())
    app.login_manager.user_loader(accounts.get)  # type: ignore[attr-defined] # set by Flask-Login
    logging_to(clients, app)
    browser = app.test_client()
    browser.get("/login/7")
    del accounts["7"]
    browser.get("/login/8")
    assert [(event.user, acting(event)) for event in clients.events] == [("7", {}), ("8", {})]


def test_a_login_in_a_stolen_session_belongs_to_the_new_user(
    clients: Clients,
) -> None:
    app = with_flask_login(make_app(SESSION_PROTECTION="strong"))
    logging_to(clients, app)

    @app.before_request
    def gate() -> None:
        assert flask_login.current_user is not None
        flask_login.current_user.is_authenticated  # noqa: B018 - looking at it is the point

    browser = app.test_client()
    browser.get("/login/7", headers={"User-Agent": "firefox"})
    browser.get("/login/8", headers={"User-Agent": "chromium"})
    assert [(event.user, acting(event)) for event in clients.events] == [("7", {}), ("8", {})]


@pytest.mark.parametrize("known_by", ["cookie", "request"])
def test_a_switch_is_recognised_for_every_way_flask_login_finds_a_user(
    clients: Clients, known_by: str
) -> None:
    app = with_flask_login(make_app())
    if known_by == "request":
        app.login_manager.request_loader(  # type: ignore[attr-defined] # set by Flask-Login
            lambda request: (
                Account(request.headers["X-Key"]) if "X-Key" in request.headers else None
            )
        )
    logging_to(clients, app)

    @app.get("/as/<other>")
    @flask_login.login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
    def login_as(other: str) -> str:
        flask_login.login_user(Account(other))
        return "in"

    browser = app.test_client()
    if known_by == "cookie":
        browser.get("/login/7?remember")
        browser.delete_cookie("session")
    browser.get("/as/8", headers={"X-Key": "7"} if known_by == "request" else {})
    event = clients.events[-1]
    assert (event.user, acting(event)) == ("7", {"actor": "7", "switched_to": "8"})


@pytest.mark.parametrize("inner", [None, "8"])
def test_a_request_of_the_app_to_itself_does_not_take_the_outer_request_s_events(
    clients: Clients, inner: str | None
) -> None:
    """Both requests share an application context, and with it Flask-Login's user."""
    app = with_flask_login(make_app())
    activity = logging_to(clients, app)

    @app.get("/outer")
    def outer() -> str:
        if early:
            activity.log("begun")
        other = app.test_client()
        if inner is not None:
            other.get(f"/login/{inner}")
        other.get("/text")
        activity.log("done")
        return "done"

    browser = app.test_client()
    browser.get("/login/7")
    for early in (False, True):
        clients.made[0].events.clear()
        browser.get("/outer")
        of_outer = [e for e in clients.events if e.props.get("endpoint") not in ("login", "text")]
        assert [(event.type, event.user, acting(event)) for event in of_outer] == [
            *([("begun", "7", {})] if early else []),
            ("done", "7", {}),
            ("page_view", "7", {}),
        ]


def test_users_are_compared_by_their_ids_and_not_by_the_session_s_keys(clients: Clients) -> None:
    """Flask-Login may keep another key in the session than the user's id."""
    app = make_app()
    manager = flask_login.LoginManager(app)
    manager.id_attribute = "session_key"

    class Keyed(Account):
        def session_key(self) -> str:
            return f"key {next(numbers)} of {self.id}"

    numbers = itertools.count()
    manager.user_loader(lambda key: Keyed(key.split()[-1]))
    logging_to(clients, app)
    app.add_url_rule("/login/<who>", "login", lambda who: str(flask_login.login_user(Keyed(who))))
    browser = app.test_client()
    for path in ("/login/7", "/text", "/login/7", "/login/8"):
        browser.get(path)
    assert [(event.user, acting(event)) for event in clients.events] == [
        ("7", {}),
        ("7", {}),
        ("7", {}),
        ("7", {"actor": "7", "switched_to": "8"}),
    ]


def test_every_event_names_the_actor(clients: Clients) -> None:
    """An application whose administrators can act as another user."""
    app = with_own_login(make_app(ACTIVITY_LOG_ACTOR=lambda: session.get("administrator")))
    activity = logging_to(clients, app)

    @app.get("/as/<other>")
    def start(other: str) -> str:
        session.update(administrator=session["account"], account=other)
        return "as"

    @app.get("/task")
    def task() -> str:
        activity.log("task_completed")
        activity.log("task_graded", user="9")
        activity.log("task_seen", user="1")
        activity.log("film_seen", actor="Buster Keaton")
        return "done"

    @app.get("/back")
    def back() -> str:
        session["account"] = session.pop("administrator")
        activity.log("came_back", user=session["account"])
        return "back"

    browser = app.test_client()
    for path in ("/login/1", "/text", "/as/7", "/text", "/task", "/back", "/text"):
        browser.get(path)
    assert [(event.type, event.user, acting(event)) for event in clients.events] == [
        ("page_view", "1", {}),
        ("page_view", "1", {}),
        ("page_view", "1", {"actor": "1", "switched_to": "7"}),
        ("page_view", "7", {"actor": "1"}),
        ("task_completed", "7", {"actor": "1"}),
        ("task_graded", "9", {"actor": "1"}),
        ("task_seen", "1", {}),
        ("film_seen", "7", {"actor": "Buster Keaton"}),
        ("page_view", "7", {"actor": "1"}),
        ("came_back", "1", {}),
        ("page_view", "7", {"actor": "1", "switched_to": "1"}),
        ("page_view", "1", {}),
    ]


def test_a_failing_actor_callable_is_not_raised(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: "7", ACTIVITY_LOG_ACTOR=lambda: 1 // 0)
    activity = logging_to(clients, app)
    assert app.test_client().get("/text").status_code == 200
    with app.app_context():
        assert activity.stats()["hook_failures"] == 1
    assert clients.events == []


def test_the_actor_callable_is_called_in_requests_only(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_ACTOR=lambda: session["administrator"])
    activity = logging_to(clients, app)
    with app.app_context():
        assert activity.log("term_started", user="7")
    assert [(event.user, acting(event)) for event in clients.events] == [("7", {})]
