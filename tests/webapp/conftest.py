"""A small site with a few accounts, and stand-ins for the client and the reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from logd_client import Outcome
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


@dataclass
class Sent:
    """One event that the client was given."""

    type: str
    user: str | None
    props: dict[str, Any]
    tell_user: bool = False


@dataclass
class FakeActivityClient:
    """Accepts and keeps every event."""

    socket_path: str
    events: list[Sent] = field(default_factory=list)
    outcome: Outcome = Outcome.STORED

    def emit(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        ts_ns: int | None = None,
        durable: bool = False,
        timeout_s: float = 5.0,
    ) -> bool:
        self.events.append(Sent(event_type, user, dict(props or {})))
        return True

    def emit_durable(
        self,
        event_type: str,
        *,
        user: str | None = None,
        props: Mapping[str, Any] | None = None,
        timeout_s: float = 5.0,
        tell_user: bool = False,
    ) -> Outcome:
        self.events.append(Sent(event_type, user, dict(props or {}), tell_user))
        return self.outcome

    def flush(self, timeout_s: float) -> bool:
        return True

    def stats(self) -> dict[str, Any]:
        return {"attempted": len(self.events), "accepted": len(self.events), "refused": 0}

    def close(self) -> None:
        pass


class Trail:
    """All events of all apps of a test, by socket."""

    def __init__(self) -> None:
        self.clients: dict[str, FakeActivityClient] = {}
        self.outcome = Outcome.STORED  # of the durable ones

    def client(self, socket_path: str, **_options: Any) -> FakeActivityClient:
        made = FakeActivityClient(socket_path, outcome=self.outcome)
        return self.clients.setdefault(socket_path, made)

    @property
    def events(self) -> list[Sent]:
        return [event for client in self.clients.values() for event in client.events]

    def of(self, event_type: str) -> list[Sent]:
        return [event for event in self.events if event.type == event_type]


MakeApp = Callable[..., Flask]


@pytest.fixture
def clients() -> Clients:
    """The clients that the extension has created, in tests of the extension alone."""
    return Clients()


@pytest.fixture
def trail() -> Trail:
    """The logged events; no socket is opened."""
    return Trail()


@pytest.fixture
def make_app(directory: Path, trail: Trail) -> MakeApp:
    """Creates a site in a directory of its own below the test's."""

    def make(name: str = "site", **config: Any) -> Flask:
        return create_app(
            {
                "TESTING": True,
                "CLASSROOM_DIR": str(directory / name),
                "ACTIVITY_LOG_CLIENT": trail.client,
                "ACTIVITY_LOG_SOCKET": str(directory / f"{name}-log.sock"),
                "ACTIVITY_QUERY_SOCKET": str(directory / f"{name}-query.sock"),
                "PASSWORD_METHOD": CHEAP,
                **config,
            }
        )

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
