"""Who may see what: loading the session's account, and the check at the door of a view."""

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
    """The account that asks for this page. Only for views behind a login."""
    return cast(User, current_user._get_current_object())


def roles_allowed(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets these roles through; sends strangers to the login and others to the 403 page."""

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
    """The page an account starts on."""
    match user.role:
        case Role.TEACHER:
            return url_for("teacher.dashboard")
        case Role.AUDITOR:
            return url_for("auditor.overview")
        case _:
            return url_for("courses.index")


@login_manager.user_loader  # type: ignore[untyped-decorator]
def _load_user(user_id: str) -> User | None:
    return find_user(get_db(), int(user_id)) if user_id.isdecimal() else None
