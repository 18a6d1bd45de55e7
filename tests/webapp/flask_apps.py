"""Small Flask apps with the extension, and a client that keeps the events it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flask_login
from flask import (
    Flask,
    Response,
    abort,
    jsonify,
    redirect,
    request,
    session,
    stream_with_context,
)

from flask_logd import ActivityLog, ClientFactory
from logd_client import Outcome
from logd_wire.requests import OTHER_REQUESTS, PAGE_VIEW

REQUEST_TYPES = {PAGE_VIEW} | OTHER_REQUESTS


@dataclass
class Event:
    type: str
    user: str | None
    props: dict[str, Any]
    durable: bool
    timeout_s: float
    tell_user: bool = False
    ts_ns: int | None = None


@dataclass
class FakeClient:
    """Keeps every event; raises `broken` instead if that is set."""

    socket_path: str
    strict: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    broken: Exception | None = None
    outcome: Outcome = Outcome.STORED
    closed: bool = False

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
        event = Event(event_type, user, dict(props or {}), durable, timeout_s, ts_ns=ts_ns)
        self.events.append(event)
        return True

    def emit_durable(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        timeout_s: float = 5.0,
        tell_user: bool = False,
    ) -> Outcome:
        if self.broken is not None:
            raise self.broken
        event = Event(event_type, user, dict(props or {}), True, timeout_s, tell_user, ts_ns)
        self.events.append(event)
        return self.outcome

    def flush(self, timeout_s: float) -> bool:
        return True

    def stats(self) -> dict[str, Any]:
        return {"attempted": len(self.events), "accepted": len(self.events), "refused": 0}

    def close(self) -> None:
        self.closed = True


@dataclass
class Clients:
    """A client factory that keeps the clients it created; `broken` and `outcome` are theirs."""

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

    def of(self, event_type: str) -> list[Event]:
        return [event for event in self.events if event.type == event_type]

    @property
    def requests(self) -> list[tuple[str | None, Any, Any, Any]]:
        """User, method, route and status of each logged request, whatever its answer."""
        return [
            (event.user, event.props["method"], event.props["route"], event.props["status"])
            for event in self.events
            if event.type in REQUEST_TYPES
        ]


class Account(flask_login.UserMixin):  # type: ignore[misc] # Flask-Login has no types
    def __init__(self, account_id: str) -> None:
        self.id = account_id


def acting(event: Event) -> dict[str, Any]:
    """Returns the properties of an event that name who acts."""
    return {key: event.props[key] for key in ("actor", "switched_to") if key in event.props}


class DatabaseClosed(Exception):
    """The exception of the test app's failing handlers."""


def make_app(**config: Any) -> Flask:
    """Creates an app with one handler of each kind; the path names the user to log in."""
    app = Flask(__name__, static_folder=None)
    # As in production; tests that need it otherwise set it.
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

    @app.get("/not-modified")
    def not_modified() -> tuple[str, int]:
        return "", 304

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
    """Adds the extension with stand-ins for its clients."""
    app.config["ACTIVITY_LOG_CLIENT"] = clients
    return ActivityLog(app)


def app_of_7(clients: Clients, **config: Any) -> tuple[Flask, ActivityLog]:
    """An app whose requests are all of user 7, with a page that has arguments."""
    app = make_app(ACTIVITY_LOG_USER=lambda: 7, **config)
    app.add_url_rule("/rooms/<room>/seats/<int:seat>", "seat", lambda room, seat: f"{room}{seat}")
    return app, logging_to(clients, app)


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
    """Adds a login without Flask-Login, with the user in the session."""
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
