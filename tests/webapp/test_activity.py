"""The Flask extension: what it logs, for whom, and that no response is ever changed by it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from unittest import mock

import flask_login
import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    copy_current_request_context,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    request,
    session,
    stream_with_context,
)
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import ServiceUnavailable

from flask_logd import ActivityLog, ClientFactory, ConfigError
from flask_logd.durable import MESSAGE
from flask_logd.failures import Failures
from logd_client import Outcome
from logd_wire.schema import Malformed


@dataclass
class Event:
    type: str
    user: str | None
    props: dict[str, Any]
    durable: bool
    timeout_s: float
    tell_user: bool = False


@dataclass
class FakeClient:
    """Keeps what it is given; `broken` is what it raises instead."""

    socket_path: str
    strict: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    broken: Exception | None = None
    outcome: Outcome = Outcome.STORED

    def emit(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        durable: bool = False,
        timeout_s: float = 5.0,
    ) -> bool:
        if self.broken is not None:
            raise self.broken
        self.events.append(Event(event_type, user, dict(props or {}), durable, timeout_s))
        return True

    def emit_durable(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        timeout_s: float = 5.0,
        tell_user: bool = False,
    ) -> Outcome:
        if self.broken is not None:
            raise self.broken
        event = Event(event_type, user, dict(props or {}), True, timeout_s, tell_user)
        self.events.append(event)
        return self.outcome

    def flush(self, timeout_s: float) -> bool:
        return True

    def stats(self) -> dict[str, Any]:
        return {"attempted": len(self.events), "accepted": len(self.events)}

    def close(self) -> None:
        pass


@dataclass
class Clients:
    """A client factory that remembers what it made, and makes broken ones when told to."""

    made: list[FakeClient] = field(default_factory=list)
    broken: Exception | None = None
    outcome: Outcome = Outcome.STORED

    def __call__(self, socket_path: str, *, strict: bool, **options: Any) -> FakeClient:
        client = FakeClient(socket_path, strict, options, broken=self.broken, outcome=self.outcome)
        self.made.append(client)
        return client

    @property
    def events(self) -> list[Event]:
        return [event for client in self.made for event in client.events]

    @property
    def page_views(self) -> list[tuple[str | None, Any, Any, Any]]:
        return [
            (event.user, event.props["method"], event.props["route"], event.props["status"])
            for event in self.events
            if event.type == "page_view"
        ]


class Account(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, account_id: str) -> None:
        self.id = account_id


def who(event: Event) -> dict[str, Any]:
    """What an event says of who acts for whom."""
    return {key: event.props[key] for key in ("actor", "switched_to") if key in event.props}


class DatabaseClosed(Exception):
    """What a handler of the test app dies of."""


def make_app(**config: Any) -> Flask:
    """An app with one handler of each kind; who logs in is what the path says."""
    app = Flask(__name__, static_folder=None)
    # Not propagating is what a production app does; a test that wants it otherwise says so.
    app.config.update(SECRET_KEY="for tests", PROPAGATE_EXCEPTIONS=False, **config)
    app.config.setdefault("ACTIVITY_LOG_SOCKET", "/nowhere/logd.sock")

    @app.get("/text")
    def text() -> str:
        return "text"

    @app.get("/courses/<slug>")
    def course(slug: str) -> Response:
        return jsonify(course=slug)

    @app.get("/stream")
    def stream() -> Response:
        return Response(iter(["a", "b", "c"]), mimetype="text/plain")

    @app.get("/stream-with-context")
    def stream_in_context() -> Response:
        return Response(stream_with_context(part + request.path for part in "abc"))

    @app.get("/redirect")
    def elsewhere() -> Any:
        return redirect("/text")

    @app.get("/forbidden")
    def forbidden() -> str:
        abort(403)

    @app.get("/teapot")
    def teapot() -> tuple[str, int, dict[str, str]]:
        return "short and stout", 418, {"X-Handle": "left", "Vary": "Accept"}

    @app.get("/crash")
    def crash() -> str:
        raise DatabaseClosed

    @app.get("/handled-crash")
    def handled_crash() -> str:
        raise ZeroDivisionError

    @app.get("/reads-session")
    def reads_session() -> str:
        return str(session.get("visits", 0))

    @app.get("/writes-session")
    def writes_session() -> str:
        session["visits"] = session.get("visits", 0) + 1
        return "written"

    @app.post("/only-post")
    def only_post() -> str:
        return request.get_data(as_text=True)

    @app.errorhandler(ZeroDivisionError)
    def divided(_: ZeroDivisionError) -> tuple[str, int]:
        return "divided", 503

    return app


def logging_to(clients: ClientFactory, app: Flask) -> ActivityLog:
    """The extension, with stand-ins for the client to the daemon."""
    app.config["ACTIVITY_LOG_CLIENT"] = clients
    return ActivityLog(app)


def with_flask_login(app: Flask) -> Flask:
    manager = flask_login.LoginManager(app)
    manager.user_loader(Account)

    @app.route("/login/<account_id>", methods=["GET", "POST"])
    def login(account_id: str) -> str:
        flask_login.login_user(Account(account_id), remember="remember" in request.args)
        return "in"

    @app.route("/logout", methods=["GET", "POST"])
    def logout() -> str:
        flask_login.logout_user()
        return "out"

    return app


def with_own_login(app: Flask) -> Flask:
    """An application that keeps its user in the session and knows no Flask-Login."""
    app.config["ACTIVITY_LOG_USER"] = lambda: session.get("account")

    @app.route("/login/<account_id>", methods=["GET", "POST"])
    def login(account_id: str) -> str:
        session["account"] = account_id
        return "in"

    @app.route("/logout", methods=["GET", "POST"])
    def logout() -> str:
        session.clear()
        return "out"

    return app


@pytest.fixture
def clients() -> Clients:
    return Clients()


@pytest.fixture(params=[with_flask_login, with_own_login])
def app(request: pytest.FixtureRequest, clients: Clients) -> Flask:
    made: Flask = request.param(make_app())
    logging_to(clients, made)
    return made


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    """Nobody is logged in yet."""
    return app.test_client()


@pytest.fixture
def student(browser: FlaskClient, clients: Clients) -> FlaskClient:
    """Student 7 is logged in, and nothing of that is in `clients.events` any more."""
    browser.get("/login/7")
    for client in clients.made:
        client.events.clear()
    return browser


# -- what is logged ----------------------------------------------------------------------------


def test_a_page_view_says_what_was_asked_and_how_it_went(
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
    ("method", "path", "route", "status"),
    [
        ("GET", "/no-such-page", None, 404),
        ("GET", "/only-post", None, 405),
        ("HEAD", "/text", "/text", 200),
        ("OPTIONS", "/text", "/text", 200),
        ("GET", "/redirect", "/redirect", 302),
        ("GET", "/forbidden", "/forbidden", 403),
        ("GET", "/teapot", "/teapot", 418),
        ("GET", "/stream", "/stream", 200),
        ("GET", "/stream-with-context", "/stream-with-context", 200),
        ("GET", "/crash", "/crash", 500),
        ("GET", "/handled-crash", "/handled-crash", 503),
        ("POST", "/only-post", "/only-post", 200),
    ],
)
def test_every_kind_of_answer_is_one_page_view(
    student: FlaskClient, clients: Clients, method: str, path: str, route: str, status: int
) -> None:
    student.open(path, method=method)
    assert clients.page_views == [("7", method, route, status)]


def test_what_nobody_logged_in_asked_for_is_not_logged(
    browser: FlaskClient, clients: Clients
) -> None:
    for path in ("/text", "/no-such-page", "/crash", "/reads-session", "/logout"):
        browser.get(path)
    assert clients.events == []


def test_a_login_belongs_to_who_is_in_at_its_end(browser: FlaskClient, clients: Clients) -> None:
    browser.post("/login/7")
    assert clients.page_views == [("7", "POST", "/login/<account_id>", 200)]


def test_a_logout_belongs_to_who_was_in_at_its_start(
    student: FlaskClient, clients: Clients
) -> None:
    student.post("/logout")
    assert clients.page_views == [("7", "POST", "/logout", 200)]


def test_a_switch_of_user_belongs_to_who_began_it_and_names_the_other(
    student: FlaskClient, clients: Clients
) -> None:
    student.post("/login/8")
    student.get("/text")
    assert [(event.user, who(event)) for event in clients.events] == [
        ("7", {"actor": "7", "switched_to": "8"}),
        ("8", {}),
    ]


def test_a_log_in_as_the_same_user_is_no_switch(student: FlaskClient, clients: Clients) -> None:
    student.post("/login/7")
    assert [(event.user, who(event)) for event in clients.events] == [("7", {})]


def test_an_exception_that_goes_on_to_the_server_is_logged_as_500(
    app: Flask, student: FlaskClient, clients: Clients
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(DatabaseClosed):
        student.get("/crash")
    assert clients.page_views == [("7", "GET", "/crash", 500)]


def test_a_worker_told_to_exit_inside_a_handler_leaves_its_page_view(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.get("/exits")
    def exits() -> str:
        raise SystemExit(1)

    browser.get("/login/7")
    with pytest.raises(SystemExit):
        browser.get("/exits")
    assert clients.page_views[-1] == ("7", "GET", "/exits", 500)


def test_a_request_answered_before_its_handler_is_logged_too(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.before_request
    def closed() -> tuple[str, int] | None:
        return ("closed today", 503) if "closed" in request.args else None

    browser.get("/login/7")
    browser.get("/text?closed")
    assert clients.page_views[-1] == ("7", "GET", "/text", 503)


def test_the_status_is_the_one_that_was_sent(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.after_request
    def overrule(response: Response) -> Response:
        response.status_code = 202
        return response

    browser.get("/login/7")
    assert clients.page_views[-1][-1] == 202


def test_a_copy_of_the_request_in_a_thread_is_no_second_page_view(
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
    assert clients.page_views[1:] == [("7", "GET", "/in-a-thread", 200)]


def test_a_stream_is_not_read_before_its_time(app: Flask, clients: Clients) -> None:
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
    assert clients.page_views[-1] == ("7", "GET", "/lazy", 200)
    assert response.get_data(as_text=True) == "abc"


def test_a_user_set_by_a_before_request_hook_is_found(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: g.user_id)
    logging_to(clients, app)

    @app.before_request
    def load() -> None:
        g.user_id = 7

    app.test_client().get("/text")
    assert clients.page_views == [("7", "GET", "/text", 200)]


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
    # Another browser with the same cookie makes Flask-Login rewrite the session it looks at, and
    # a lost session makes it do so from the cookie it remembers users by.
    st.sampled_from(["firefox", "chromium"]),
    st.sampled_from(["", "drop session"]),
)


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Hundreds of crashes on purpose would bury a real one."""
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


