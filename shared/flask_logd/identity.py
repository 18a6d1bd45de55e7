"""Which user an object stands for: text, a whole number, or what its `get_id()` returns."""

from __future__ import annotations

from werkzeug.local import LocalProxy

from logd_wire.schema import Malformed, check_user


class Unidentified(Malformed):
    """What was given for a user identifies none. `given` is that very object."""

    def __init__(self, message: str, given: object) -> None:
        super().__init__(message)
        self.given = given


def identity(user: object) -> str | None:
    """The user as events carry it; None for no user, such as Flask-Login's anonymous one.

    Takes text, a whole number, an object with `get_id()` that returns one of them (Flask-Login's
    protocol), and a proxy for any of these, such as `current_user`. Raises Unidentified for
    anything else: the text of an object is never taken for the name of a person.
    """
    kind = type(user)
    try:
        # By the type itself: an object may claim any `__class__`.
        found = user if kind is str or kind is int or user is None else _ask(user)
        return check_user(found)
    except Malformed as error:
        raise Unidentified(str(error), user) from error


def _ask(user: object) -> object:
    try:
        if type(user) is LocalProxy:
            user = user._get_current_object()
        if user is None or issubclass(type(user), str | int):
            return user
        get_id = getattr(user, "get_id", None)
        return get_id() if callable(get_id) else user
    except Exception as error:
        kind = type(user).__name__
        # Without the error's own words: they may be code of the application's, or quote a person.
        why = type(error).__name__
        raise Malformed(f"user: a {kind} whose id could not be read: {why}") from error
