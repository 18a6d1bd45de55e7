"""The Flask extension: which objects identify a user, and which are refused."""

from __future__ import annotations

import enum
from typing import Any

import flask_login
import pytest
from flask import Flask
from markupsafe import Markup
from werkzeug.local import LocalProxy

from flask_logd import ActivityLog
from logd_client import Outcome
from logd_wire.schema import Malformed
from tests.webapp.flask_apps import (
    Account,
    Clients,
    DatabaseClosed,
    acting,
    logging_to,
    make_app,
)


class Level(enum.IntEnum):
    SEVEN = 7


class Number(int, enum.Enum):
    SEVEN = 7


class Name(str, enum.Enum):  # noqa: UP042 - its text is "Name.SEVEN", which is the point
    SEVEN = "7"


class Fails:
    """A user object whose session with the database is closed."""

    def get_id(self) -> str:
        raise DatabaseClosed


class Claims:
    """Claims to be a str, as a mock with a specification does."""

    @property
    def __class__(self) -> Any:
        return str

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError


class WithId:
    def __init__(self, user_id: object) -> None:
        self._id = user_id

    def get_id(self) -> object:
        return self._id


def unbound() -> Any:
    raise RuntimeError("no session here")


USERS: list[tuple[Any, str | None]] = [
    ("7", "7"),
    (7, "7"),
    (Account("7"), "7"),
    (WithId(7), "7"),
    (LocalProxy(lambda: Account("7")), "7"),
    (LocalProxy(lambda: "7"), "7"),
    (LocalProxy(lambda: 7), "7"),
    (Level.SEVEN, "7"),
    (Number.SEVEN, "7"),
    (Name.SEVEN, "7"),
    (Markup("7"), "7"),
    (flask_login.AnonymousUserMixin(), None),
    (WithId(None), None),
    (LocalProxy(lambda: None), None),
]
NO_USERS: list[Any] = [
    b"7",
    7.0,
    True,
    "",
    "x" * 256,
    2**63,
    ["7"],
    object(),
    Account,
    Fails(),
    Claims(),
    WithId(b"7"),
    WithId(True),
    WithId(WithId("7")),
    LocalProxy(unbound),
    LocalProxy(lambda: 7.0),
]


@pytest.mark.parametrize(("given", "stored"), USERS)
def test_a_user_is_text_a_whole_number_or_an_object_that_has_an_id(
    clients: Clients, given: Any, stored: str | None
) -> None:
    app = make_app()
    activity = logging_to(clients, app)
    with app.app_context():
        assert activity.log("task_completed", user=given)
    user = clients.events[0].user
    assert (user, type(user)) == (stored, type(stored))


@pytest.mark.parametrize(("given", "stored"), USERS)
def test_results_of_the_user_callable_are_resolved_in_the_same_way(
    clients: Clients, given: Any, stored: str | None
) -> None:
    app = make_app(ACTIVITY_LOG_USER=lambda: given, ACTIVITY_LOG_ACTOR=lambda: given)
    logging_to(clients, app)
    app.test_client().get("/text")
    assert [view[0] for view in clients.requests] == ([] if stored is None else [stored])
    assert [acting(event) for event in clients.events] == [{}] * len(clients.events)


def refusals(app: Flask, activity: ActivityLog) -> tuple[int, dict[str, int], int]:
    """Returns the events accepted, those refused by cause, and the extension's failures."""
    with app.app_context():
        stats = activity.stats()
        activity.client().close()
    return stats["accepted"], stats["refused_by_cause"], stats["hook_failures"]


@pytest.mark.parametrize("given", NO_USERS, ids=lambda given: type(given).__name__)
def test_any_other_object_is_refused_as_malformed_and_never_stored_as_its_text(given: Any) -> None:
    app = make_app()
    activity = ActivityLog(app)  # with the real client, which counts and reports the refusal
    with app.app_context():
        assert activity.log("task_completed", user=given) is False
        assert activity.log("task_completed", user=given, durable=True) is Outcome.REFUSED
    assert refusals(app, activity) == (0, {"malformed": 2}, 0)


@pytest.mark.parametrize("key", ["ACTIVITY_LOG_USER", "ACTIVITY_LOG_ACTOR"])
@pytest.mark.parametrize("given", NO_USERS, ids=lambda given: type(given).__name__)
def test_a_callable_that_returns_no_user_is_refused_as_malformed(key: str, given: Any) -> None:
    app = make_app(**{"ACTIVITY_LOG_USER": lambda: "7", key: lambda: given})
    activity = ActivityLog(app)
    assert app.test_client().get("/text").status_code == 200
    assert refusals(app, activity) == (0, {"malformed": 1}, 0)


@pytest.mark.parametrize("given", [b"7", object(), Fails(), WithId(True)])
def test_an_invalid_user_raises_while_testing(clients: Clients, given: Any) -> None:
    app = make_app(TESTING=True)
    activity = logging_to(clients, app)
    with app.app_context(), pytest.raises(Malformed, match="user: "):
        activity.log("task_completed", user=given)
    assert clients.events == []


def test_an_account_without_an_id_is_refused_and_not_stored_as_none() -> None:
    app = make_app()
    activity = ActivityLog(app)
    manager = flask_login.LoginManager(app)

    class Unsaved(flask_login.UserMixin):  # type: ignore[misc] # Flask-Login has no types
        def get_id(self) -> None:
            return None

    manager.request_loader(lambda _: Unsaved())

    @app.get("/leave")
    def leave() -> str:
        flask_login.logout_user()
        return "out"

    browser = app.test_client()
    browser.get("/text")
    browser.get("/leave")  # the user who left is not known
    assert refusals(app, activity) == (0, {"malformed": 1}, 0)
