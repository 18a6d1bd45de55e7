"""Determines the user of an event in the current request, and who acts for that user."""

from __future__ import annotations

from typing import Any

from flask import current_app

from flask_logd.identity import Unidentified, identity
from flask_logd.request_record import RequestRecord, preserve_session_access
from flask_logd.settings import Settings, UserCallable

try:
    import flask_login
except ImportError:  # without Flask-Login, an application identifies its users by other means
    flask_login = None

_SESSION_USER = "_user_id"  # the session key under which Flask-Login keeps the user's id


def record_start(record: RequestRecord, settings: Settings) -> None:
    """Records who is logged in when a request begins, before a handler can change it.

    Flask-Login's user is not loaded here, since that may write to the session; its signals report
    that user later.
    """
    with preserve_session_access() as session:
        if settings.user is not None:
            record.first_user = _call_early(settings.user)
        elif flask_login is not None and hasattr(current_app, "login_manager"):
            record.session_user = session.get(_SESSION_USER)
        if settings.actor is not None:
            record.actor_at_start = _call_early(settings.actor)


def _call_early(user_callable: UserCallable) -> str | None:
    try:
        return identity(user_callable())
    except Exception:  # noqa: BLE001 - `g.user` may not be set yet: it is called again per event
        return None


def record_login(record: RequestRecord, user: object) -> None:
    """Records that Flask-Login has logged a user in during the current request.

    The login is a switch of users if the session was another user's and that user can still be
    loaded: a session may outlive its account.
    """
    former = record.session_user
    with preserve_session_access() as session:
        new = session.get(_SESSION_USER)
    if record.first_user is None and former is not None and former != new:
        former_user = _load_user(former)
        if former_user is not None and former_user.is_authenticated:
            record.first_user = identity(former_user)
    record.set_current_user(identity(user))


def record_protected_session(record: RequestRecord) -> None:
    """Forgets the session's user if Flask-Login's protection has emptied the session."""
    with preserve_session_access() as session:
        if session.get(_SESSION_USER) is None:
            record.session_user = None


def attribute(
    record: RequestRecord, settings: Settings, named: object = None
) -> tuple[str | None, dict[str, str | None]]:
    """Returns the user of an event of this request, and the properties that name who acts.

    `named` is the user that the application gives for the event, or None. Raises Unidentified.
    """
    actor = None
    if settings.actor is not None:
        with preserve_session_access():
            actor = identity(settings.actor()) or record.actor_at_start
    if named is None:
        with preserve_session_access() as session:
            record.set_current_user(
                identity(settings.user()) if settings.user else _flask_login_user(record, session)
            )
    user = record.first_user if named is None else identity(named)
    if record.switched_to is not None:
        return user, {"actor": actor or record.first_user, "switched_to": record.switched_to}
    return user, {"actor": actor} if actor is not None and actor != user else {}


def _flask_login_user(record: RequestRecord, session: preserve_session_access) -> str | None:
    manager = getattr(current_app, "login_manager", None)
    if flask_login is None or manager is None:
        return None
    # Read once, since access through Flask-Login's proxy is slow.
    user = flask_login.current_user._get_current_object()
    key = record.session_user
    unchanged = key is not None and key == session.get(_SESSION_USER)
    if unchanged and getattr(user, manager.id_attribute)() != key:
        # If the application made a request to itself, both share `g`, which has the other's user.
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
