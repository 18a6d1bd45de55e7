"""The real site for `throughput`: a Classroom with a logged-in student."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import Failed
from webapp.classroom.factory import create_app
from webapp.classroom.model.accounts import Role, add_user, hash_password
from webapp.classroom.model.catalogue import store_courses
from webapp.classroom.model.content import read_courses
from webapp.classroom.store.db import get_db

PAGE = "/courses/python/lessons/functions"
LOGIN = "student"
_PASSWORD = "a password for an hour"
# A password method with one round of hashing, since the login is not measured.
_PASSWORD_METHOD = "pbkdf2:sha256:1"
_USER_AGENT = "benchmark"  # a session is bound to its browser


@dataclass(frozen=True)
class Student:
    """The settings of the site and the headers of the student's requests."""

    settings: dict[str, Any]
    headers: dict[str, str]


def prepare(directory: Path, socket: Path | None) -> Student:
    """Make a Classroom in `directory` that logs to `socket`, or not at all. Raises Failed."""
    settings: dict[str, Any] = {
        "CLASSROOM_DIR": str(directory),
        "ACTIVITY_LOG_ENABLED": socket is not None,
        "SESSION_COOKIE_SECURE": False,
        "PASSWORD_METHOD": _PASSWORD_METHOD,
    }
    if socket is not None:
        settings["ACTIVITY_LOG_SOCKET"] = str(socket)
    # Logging is off while the site is filled, so that only page views are logged.
    app = create_app({**settings, "ACTIVITY_LOG_ENABLED": False})
    with app.app_context():
        db = get_db()
        with db.transaction() as connection:
            store_courses(connection, read_courses())
            add_user(
                connection,
                login=LOGIN,
                name="A Student",
                role=Role.STUDENT,
                password_hash=hash_password(_PASSWORD, _PASSWORD_METHOD),
            )
        cookie = _log_in(app)
        db.close()
    return Student(settings, {"Cookie": f"classroom={cookie}", "User-Agent": _USER_AGENT})


def _log_in(app: Any) -> str:
    browser = app.test_client()
    headers = {"User-Agent": _USER_AGENT}
    form = browser.get("/login", headers=headers).get_data(as_text=True)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
    if token is None:
        raise Failed("the Classroom's login page has no form")
    browser.post(
        "/login",
        data={"login": LOGIN, "password": _PASSWORD, "csrf_token": token[1]},
        headers=headers,
    )
    page = browser.get(PAGE, headers=headers)
    cookie = browser.get_cookie("classroom")
    if page.status_code != 200 or cookie is None:
        raise Failed(f"the Classroom answers {page.status_code} to a student")
    return str(cookie.value)