@pytest.mark.parametrize("way_to_log_in", [with_flask_login, with_own_login])
@pytest.mark.parametrize("broken", [None, RuntimeError("broken client")])
@pytest.mark.usefixtures("quiet_logs")
@given(requests=st.lists(REQUESTS, max_size=8))
@settings(max_examples=60, deadline=None)
def test_no_byte_of_any_response_is_changed(
    way_to_log_in: Callable[[Flask], Flask],
    broken: Exception | None,
    requests: list[tuple[str, str, str, str]],
) -> None:
    plain = way_to_log_in(make_app())
    logged = way_to_log_in(make_app())
    logging_to(Clients(broken=broken), logged)
    # Signed cookies hold the time: it stands still, so that they may be compared.
    with (
        mock.patch("itsdangerous.timed.TimestampSigner.get_timestamp", return_value=1_700_000_000),
        mock.patch("flask_login.login_manager.datetime") as clock,
    ):
        clock.utcnow.return_value = datetime(2030, 1, 1)
        assert answers(logged, requests) == answers(plain, requests)


def test_an_app_that_leaves_its_session_alone_is_not_told_to_vary_by_cookie() -> None:
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


def test_a_broken_client_harms_no_request_and_is_counted() -> None:
    app = with_flask_login(make_app())
    activity = logging_to(Clients(broken=OSError("secret of an event")), app)
    browser = app.test_client()
    assert browser.get("/login/7").status_code == 200
    assert browser.get("/text").get_data(as_text=True) == "text"
    with app.app_context():
        assert activity.log("task_completed", task=12) is False
        assert activity.stats()["hook_failures"] == 3


