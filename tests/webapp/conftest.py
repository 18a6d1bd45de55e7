"""A small site with a few accounts, and stand-ins for the client and the reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from jinja2 import FileSystemBytecodeCache

from tests.webapp.browser import PASSWORD, Browser
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients
from webapp import create_app
from webapp.classroom.model.accounts import Role, add_user, hash_password
from webapp.classroom.model.catalogue import store_courses
from webapp.classroom.model.content import read_courses
from webapp.classroom.store.db import Database

# One round of hashing: the tests are about what follows a login, not about slow hashes.
CHEAP = "pbkdf2:sha256:1"

STUDENT, OTHER_STUDENT, TEACHER, AUDITOR = 11, 12, 21, 31


MakeApp = Callable[..., Flask]


@pytest.fixture
def clients() -> Clients:
    """The clients that an app under test has created, with the logged events; none has a socket."""
    return Clients()


@pytest.fixture(scope="session")
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> FileSystemBytecodeCache:
    """Templates compiled once for the sites of all tests: half of the time of a short test."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


@pytest.fixture
def make_app(
    directory: Path, clients: Clients, compiled_templates: FileSystemBytecodeCache
) -> MakeApp:
    """Creates a site in a directory of its own below the test's."""

    def make(name: str = "site", **config: Any) -> Flask:
        app = create_app(
            {
                "TESTING": True,
                "CLASSROOM_DIR": str(directory / name),
                "ACTIVITY_LOG_CLIENT": clients,
                "ACTIVITY_LOG_SOCKET": str(directory / f"{name}-log.sock"),
                "ACTIVITY_QUERY_SOCKET": str(directory / f"{name}-query.sock"),
                "PASSWORD_METHOD": CHEAP,
                **config,
            }
        )
        app.jinja_env.bytecode_cache = compiled_templates
        return app

    return make


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """A site with courses, two students, a teacher and an auditor. logd is unavailable."""
    app = make_app()
    fill(app)
    return app


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app)


@pytest.fixture
def student(browser: Browser) -> Browser:
    browser.log_in("student")
    return browser


@pytest.fixture
def teacher(browser: Browser) -> Browser:
    browser.log_in("teacher")
    return browser


@pytest.fixture
def auditor(browser: Browser) -> Browser:
    browser.log_in("auditor")
    return browser


@pytest.fixture
def reports(app: Flask) -> Iterator[FakeReports]:
    """A stand-in for logd's report process, with the answers that the test sets."""
    fake = FakeReports(Path(app.config["ACTIVITY_QUERY_SOCKET"]))
    yield fake
    fake.close()


def database(app: Flask) -> Database:
    found = app.extensions["classroom_database"]
    assert isinstance(found, Database)
    return found


def fill(app: Flask) -> None:
    """Adds courses and accounts."""
    password_hash = hash_password(PASSWORD, CHEAP)
    with database(app).transaction() as connection:
        store_courses(connection, read_courses())
        for user_id, login, name, role in (
            (STUDENT, "student", "Noor Haddad", Role.STUDENT),
            (OTHER_STUDENT, "emil", "Emil Sørensen", Role.STUDENT),
            (TEACHER, "teacher", "Ada Brandt", Role.TEACHER),
            (AUDITOR, "auditor", "Ruth Keller", Role.AUDITOR),
        ):
            add_user(
                connection,
                user_id=user_id,
                login=login,
                name=name,
                role=role,
                password_hash=password_hash,
            )
