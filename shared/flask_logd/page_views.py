"""Logs requests, such as page views, from Flask's signals for start, end and failure.

The receivers run inside the request, so none of them may raise.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable, Mapping
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

from flask_logd.attribution import record_login, record_protected_session, record_start
from flask_logd.identity import identity
from flask_logd.state import AppState
from logd_wire.requests import request_type
from logd_wire.schema import INT64_MAX

try:
    import flask_login
except ImportError:  # without Flask-Login, an application identifies its users by other means
    flask_login = None


VIEW_ARG_CHARS_MAX = 256
METHOD_CHARS_MAX = 32  # An HTTP method is cut to this length: a browser may send any word.


class PageViews:
    """The receivers of Flask's signals for one app; the app keeps them, since a signal does not."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._settings = state.settings
        self._suppress = state.failures.suppress
        self._excluded: dict[str, bool] = {}

    def connect(self, app: Flask) -> None:
        """Connects the receivers, so that the app's page views are logged."""
        # Signals are used, not before_request and after_request:
        # an earlier before_request that answers by itself skips the others,
        # and an after_request sees neither the final response nor a saved session.
        # `request_finished` comes when the response is complete down to its cookies,
        # so nothing done there can change it, and before anything of the request is torn down.
        request_started.connect(self._on_started, app)
        request_finished.connect(self._on_finished, app)
        got_request_exception.connect(self._on_exception, app)
        request_tearing_down.connect(self._on_tearing_down, app)
        if flask_login is not None:
            flask_login.user_logged_out.connect(self._on_user_known, app)
            # With ACTIVITY_LOG_USER, Flask-Login's ids may be of another kind.
            if self._settings.user is None:
                flask_login.user_loaded_from_cookie.connect(self._on_user_known, app)
                flask_login.user_loaded_from_request.connect(self._on_user_known, app)
                flask_login.user_logged_in.connect(self._on_logged_in, app)
                flask_login.session_protected.connect(self._on_session_protected, app)

    def _on_started(self, app: Flask, **_: Any) -> None:
        with self._suppress(app):
            record = self._state.current_record()
            if not self._is_excluded(request.endpoint):
                record_start(record, self._settings)

    def _on_logged_in(self, app: Flask, user: Any = None, **_: Any) -> None:
        with self._suppress(app):
            if has_request_context() and user is not None:
                record_login(self._state.current_record(), user)

    def _on_session_protected(self, app: Flask, **_: Any) -> None:
        with self._suppress(app):
            if has_request_context():
                record_protected_session(self._state.current_record())

    def _on_user_known(self, app: Flask, user: Any = None, **_: Any) -> None:
        """Records the user who logs out, or who was identified by other means than the session."""
        with self._suppress(app):
            if has_request_context() and user is not None and user.is_authenticated:
                record = self._state.current_record()
                record.first_user = record.first_user or identity(user)

    def _on_finished(self, app: Flask, response: Response, **_: Any) -> None:
        with self._suppress(app):
            self._emit(app, response.status_code)

    def _on_exception(self, app: Flask, **_: Any) -> None:
        with self._suppress(app):
            self._state.current_record().crashed = True

    def _on_tearing_down(self, app: Flask, exc: BaseException | None = None, **_: Any) -> None:
        """Logs a request without a response, whose exception was raised to the server."""
        # The exception is not raised even while testing:
        # the developer needs to see the handler's own.
        with self._suppress(app, reraise=False):
            # A worker's SystemExit sends no `got_request_exception`. An `Exception` alone proves
            # nothing: a copy of this context, in a thread, is torn down with its own exception.
            killed = exc is not None and not isinstance(exc, Exception)
            if killed or self._state.current_record().crashed:
                self._emit(app, 500)

    def _emit(self, app: Flask, status: int) -> None:
        record = self._state.current_record()
        current = request._get_current_object()  # type: ignore[attr-defined] # the proxy is slow
        endpoint, method = current.endpoint, current.method[:METHOD_CHARS_MAX]
        if record.logged or self._is_excluded(endpoint):
            return
        record.logged = True
        duration_ms = (time.perf_counter() - record.started_s) * 1e3
        chosen = self._settings.requests
        if not chosen.includes(method, status):
            return
        user, acting = self._state.attribute(app, record)
        if user is None and not chosen.anonymous:
            return
        props: dict[str, Any] = {
            "route": current.url_rule.rule if current.url_rule is not None else None,
            "endpoint": endpoint,
            "method": method,
            "status": status,
            "duration_ms": round(duration_ms, 3),
            "request_id": record.request_id,
            **acting,
        }
        view_args = _chosen_args(current.view_args, chosen.view_args)
        if view_args:
            props["view_args"] = view_args
        self._state.log_request(app, request_type(method, status), user, record, props)

    def _is_excluded(self, endpoint: str | None) -> bool:
        if endpoint is None:
            return False
        excluded = self._excluded.get(endpoint)
        if excluded is None:  # there are few endpoints, each matched against the setting once
            excluded = _matches(endpoint, self._settings.exclude)
            self._excluded[endpoint] = excluded
        return excluded


def _chosen_args(
    of_url: Mapping[str, Any] | None, names: frozenset[str] | None
) -> dict[str, Any] | None:
    """Returns the URL's arguments to log, by name, with long values cut off; None for none."""
    if not of_url or (names is not None and names.isdisjoint(of_url)):
        return None
    chosen = {}
    for name, value in of_url.items():
        if names is not None and name not in names:
            continue
        # Long values are cut off, since an event with one would be refused for its size.
        if isinstance(value, str) and len(value) > VIEW_ARG_CHARS_MAX:
            value = value[: VIEW_ARG_CHARS_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"
        elif isinstance(value, int) and abs(value) > INT64_MAX:
            value = f"{str(value)[: VIEW_ARG_CHARS_MAX - 1]}\N{HORIZONTAL ELLIPSIS}"
        chosen[name] = value
    return chosen


def _matches(endpoint: str, names: Iterable[str]) -> bool:
    """Returns whether one of `names` is the endpoint, its blueprint, or a pattern for it."""
    return any(
        endpoint == name
        or endpoint.startswith(name.rstrip(".") + ".")
        or fnmatch.fnmatchcase(endpoint, name)
        for name in names
    )
