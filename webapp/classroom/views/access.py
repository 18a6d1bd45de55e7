"""Access control: the session's account, and the roles that may open a view."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from flask import abort, url_for
from flask_login import current_user

from webapp.classroom.extensions import login_manager
from webapp.classroom.model.accounts import Role, User, find_user
from webapp.classroom.store.db import get_db

P = ParamSpec("P")
R = TypeVar("R")


def current_account() -> User:
    """Returns the account of this request; only for views that require a login."""
    return cast(User, current_user._get_current_object())


def roles_allowed(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Restricts a view to these roles: visitors get the login page, other roles a 403."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if not current_user.is_authenticated:
                return cast(R, login_manager.unauthorized())
            if current_account().role not in roles:
                abort(403)
            return view(*args, **kwargs)

        return guarded

    return decorate


def home_of(user: User) -> str:
    """Returns the start page of an account."""
    match user.role:
        case Role.TEACHER:
            return url_for("teacher.dashboard")
        case Role.AUDITOR:
            return url_for("auditor.overview")
        case _:
            return url_for("courses.index")


@login_manager.user_loader  # type: ignore[untyped-decorator] # Flask-Login has no types
def _load_user(user_id: str) -> User | None:
    return find_user(get_db(), int(user_id)) if user_id.isdecimal() else None
