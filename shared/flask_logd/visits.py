"""What is known of the current request: its id, when it began, and whose it is."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

from flask import current_app, request
from flask.globals import request_ctx

from flask_logd.identity import Unidentified, identity
from flask_logd.settings import Settings, UserCallable

try:
    import flask_login
except ImportError:  # an application may know its users by other means
    flask_login = None

# Narrow on purpose: the header comes from a stranger and ends up in every event of the request.
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VISIT = "_activity_log_visit"
_SESSION_USER = "_user_id"  # where Flask-Login keeps it


@dataclass
class Visit:
    """What is kept of one request until its event is made.

    `began` is the first user that the request is known to be of, and its events are that user's:
    who logs out, or switches to another user, is the one who did it. A log-in begins without one.
    """

    request_id: str
    started_s: float  # time.perf_counter(): monotonic
    began: str | None = None
    switched_to: str | None = None
    actor_at_start: str | None = None
    session_user: Any = None  # Flask-Login's key of the session's user, which may be anybody's
    crashed: bool = False
    logged: bool = False

    def is_of(self, user: str | None) -> None:
        """That user is logged in at this moment."""
        if self.began is None:
            self.began = user
        self.switched_to = None if user == self.began else user


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


def look_early(visit: Visit, settings: Settings) -> None:
    """Keeps what a handler may change: who is logged in as the request begins.

    Flask-Login's user is not loaded here, since that may write to the session. Its signals report
    the rest.
    """
    with UnreadSession() as unread:
        if settings.user is not None:
            visit.began = _early_answer(settings.user)
        elif flask_login is not None and hasattr(current_app, "login_manager"):
            visit.session_user = unread.get(_SESSION_USER)
        if settings.actor is not None:
            visit.actor_at_start = _early_answer(settings.actor)


def _early_answer(ask: UserCallable) -> str | None:
    try:
        return identity(ask())
    except Exception:  # noqa: BLE001 - a `g.user` not yet set is no failure: asked again
        return None


def logged_in(visit: Visit, user: object) -> None:
    """Flask-Login has logged this user in: a switch if the session was another user's.

    Which it was only if that user can be loaded: the session may outlive the account.
    """
    former = visit.session_user
    with UnreadSession() as unread:
        new = unread.get(_SESSION_USER)
    if visit.began is None and former is not None and former != new:
        was = _load_user(former)
        if was is not None and was.is_authenticated:
            visit.began = identity(was)
    visit.is_of(identity(user))


def session_refused(visit: Visit) -> None:
    """Flask-Login's protection may have found the session stolen, and emptied it."""
    with UnreadSession() as unread:
        if unread.get(_SESSION_USER) is None:
            visit.session_user = None


def attribution(
    visit: Visit, settings: Settings, named: object = None
) -> tuple[str | None, dict[str, str | None]]:
    """Whose an event of the current request is, and the properties that say who acts for whom.

    `named` is the user that the application names for the event, if it does. Raises Unidentified.
    """
    actor = None
    if settings.actor is not None:
        with UnreadSession():
            actor = identity(settings.actor()) or visit.actor_at_start
    if named is None:
        with UnreadSession() as unread:
            visit.is_of(
                identity(settings.user()) if settings.user else _flask_login_user(visit, unread)
            )
    user = visit.began if named is None else identity(named)
    if visit.switched_to is not None:
        return user, {"actor": actor or visit.began, "switched_to": visit.switched_to}
    return user, {"actor": actor} if actor is not None and actor != user else {}


def _flask_login_user(visit: Visit, unread: UnreadSession) -> str | None:
    manager = getattr(current_app, "login_manager", None)
    if flask_login is None or manager is None:
        return None
    user = flask_login.current_user._get_current_object()  # once: its proxy is not cheap
    key = visit.session_user
    kept = key is not None and key == unread.get(_SESSION_USER)
    if kept and getattr(user, manager.id_attribute)() != key:
        # A request that the application made to itself shares `g`, and has left its user there.
        user = _load_user(key)
    if user is None or not user.is_authenticated:
        return None
    found = identity(user)
    if found is None:
        raise Unidentified("user: authenticated, but get_id() returns None", user)
    return found


def _load_user(session_key: object) -> Any:
    load = current_app.login_manager.user_callback  # type: ignore[attr-defined] # Flask-Login's
    return None if load is None else load(session_key)


class UnreadSession:
    """Keeps the session's `accessed` mark as it was: Flask answers it with `Vary: Cookie`."""

    def __enter__(self) -> UnreadSession:
        # The attribute behind `flask.session`, because reading the proxy is what sets the mark.
        self._session = getattr(request_ctx, "_session", None)
        self._accessed = getattr(self._session, "accessed", None)
        return self

    def get(self, key: str) -> Any:
        """What the session has there, or None."""
        return None if self._session is None else self._session.get(key)

    def __exit__(self, *_: object) -> None:
        if self._accessed is not None:
            self._session.accessed = self._accessed  # type: ignore[union-attr]