def test_a_client_that_cannot_even_be_made_harms_no_request() -> None:
    def fails(socket_path: str, **_: Any) -> FakeClient:
        raise MemoryError

    app = with_flask_login(make_app())
    logging_to(fails, app)
    assert app.test_client().get("/login/7").status_code == 200


def test_a_user_callable_that_fails_harms_no_request(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: 1 // 0)
    activity = logging_to(clients, app)
    assert app.test_client().get("/text").status_code == 200
    with app.app_context():
        assert activity.stats()["hook_failures"] == 1


def test_failures_are_told_at_a_bounded_rate_and_without_the_event(
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
def test_while_testing_or_debugging_a_failure_is_seen(mode: str) -> None:
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


def test_in_testing_a_failure_never_hides_the_handler_s_own() -> None:
    clients = Clients()
    app = with_flask_login(make_app(TESTING=True))
    app.config["PROPAGATE_EXCEPTIONS"] = True
    logging_to(clients, app)
    browser = app.test_client()
    browser.get("/login/7")
    clients.made[0].broken = RuntimeError("ours")
    with pytest.raises(DatabaseClosed):
        browser.get("/crash")


# -- durable events ----------------------------------------------------------------------------


def quiz_app(clients: Clients, **config: Any) -> tuple[ActivityLog, Flask]:
    """Quizzes are durable; a page hands one in, another shows what is flashed."""
    app = with_flask_login(make_app(ACTIVITY_LOG_DURABLE=["quiz_submitted"], **config))
    activity = logging_to(clients, app)

    @app.get("/quiz")
    def quiz() -> str:
        return str(activity.log("quiz_submitted", quiz=3))

    @app.get("/messages")
    def messages() -> Any:
        return jsonify(get_flashed_messages(with_categories=True))

    return activity, app


def test_what_is_durable_by_policy_waits_and_nothing_else_does(clients: Clients) -> None:
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
def test_by_default_a_page_carries_on_whatever_the_outcome_and_it_is_counted(
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
    ("outcome", "told"),
    [(Outcome.STORED, []), (Outcome.REFUSED, []), (Outcome.UNKNOWN, [["warning", MESSAGE]])],
)
def test_a_user_who_is_to_be_told_of_an_unknown_outcome_is_told_once(
    outcome: Outcome, told: list[list[str]]
) -> None:
    clients = Clients(outcome=outcome)
    activity, app = quiz_app(clients, ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user")
    browser = app.test_client()
    browser.get("/login/7")
    assert browser.get("/quiz").text == str(outcome)
    assert browser.get("/messages").get_json() == told
    assert browser.get("/messages").get_json() == []
    assert clients.events[1].tell_user is True, "so that the trail can say so"
    with app.app_context():
        assert activity.stats()["durable"][outcome.value] == 1


def test_the_words_for_the_user_are_a_setting() -> None:
    clients = Clients(outcome=Outcome.UNKNOWN)
    words = "Your quiz is kept."
    _, app = quiz_app(
        clients, ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user", ACTIVITY_LOG_DURABLE_MESSAGE=words
    )
    browser = app.test_client()
    browser.get("/quiz")
    assert browser.get("/messages").get_json() == [["warning", words]]


def test_outside_a_request_nobody_is_told_and_the_trail_does_not_say_so() -> None:
    clients = Clients(outcome=Outcome.UNKNOWN)
    activity, app = quiz_app(clients, ACTIVITY_LOG_DURABLE_UNKNOWN="tell_user")
    with app.app_context():
        assert activity.log("quiz_submitted") is Outcome.UNKNOWN
    assert [event.tell_user for event in clients.events] == [False]


def test_an_app_that_cannot_tell_its_user_still_hears_the_outcome() -> None:
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


def test_a_durable_event_that_cannot_be_handed_over_is_refused_and_harms_no_request() -> None:
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


# -- log, request ids, users -------------------------------------------------------------------


def test_log_takes_the_request_s_user_and_id(clients: Clients) -> None:
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


def test_log_after_the_logout_still_knows_who_left(clients: Clients) -> None:
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


@pytest.mark.parametrize("given_id", ["A-1_b.c", "x" * 64])
def test_a_sane_request_id_is_taken_over(
    student: FlaskClient, clients: Clients, given_id: str
) -> None:
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


def test_each_request_has_an_id_of_its_own_even_in_one_app_context(clients: Clients) -> None:
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
    outer.add_url_rule("/<path:rest>", "mounted", lambda rest: inner.wsgi_app)  # noqa: ARG005
    assert outer.test_client().get("/courses/python/").status_code == 404
    assert sorted(view[0] or "" for view in clients.page_views) == ["i", "o"]


def test_settings_reach_the_client(clients: Clients) -> None:
    app = make_app(ACTIVITY_LOG_OUTBOX_BYTES=4096, ACTIVITY_LOG_OUTBOX_DIRECTORY="/dev/shm/x")
    activity = logging_to(clients, app)
    assert activity.client(app) is clients.made[0]
    assert clients.made[0] == FakeClient(
        "/nowhere/logd.sock", False, {"outbox_bytes": 4096, "outbox_directory": "/dev/shm/x"}
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


def test_an_app_gets_the_extension_once() -> None:
    app = make_app()
    activity = logging_to(Clients(), app)
    with pytest.raises(RuntimeError, match="already"):
        activity.init_app(app)


def test_an_app_without_the_extension_is_told_what_to_do() -> None:
    app = make_app()
    with app.app_context(), pytest.raises(RuntimeError, match=r"init_app\(app\)"):
        ActivityLog().log("task_completed")


def test_a_service_unavailable_page_of_the_app_is_left_as_it_is(
    app: Flask, browser: FlaskClient, clients: Clients
) -> None:
    @app.errorhandler(500)
    def sorry(_: Exception) -> Any:
        return ServiceUnavailable("sorry").get_response()

    browser.get("/login/7")
    assert browser.get("/crash").status_code == 503
    assert clients.page_views[-1] == ("7", "GET", "/crash", 503)
