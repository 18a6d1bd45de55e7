"""The Flask extension: page views, their users and their properties."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    copy_current_request_context,
    g,
    request,
)
from flask.testing import FlaskClient
from werkzeug.exceptions import ServiceUnavailable

from flask_logd import ActivityLog
from tests.webapp.flask_apps import (
    Clients,
    DatabaseClosed,
    acting,
    logging_to,
    make_app,
    with_flask_login,
    with_own_login,
)


@pytest.fixture(params=[with_flask_login, with_own_login])
def app(request: pytest.FixtureRequest, clients: Clients) -> Flask:
    made: Flask = request.param(make_app())
    logging_to(clients, made)
    return made


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    """A browser without a login."""
    return app.test_client()


@pytest.fixture
def student(browser: FlaskClient, clients: Clients) -> FlaskClient:
    """A browser of student 7; `clients.events` is empty after the login."""
    browser.get("/login/7")
    for client in clients.made:
        client.events.clear()
    return browser


# -- what is logged ----------------------------------------------------------------------------


def test_a_page_view_has_route_method_status_duration_and_request_id(
    student: FlaskClient, clients: Clients
) -> None:
    student.get("/courses/python", headers={"X-Request-ID": "abc-1"})
    (event,) = clients.events
    assert event.type == "page_view"
    assert event.user == "7"
    duration_ms = event.props.pop("duration_ms")
    assert isinstance(duration_ms, float)
    assert 0 < duration_ms < 10_000
    assert event.props == {
        "route": "/courses/<slug>",
        "endpoint": "course",
        "method": "GET",
        "status": 200,
        "request_id": "abc-1",
    }


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "event_type"),
    [
        ("GET", "/text", "/text", 200, "page_view"),
        ("GET", "/stream", "/stream", 200, "page_view"),
        ("GET", "/stream-with-context", "/stream-with-context", 200, "page_view"),
        ("GET", "/not-modified", "/not-modified", 304, "page_view"),
        ("HEAD", "/text", "/text", 200, "request_answered"),
        ("OPTIONS", "/text", "/text", 200, "request_answered"),
        ("POST", "/only-post", "/only-post", 200, "request_answered"),
        ("GET", "/redirect", "/redirect", 302, "request_redirected"),
        ("GET", "/no-such-page", None, 404, "request_refused"),
        ("GET", "/only-post", None, 405, "request_refused"),
        ("GET", "/forbidden", "/forbidden", 403, "request_refused"),
        ("GET", "/teapot", "/teapot", 418, "request_refused"),
        ("GET", "/crash", "/crash", 500, "request_failed"),
        ("GET", "/handled-crash", "/handled-crash", 503, "request_failed"),
    ],
)
def test_every_request_is_one_event_and_a_page_view_only_if_it_showed_a_page(
    student: FlaskClient,
    clients: Clients,
    method: str,
    path: str,
    route: str,
    status: int,
    event_type: str,
) -> None:
    student.open(path, method=method)
    assert clients.requests == [("7", method, route, status)]
    assert [event.type for event in clients.events] == [event_type]


def test_requests_without_a_user_are_not_logged(browser: FlaskClient, clients: Clients) -> None:
    for path in ("/text", "/no-such-page", "/crash", "/reads-session", "/logout"):
        browser.get(path)
    assert clients.events == []


def test_a_login_belongs_to_the_user_who_logged_in(browser: FlaskClient, clients: Clients) -> None:
    browser.post("/login/7")
    assert clients.requests == [("7", "POST", "/login/<account_id>", 200)]


def test_a_logout_belongs_to_the_user_who_logged_out(
    student: FlaskClient, clients: Clients
) -> None:
    student.post("/logout")
    assert clients.requests == [("7", "POST", "/logout", 200)]


def test_a_switch_of_users_belongs_to_the_first_and_names_the_second(
    student: FlaskClient, clients: Clients
) -> None:
    student.post("/login/8")
    student.get("/text")
    assert [(event.user, acting(event)) for event in clients.events] == [
        ("7", {"actor": "7", "switched_to": "8"}),
        ("8", {}),
    ]


def test_a_login_as_the_same_user_is_not_a_switch(student: FlaskClient, clients: Clients) -> None:
    student.post("/login/7")
    assert [(event.user, acting(event)) for event in clients.events] == [("7", {})]


def test_an_exception_raised_to_the_server_is_logged_as_500(
    app: Flask, student: FlaskClient, clients: Clients
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(DatabaseClosed):
        student.get("/crash")
    assert clients.requests == [("7", "GET", "/crash", 500)]


def test_a_handler_that_raises_system_exit_is_logged(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.get("/exits")
    def exits() -> str:
        raise SystemExit(1)

    browser.get("/login/7")
    with pytest.raises(SystemExit):
        browser.get("/exits")
    assert clients.requests[-1] == ("7", "GET", "/exits", 500)


def test_a_request_answered_by_before_request_is_logged(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.before_request
    def closed() -> tuple[str, int] | None:
        return ("closed today", 503) if "closed" in request.args else None

    browser.get("/login/7")
    browser.get("/text?closed")
    assert clients.requests[-1] == ("7", "GET", "/text", 503)


def test_the_logged_status_is_the_one_sent(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.after_request
    def overrule(response: Response) -> Response:
        response.status_code = 202
        return response

    browser.get("/login/7")
    assert clients.requests[-1][-1] == 202


def test_a_copied_request_context_in_a_thread_logs_no_second_page_view(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.get("/in-a-thread")
    def in_a_thread() -> str:
        @copy_current_request_context
        def work() -> None:
            raise DatabaseClosed

        def run() -> None:
            with pytest.raises(DatabaseClosed):
                work()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return "done"

    browser.get("/login/7")
    browser.get("/in-a-thread")
    assert clients.requests[1:] == [("7", "GET", "/in-a-thread", 200)]


def test_a_streamed_response_is_not_consumed(app: Flask, clients: Clients) -> None:
    read = []

    @app.get("/lazy")
    def lazy() -> Response:
        def parts() -> Iterator[str]:
            for part in "abc":
                read.append(part)
                yield part

        return Response(parts())

    browser = app.test_client()
    browser.get("/login/7")
    response = browser.get("/lazy", buffered=False)
    # Werkzeug's test client itself takes the first part, to see the headers.
    assert read == ["a"]
    assert clients.requests[-1] == ("7", "GET", "/lazy", 200)
    assert response.get_data(as_text=True) == "abc"


def test_a_user_set_by_before_request_is_found(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: g.user_id)
    logging_to(clients, app)

    @app.before_request
    def load() -> None:
        g.user_id = 7

    app.test_client().get("/text")
    assert clients.requests == [("7", "GET", "/text", 200)]


# -- what is not logged ------------------------------------------------------------------------


def app_with_blueprints(clients: Clients, **config: Any) -> FlaskClient:
    app = make_app(ACTIVITY_LOG_USER=lambda: 7, **config)
    admin = Blueprint("admin", __name__, static_folder=".", static_url_path="/files")
    admin.add_url_rule("/", "home", lambda: "home")
    nested = Blueprint("deep", __name__)
    nested.add_url_rule("/deep", "page", lambda: "page")
    admin.register_blueprint(nested)
    app.register_blueprint(admin, url_prefix="/admin")
    app.add_url_rule("/administrate", "administrate", lambda: "not of the blueprint")
    logging_to(clients, app)
    return app.test_client()


PATHS = ("/text", "/administrate", "/admin/", "/admin/deep", "/admin/files/test_activity.py")


@pytest.mark.parametrize(
    ("exclude", "logged"),
    [
        (None, ["text", "administrate", "admin.home", "admin.deep.page"]),
        ([], ["text", "administrate", "admin.home", "admin.deep.page", "admin.static"]),
        (["text"], ["administrate", "admin.home", "admin.deep.page", "admin.static"]),
        (["admin"], ["text", "administrate"]),
        (["admin."], ["text", "administrate"]),
        (["admin.deep", "*.static"], ["text", "administrate", "admin.home"]),
    ],
)
def test_excluded_endpoints_and_blueprints_are_not_logged(
    clients: Clients, exclude: list[str] | None, logged: list[str]
) -> None:
    config = {} if exclude is None else {"ACTIVITY_LOG_EXCLUDE": exclude}
    browser = app_with_blueprints(clients, **config)
    for path in PATHS:
        assert browser.get(path).status_code == 200
    assert [event.props["endpoint"] for event in clients.events] == logged


def test_a_disabled_extension_logs_nothing_and_needs_no_socket() -> None:
    app = with_flask_login(make_app(ACTIVITY_LOG_SOCKET=None, ACTIVITY_LOG_ENABLED=False))
    activity = ActivityLog(app)
    browser = app.test_client()
    browser.get("/login/7")
    assert browser.get("/text").status_code == 200
    with app.app_context():
        assert activity.log("task_completed", task=1) is False
        assert activity.stats()["refused_by_cause"] == {"disabled": 1}
        assert activity.client().flush(1.0)


@pytest.mark.parametrize("given_id", ["A-1_b.c", "x" * 64])
def test_a_valid_request_id_is_used(student: FlaskClient, clients: Clients, given_id: str) -> None:
    student.get("/text", headers={"X-Request-ID": given_id})
    assert clients.events[0].props["request_id"] == given_id


@pytest.mark.parametrize("given_id", ["", "x" * 65, "a b", "a/b", "ä", "<script>"])
def test_any_other_request_id_is_replaced(
    student: FlaskClient, clients: Clients, given_id: str
) -> None:
    student.get("/text", headers={"X-Request-ID": given_id})
    request_id = clients.events[0].props["request_id"]
    assert len(request_id) == 32
    assert int(request_id, 16) > 0


def test_requests_in_one_app_context_have_different_ids(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: 7)
    logging_to(clients, app)
    with app.app_context():
        app.test_client().get("/text")
        app.test_client().get("/text")
    first, second = clients.events
    assert first.props["request_id"] != second.props["request_id"]


def test_the_header_of_the_request_id_can_be_chosen(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: 7, ACTIVITY_LOG_REQUEST_ID_HEADER="X-Trace")
    logging_to(clients, app)
    app.test_client().get("/text", headers={"X-Trace": "t1", "X-Request-ID": "r1"})
    assert clients.events[0].props["request_id"] == "t1"


def test_an_error_handler_of_the_app_keeps_its_status(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.errorhandler(500)
    def sorry(_: Exception) -> Any:
        return ServiceUnavailable("sorry").get_response()

    browser.get("/login/7")
    assert browser.get("/crash").status_code == 503
    assert clients.requests[-1] == ("7", "GET", "/crash", 503)
