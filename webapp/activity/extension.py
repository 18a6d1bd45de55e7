"""`ActivityLog`: a Flask extension that logs page views and what an application tells it.

    activity = ActivityLog()

    def create_app() -> Flask:
        app = Flask(__name__)
        app.config["ACTIVITY_LOG_SOCKET"] = "/run/logd/logd.sock"
        activity.init_app(app)
        return app

Every page view of a user who is logged in becomes an event, without the handler's help and without
a byte of any response changed; `activity.log("task_completed", task=12)` does the rest. Nothing
here waits for the daemon, and nothing here fails a request.

Settings, read once by `init_app` (an unknown `ACTIVITY_LOG_*` key is an error that names it):

| key | default | |
|---|---|---|
| `ACTIVITY_LOG_SOCKET` | required | path of logd's datagram socket, at most 107 bytes |
| `ACTIVITY_LOG_ENABLED` | `True` | `False`: nothing is logged, and no socket is needed |
| `ACTIVITY_LOG_EXCLUDE` | `("static", "*.static")` | endpoints, blueprints, patterns: not logged |
| `ACTIVITY_LOG_USER` | Flask-Login | callable: the id of the request's user, or None |
| `ACTIVITY_LOG_REQUEST_ID_HEADER` | `"X-Request-ID"` | taken over when it looks like an id |
| `ACTIVITY_LOG_OUTBOX_BYTES` | the client's | room for events not yet on the daemon's disk |
| `ACTIVITY_LOG_OUTBOX_DIRECTORY` | found from the socket | where the outbox lies |
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flask import (
    Flask,
    Response,
    current_app,
    got_request_exception,
    has_request_context,
    request,
    request_finished,
    request_started,
    request_tearing_down,
)
from flask.globals import request_ctx

from shared.client import Client
from webapp.activity.settings import ConfigError, Settings, read_settings

try:
    import flask_login
except ImportError:  # an application may know its users by other means
    flask_login = None

# Narrow on purpose: the header comes from a stranger and ends up in every event of the request.
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FAILURE_LOG_INTERVAL_S = 60.0
_VISIT = "_activity_log_visit"

__all__ = ["ActivityClient", "ActivityLog", "ConfigError"]


class ActivityClient(Protocol):
    """What the extension needs of `shared.client.Client`; a test may bring its own."""

    def emit(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        durable: bool = False,
        timeout_s: float = 5.0,
    ) -> bool: ...

    def flush(self, timeout_s: float) -> bool: ...

    def stats(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


# As `shared.client.Client`: socket path, `strict` (raise on a malformed event), outbox options.
ClientFactory = Callable[..., ActivityClient]


class ActivityLog:
    """The extension. One object serves any number of apps; all state is the app's.

    `client_factory` replaces the client to the daemon, for tests.
    """

    def __init__(self, app: Flask | None = None, *, client_factory: ClientFactory = Client) -> None:
        self._client_factory = client_factory
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Reads the app's settings and starts to log its page views.

        Raises ConfigError naming the setting, and RuntimeError when the app has the extension.
        """
        if "activity_log" in app.extensions:
            raise RuntimeError(f"the app {app.name!r} has an ActivityLog already")
        settings = read_settings(app.config)
        state = _State(settings, self._client_factory)
        app.extensions["activity_log"] = state
        if not settings.enabled:
            return
        # Signals, not before_request and after_request: an earlier before_request that answers by
        # itself skips the others, and an after_request sees neither the final response nor a saved
        # session. `request_finished` comes when the response is complete down to its cookies, so
        # nothing done there can change it, and before anything of the request is torn down.
        request_started.connect(state.on_started, app)
        request_finished.connect(state.on_finished, app)
        got_request_exception.connect(state.on_exception, app)
        request_tearing_down.connect(state.on_tearing_down, app)
        if flask_login is not None:
            flask_login.user_logged_out.connect(state.on_logged_out, app)

    def log(
        self,
        event_type: str,
        /,
        *,
        user: str | int | None = None,
        durable: bool = False,
        timeout_s: float = 5.0,
        **props: Any,
    ) -> bool:
        """Logs one event of the current app; True when it was accepted and so will be stored.

        `user` is by default the request's. `durable=True` waits up to `timeout_s` seconds until
        the event is on disk, and is True only then. In a request, `request_id` is added to `props`.

        Never raises in production: what goes wrong is counted (`stats()`) and gives False. While
        the app is testing or debugging, a malformed event and any other failure raise. Without an
        app context, or with an app that lacks the extension, it raises RuntimeError.
        """
        return _state_of(None).log(event_type, user, durable, timeout_s, props)

    def client(self, app: Flask | None = None) -> ActivityClient:
        """The client of `app`, by default of the current one. RuntimeError as for `log`."""
        return _state_of(app).client(app or current_app)

    def stats(self) -> dict[str, Any]:
        """The client's counters for the current app in this process, and `hook_failures`: how often
        the extension itself failed. RuntimeError as for `log`."""
        state = _state_of(None)
        return {**state.client(current_app).stats(), "hook_failures": state.failures.count}

    @property
    def request_id(self) -> str | None:
        """The id of the current request, the same in all of its events; None outside a request."""
        return _state_of(None).visit().request_id if has_request_context() else None


