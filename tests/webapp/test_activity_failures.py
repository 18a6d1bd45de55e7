"""The Flask extension: it changes no response, and its failures are not raised in requests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from unittest import mock

import pytest
from flask import (
    Flask,
    session,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_logd.failures import Failures
from logd_wire.schema import Malformed
from tests.webapp.flask_apps import (
    Clients,
    DatabaseClosed,
    FakeClient,
    logging_to,
    make_app,
    with_flask_login,
    with_own_login,
)

# -- no response is changed --------------------------------------------------------------------

REQUESTS = st.tuples(
    st.sampled_from(["GET", "GET", "GET", "HEAD", "OPTIONS", "POST"]),
    st.sampled_from(
        [
            "/text",
            "/courses/x",
            "/stream",
            "/stream-with-context",
            "/redirect",
            "/forbidden",
            "/teapot",
            "/crash",
            "/handled-crash",
            "/reads-session",
            "/writes-session",
            "/only-post",
            "/no-such-page",
            "/login/7",
            "/login/8?remember",
            "/logout",
        ]
    ),
    # Another browser with the same cookie, or a lost session with a remember cookie, makes
    # Flask-Login write to the session.
    st.sampled_from(["firefox", "chromium"]),
    st.sampled_from(["", "drop session"]),
)


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Silences the logs of hundreds of intended exceptions."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def answers(app: Flask, requests: list[tuple[str, str, str, str]]) -> list[tuple[Any, ...]]:
    browser = app.test_client()
    seen: list[tuple[Any, ...]] = []
    for method, path, agent, drop in requests:
        if drop:
            browser.delete_cookie("session")
        response = browser.open(path, method=method, headers={"User-Agent": agent}, data=b"body")
        seen.append((response.status, list(response.headers), response.get_data()))
    return seen


def extra_of_the_session() -> dict[str, Any]:
    """Raises for the browsers without a session, and reads that of the others."""
    return {"visits": session["visits"]}


ALL_CHOICES = {
    "ACTIVITY_LOG_VIEW_ARGS": "all",
    "ACTIVITY_LOG_ANONYMOUS": True,
    "ACTIVITY_LOG_EXTRA": extra_of_the_session,
    "ACTIVITY_LOG_FILTER": lambda _type, _user, props: session and props,
}


@pytest.mark.parametrize("way_to_log_in", [with_flask_login, with_own_login])
@pytest.mark.parametrize(
    ("broken", "choices"),
    [(None, {}), (RuntimeError("broken client"), {}), (None, ALL_CHOICES)],
)
@pytest.mark.usefixtures("quiet_logs")
@pytest.mark.parametrize("examples", [15, pytest.param(200, marks=pytest.mark.long(minutes=0.2))])
def test_no_byte_of_any_response_is_changed(
    way_to_log_in: Callable[[Flask], Flask],
    broken: Exception | None,
    choices: dict[str, Any],
    examples: int,
) -> None:
    @given(requests=st.lists(REQUESTS, max_size=8))
    @settings(max_examples=examples, deadline=None)
    def check(requests: list[tuple[str, str, str, str]]) -> None:
        check_answers(way_to_log_in, broken, choices, requests)

    check()


def check_answers(
    way_to_log_in: Callable[[Flask], Flask],
    broken: Exception | None,
    choices: dict[str, Any],
    requests: list[tuple[str, str, str, str]],
) -> None:
    plain = way_to_log_in(make_app())
    logged = way_to_log_in(make_app(**choices))
    logging_to(Clients(broken=broken), logged)
    # Signed cookies contain the time: it is fixed, so that they can be compared.
    with (
        mock.patch("itsdangerous.timed.TimestampSigner.get_timestamp", return_value=1_700_000_000),
        mock.patch("flask_login.login_manager.datetime") as clock,
    ):
        clock.utcnow.return_value = datetime(2030, 1, 1)
        assert answers(logged, requests) == answers(plain, requests)


def test_no_vary_header_is_added_where_the_app_does_not_use_the_session() -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: session.get("account"))
    activity = logging_to(Clients(), app)

    @app.get("/logs")
    def logs() -> str:
        activity.log("task_completed")
        return "logged"

    assert "Vary" not in app.test_client().get("/text").headers
    assert "Vary" not in app.test_client().get("/logs").headers
    assert app.test_client().get("/reads-session").headers["Vary"] == "Cookie"


# -- failures ----------------------------------------------------------------------------------


def test_failures_of_the_client_are_counted_and_not_raised() -> None:
    app = with_flask_login(make_app())
    activity = logging_to(Clients(broken=OSError("secret of an event")), app)
    browser = app.test_client()
    assert browser.get("/login/7").status_code == 200
    assert browser.get("/text").get_data(as_text=True) == "text"
    with app.app_context():
        assert activity.log("task_completed", task=12) is False
        assert activity.stats()["hook_failures"] == 3


def test_a_failure_to_create_the_client_is_not_raised() -> None:
    def fails(socket_path: str, **_: Any) -> FakeClient:
        raise MemoryError

    app = with_flask_login(make_app())
    logging_to(fails, app)
    assert app.test_client().get("/login/7").status_code == 200


def test_a_failing_user_callable_is_counted_and_not_raised(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: 1 // 0)
    activity = logging_to(clients, app)
    assert app.test_client().get("/text").status_code == 200
    with app.app_context():
        assert activity.stats()["hook_failures"] == 1


def test_failures_are_logged_at_a_bounded_rate_and_without_the_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()
    now_s = 1000.0
    failures = Failures(clock=lambda: now_s)

    def fail() -> None:
        try:
            raise OSError("the name of a pupil")
        except OSError as error:
            failures.record(app, error)

    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            fail()
        now_s += 59.9
        fail()
        assert len(caplog.records) == 1
        now_s += 0.2
        fail()
    first, second = (record.getMessage() for record in caplog.records)
    assert "1 failure(s)" in first
    assert "101 failure(s) since the last message, 102 in total; latest: OSError at" in second
    assert "pupil" not in caplog.text


@pytest.mark.parametrize("mode", ["TESTING", "DEBUG"])
def test_failures_are_raised_while_testing_or_debugging(mode: str) -> None:
    clients = Clients(broken=Malformed("props nest too deep"))
    app = with_flask_login(make_app())
    activity = logging_to(clients, app)
    app.config[mode] = True  # after init_app, as tests do
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(Malformed):
        app.test_client().get("/login/7")
    with app.app_context(), pytest.raises(Malformed):
        activity.log("task_completed")
    assert [client.strict for client in clients.made] == [True]


def test_a_failure_while_testing_does_not_replace_the_handler_s_exception() -> None:
    clients = Clients()
    app = with_flask_login(make_app(TESTING=True))
    app.config["PROPAGATE_EXCEPTIONS"] = True
    logging_to(clients, app)
    browser = app.test_client()
    browser.get("/login/7")
    clients.made[0].broken = RuntimeError("ours")
    with pytest.raises(DatabaseClosed):
        browser.get("/crash")
