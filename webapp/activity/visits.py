"""What is known of the current request: its id, when it began, and whose it is."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass

from flask import current_app, request
from flask.globals import request_ctx

from webapp.activity.settings import Settings, UserCallable

try:
    import flask_login
except ImportError:  # an application may know its users by other means
    flask_login = None

# Narrow on purpose: the header comes from a stranger and ends up in every event of the request.
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VISIT = "_activity_log_visit"


@dataclass
class Visit:
    """What is kept of one request until its event is made."""

    request_id: str
    started_s: float  # time.perf_counter(): monotonic
    user_at_start: str | None = None
    user_who_left: str | None = None
    crashed: bool = False
    logged: bool = False


def current_visit(settings: Settings) -> Visit:
    """The current request's record, made at need: a context pushed by hand has no start."""
    # An attribute of the request, not of `g`: an app context may outlive a request, and a
    # request may call another app, or its own.
    target = request._get_current_object()  # type: ignore[attr-defined]
    visit: Visit | None = getattr(target, _VISIT, None)
    if visit is None:
        visit = Visit(_request_id(settings.request_id_header), time.perf_counter())
        setattr(target, _VISIT, visit)
    return visit


def _request_id(header: str) -> str:
    given = request.headers.get(header, "")
    return given if _SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def user_of(visit: Visit, settings: Settings) -> str | None:
    """Who the request belongs to: who is logged in now, else who logged out in it."""
    ask = settings.user or _flask_login_user
    user = ask()
    if user is not None:
        return str(user)
    return visit.user_who_left or visit.user_at_start


def user_told_early(ask: UserCallable) -> str | None:
    """The application's own answer before its handlers run, for the sake of a log-out.

    Flask-Login is not asked here, since looking at its user may write to the session; its
    signal tells who left.
    """
    with UnreadSession():
        try:
            user = ask()
        except Exception:  # noqa: BLE001 - a `g.user` not yet set is no failure: asked again
            return None
    return None if user is None else str(user)


def _flask_login_user() -> str | None:
    if flask_login is None or not hasattr(current_app, "login_manager"):
        return None
    user = flask_login.current_user
    return str(user.get_id()) if user.is_authenticated else None


class UnreadSession:
    """Keeps the session's `accessed` mark as it was: Flask answers it with `Vary: Cookie`."""

    def __enter__(self) -> None:
        # The attribute behind `flask.session`, because reading the proxy is what sets the mark.
        self._session = getattr(request_ctx, "_session", None)
        self._accessed = getattr(self._session, "accessed", None)

    def __exit__(self, *_: object) -> None:
        if self._accessed is not None:
            self._session.accessed = self._accessed  # type: ignore[union-attr]