def _state_of(app: Flask | None) -> _State:
    # Without an app context `current_app` raises Flask's own RuntimeError, which says what to do.
    extensions = (app or current_app).extensions
    try:
        state: _State = extensions["activity_log"]
    except KeyError:
        name = (app or current_app).name
        raise RuntimeError(
            f"the app {name!r} has no ActivityLog: call activity.init_app(app) where it is made"
        ) from None
    return state


@dataclass
class _Visit:
    """What is kept of one request until its event is made."""

    request_id: str
    started_s: float  # time.perf_counter(): monotonic
    user_at_start: str | None = None
    user_who_left: str | None = None
    crashed: bool = False
    logged: bool = False


@dataclass
class _Failures:
    """Counts failures of the extension's own; says so at most once a minute."""

    clock: Callable[[], float] = time.monotonic
    count: int = 0
    _told: int = 0
    _next_s: float = field(default=float("-inf"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, app: Flask, error: Exception) -> None:
        with self._lock:
            self.count += 1
            now_s = self.clock()
            if now_s < self._next_s:
                return
            self._next_s = now_s + _FAILURE_LOG_INTERVAL_S
            new, self._told = self.count - self._told, self.count
        # The kind and the place, never the text: an error's text may quote the event, and this log
        # may be a file.
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else "?"
        app.logger.error(
            "activity log: %d failure(s) since last told, %d in all; the latest: %s at %s",
            new,
            self.count,
            type(error).__name__,
            place,
        )


class _State:
    """The extension's state for one app: settings, client, and the receivers of Flask's signals."""

    def __init__(self, settings: Settings, client_factory: ClientFactory) -> None:
        self._settings = settings
        self._client_factory = client_factory
        self._client: ActivityClient | None = None if settings.enabled else _Disabled()
        self._client_lock = threading.Lock()
        self._excluded: dict[str, bool] = {}
        self.failures = _Failures()

    def client(self, app: Flask) -> ActivityClient:
        # Made at first use, since `app.testing` is often set only after `init_app`.
        if self._client is None:
            with self._client_lock:
                if self._client is None:
                    self._client = self._client_factory(
                        self._settings.socket_path,
                        strict=_is_developing(app),
                        **self._settings.client_options,
                    )
        return self._client

    def log(
        self,
        event_type: str,
        user: str | int | None,
        durable: bool,
        timeout_s: float,
        props: dict[str, Any],
    ) -> bool:
        app = current_app
        with self._harmless(app):
            if has_request_context():
                visit = self.visit()
                props = {"request_id": visit.request_id, **props}
                if user is None:
                    with _UnreadSession():
                        user = self._user(visit)
            return self.client(app).emit(
                event_type,
                user=None if user is None else str(user),
                props=props,
                durable=durable,
                timeout_s=timeout_s,
            )
        return False

    def visit(self) -> _Visit:
        """The current request's record, made at need: a context pushed by hand has no start."""
        # An attribute of the request, not of `g`: an app context may outlive a request, and a
        # request may call another app, or its own.
        target = request._get_current_object()  # type: ignore[attr-defined]
        visit: _Visit | None = getattr(target, _VISIT, None)
        if visit is None:
            visit = _Visit(self._request_id(), time.perf_counter())
            setattr(target, _VISIT, visit)
        return visit

    # What Flask calls, inside the request: so nothing of it may raise there.

    def on_started(self, app: Flask, **_: Any) -> None:
        with self._harmless(app):
            visit = self.visit()
            if self._settings.user is not None and not self._is_excluded(request.endpoint):
                visit.user_at_start = self._user_told_early()

    def on_logged_out(self, app: Flask, user: Any = None, **_: Any) -> None:
        with self._harmless(app):
            if has_request_context() and user is not None and user.is_authenticated:
                self.visit().user_who_left = str(user.get_id())

    def on_finished(self, app: Flask, response: Response, **_: Any) -> None:
        with self._harmless(app):
            self._log_page_view(app, response.status_code)

    def on_exception(self, app: Flask, **_: Any) -> None:
        with self._harmless(app):
            self.visit().crashed = True

    def on_tearing_down(self, app: Flask, exc: BaseException | None = None, **_: Any) -> None:
        """Logs the request that got no response: its exception went on to the server."""
        # Quiet even in testing: the handler's own error is what the developer needs to see.
        with self._harmless(app, outspoken=False):
            # A worker's SystemExit comes without `got_request_exception`. An `Exception` alone
            # proves nothing: a copy of this context, in a thread, is torn down by its own.
            killed = exc is not None and not isinstance(exc, Exception)
            if killed or self.visit().crashed:
                self._log_page_view(app, 500)

    @contextlib.contextmanager
    def _harmless(self, app: Flask, outspoken: bool | None = None) -> Iterator[None]:
        """Keeps what is raised from the request: counted, or shown to a developer at work."""
        try:
            yield
        except Exception as error:
            if _is_developing(app) if outspoken is None else outspoken:
                raise
            self.failures.note(app, error)

    def _log_page_view(self, app: Flask, status: int) -> None:
        visit = self.visit()
        if visit.logged or self._is_excluded(request.endpoint):
            return
        visit.logged = True
        duration_ms = (time.perf_counter() - visit.started_s) * 1e3
        user = self._user(visit)
        if user is None:
            return
        self.client(app).emit(
            "page_view",
            user=user,
            props={
                "route": request.url_rule.rule if request.url_rule is not None else None,
                "endpoint": request.endpoint,
                "method": request.method,
                "status": status,
                "duration_ms": duration_ms,
                "request_id": visit.request_id,
            },
        )

    def _user(self, visit: _Visit) -> str | None:
        """Who the request belongs to: who is logged in now, else who logged out in it."""
        ask = self._settings.user or _flask_login_user
        user = ask()
        if user is not None:
            return str(user)
        return visit.user_who_left or visit.user_at_start

    def _user_told_early(self) -> str | None:
        """The application's own answer before its handlers run, for the sake of a log-out.

        Flask-Login is not asked here, since looking at its user may write to the session; its
        signal tells who left.
        """
        assert self._settings.user is not None
        with _UnreadSession():
            try:
                user = self._settings.user()
            except Exception:  # noqa: BLE001 - a `g.user` not yet set is no failure: asked again
                return None
        return None if user is None else str(user)

    def _request_id(self) -> str:
        given = request.headers.get(self._settings.request_id_header, "")
        return given if _SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

    def _is_excluded(self, endpoint: str | None) -> bool:
        if endpoint is None:
            return False
        excluded = self._excluded.get(endpoint)
        if excluded is None:  # an app has few endpoints, each decided once
            excluded = _matches(endpoint, self._settings.exclude)
            self._excluded[endpoint] = excluded
        return excluded


def _is_developing(app: Flask) -> bool:
    return app.testing or app.debug


def _matches(endpoint: str, names: Iterable[str]) -> bool:
    """Whether one of `names` is the endpoint, a blueprint around it, or a pattern for it."""
    return any(
        endpoint == name
        or endpoint.startswith(name.rstrip(".") + ".")
        or fnmatch.fnmatchcase(endpoint, name)
        for name in names
    )


def _flask_login_user() -> str | None:
    if flask_login is None or not hasattr(current_app, "login_manager"):
        return None
    user = flask_login.current_user
    return str(user.get_id()) if user.is_authenticated else None


class _UnreadSession:
    """Keeps the session's `accessed` mark as it was: Flask answers it with `Vary: Cookie`."""

    def __enter__(self) -> None:
        # The attribute behind `flask.session`, because reading the proxy is what sets the mark.
        self._session = getattr(request_ctx, "_session", None)
        self._accessed = getattr(self._session, "accessed", None)

    def __exit__(self, *_: object) -> None:
        if self._accessed is not None:
            self._session.accessed = self._accessed  # type: ignore[union-attr]


class _Disabled:
    """The client of an app that does not log: refuses everything, and counts it."""

    def __init__(self) -> None:
        self._attempted = 0

    def emit(self, *_: Any, **__: Any) -> bool:
        self._attempted += 1
        return False

    def flush(self, *_: Any, **__: Any) -> bool:
        return True

    def stats(self) -> dict[str, Any]:
        refused = self._attempted
        return {
            "attempted": refused,
            "accepted": 0,
            "refused": refused,
            "refused_by_cause": {"disabled": refused} if refused else {},
            "pending": 0,
        }

    def close(self) -> None:
        pass
