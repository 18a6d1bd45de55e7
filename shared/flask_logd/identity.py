"""Resolves an object to a user: text, a whole number, or the result of its `get_id()`."""

from __future__ import annotations

from werkzeug.local import LocalProxy

from logd_wire.schema import Malformed, check_user


class Unidentified(Malformed):
    """The object `given` was given as a user, and does not identify one."""

    def __init__(self, message: str, given: object) -> None:
        super().__init__(message)
        self.given = given


def identity(user: object) -> str | None:
    """Returns the user as events store it; None for no user, such as Flask-Login's anonymous one.

    Accepts text, a whole number, an object whose `get_id()` returns one of them (Flask-Login's
    protocol), and a proxy for any of these, such as `current_user`. Raises Unidentified for
    anything else: an object's `str()` is never used as a user.
    """
    kind = type(user)
    try:
        # The type itself is compared, since an object may claim any `__class__`.
        found = user if kind is str or kind is int or user is None else _read_id(user)
        return check_user(found)
    except Malformed as error:
        raise Unidentified(str(error), user) from error


def _read_id(user: object) -> object:
    try:
        if type(user) is LocalProxy:
            user = user._get_current_object()
        if user is None or issubclass(type(user), str | int):
            return user
        get_id = getattr(user, "get_id", None)
        return get_id() if callable(get_id) else user
    except Exception as error:
        kind = type(user).__name__
        # The error's text is left out: it may name a person,
        # and formatting it may run the app's code.
        why = type(error).__name__
        raise Malformed(f"user: a {kind} whose id could not be read: {why}") from error
