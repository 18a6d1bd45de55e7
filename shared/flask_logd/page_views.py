"""Page views by themselves: what is done when Flask signals that a request begins, ends or fails.

All of it happens inside the request, so nothing of it may raise there.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable
from typing import Any

from flask import (
    Flask,
    Response,
    got_request_exception,
    has_request_context,
    request,
    request_finished,
    request_started,
    request_tearing_down,
)

from flask_logd.identity import identity
from flask_logd.state import AppLog
from flask_logd.visits import current_visit, logged_in, look_early, session_refused

try:
    import flask_login
except ImportError:  # an application may know its users by other means
    flask_login = None


class PageViews:
    """The receivers of Flask's signals for one app. They live as long as somebody holds them."""

    def __init__(self, log: AppLog) -> None:
        self._log = log
        self._settings = log.settings
        self._harmless = log.failures.harmless
        self._excluded: dict[str, bool] = {}

    def connect(self, app: Flask) -> None:
        """From now on the app's page views are logged."""
        # Signals, not before_request and after_request: an earlier before_request that answers by
        # itself skips the others, and an after_request sees neither the final response nor a saved
        # session. `request_finished` comes when the response is complete down to its cookies, so
        # nothing done there can change it, and before anything of the request is torn down.
        request_started.connect(self._on_started, app)
        request_finished.connect(self._on_finished, app)
        got_request_exception.connect(self._on_exception, app)
        request_tearing_down.connect(self._on_tearing_down, app)
        if flask_login is not None:
            flask_login.user_logged_out.connect(self._on_user_known, app)
            if self._settings.user is None:  # else another's ids would be compared with these
                flask_login.user_loaded_from_cookie.connect(self._on_user_known, app)
                flask_login.user_loaded_from_request.connect(self._on_user_known, app)
                flask_login.user_logged_in.connect(self._on_logged_in, app)
                flask_login.session_protected.connect(self._on_session_protected, app)

    def _on_started(self, app: Flask, **_: Any) -> None:
        with self._harmless(app):
            visit = current_visit(self._settings)
            if not self._is_excluded(request.endpoint):
                look_early(visit, self._settings)

    def _on_logged_in(self, app: Flask, user: Any = None, **_: Any) -> None:
        with self._harmless(app):
            if has_request_context() and user is not None:
                logged_in(current_visit(self._settings), user)

    def _on_session_protected(self, app: Flask, **_: Any) -> None:
        with self._harmless(app):
            if has_request_context():
                session_refused(current_visit(self._settings))

    def _on_user_known(self, app: Flask, user: Any = None, **_: Any) -> None:
        """Someone logs out, or was loaded by other means than the session."""
        with self._harmless(app):
            if has_request_context() and user is not None and user.is_authenticated:
                visit = current_visit(self._settings)
                visit.began = visit.began or identity(user)

    def _on_finished(self, app: Flask, response: Response, **_: Any) -> None:
        with self._harmless(app):
            self._emit(app, response.status_code)

    def _on_exception(self, app: Flask, **_: Any) -> None:
        with self._harmless(app):
            current_visit(self._settings).crashed = True

    def _on_tearing_down(self, app: Flask, exc: BaseException | None = None, **_: Any) -> None:
        """Logs the request that got no response: its exception went on to the server."""
        # Quiet even in testing: the handler's own error is what the developer needs to see.
        with self._harmless(app, outspoken=False):
            # A worker's SystemExit comes without `got_request_exception`. An `Exception` alone
            # proves nothing: a copy of this context, in a thread, is torn down by its own.
            killed = exc is not None and not isinstance(exc, Exception)
            if killed or current_visit(self._settings).crashed:
                self._emit(app, 500)

    def _emit(self, app: Flask, status: int) -> None:
        visit = current_visit(self._settings)
        if visit.logged or self._is_excluded(request.endpoint):
            return
        visit.logged = True
        duration_ms = (time.perf_counter() - visit.started_s) * 1e3
        user, who = self._log.attribution(app, visit)
        if user is None:
            return
        self._log.client(app).emit(
            "page_view",
            user=user,
            props={
                "route": request.url_rule.rule if request.url_rule is not None else None,
                "endpoint": request.endpoint,
                "method": request.method,
                "status": status,
                "duration_ms": round(duration_ms, 3),
                "request_id": visit.request_id,
                **who,
            },
        )

    def _is_excluded(self, endpoint: str | None) -> bool:
        if endpoint is None:
            return False
        excluded = self._excluded.get(endpoint)
        if excluded is None:  # an app has few endpoints, each decided once
            excluded = _matches(endpoint, self._settings.exclude)
            self._excluded[endpoint] = excluded
        return excluded


def _matches(endpoint: str, names: Iterable[str]) -> bool:
    """Whether one of `names` is the endpoint, a blueprint around it, or a pattern for it."""
    return any(
        endpoint == name
        or endpoint.startswith(name.rstrip(".") + ".")
        or fnmatch.fnmatchcase(endpoint, name)
        for name in names
    )
