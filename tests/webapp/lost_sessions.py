"""Ways in which a session is lost while a quiz is open, and the login that follows."""

from __future__ import annotations

from typing import Any

from flask import Flask

from tests.webapp.browser import PASSWORD, Browser
from tests.webapp.conftest import STUDENT, database

GIVEN: dict[str, Any] = {"q0": "1", "q1": "about <six>", "q2": ["0", "2"]}


KEPT = {0: ["1"], 1: ["about <six>"], 2: ["0", "2"]}


def expire(_app: Flask, _student: Browser) -> None:
    """The signature of the session's cookie is too old, see `too_old`."""


def log_out_elsewhere(_app: Flask, student: Browser) -> None:
    student.get("/courses/")
    student.post("/logout")


def lose_the_cookie(_app: Flask, student: Browser) -> None:
    student.client.delete_cookie("classroom", domain="classroom.example")


def rotate_the_secret(app: Flask, _student: Browser) -> None:
    app.config["SECRET_KEY"] = "another secret"


def delete_the_account(app: Flask, _student: Browser) -> None:
    with database(app).transaction() as connection:
        connection.execute("DELETE FROM users WHERE id = ?", (STUDENT,))


LOSSES = [log_out_elsewhere, lose_the_cookie]


def log_in_with(browser: Browser, page: Any, login: str, password: str = PASSWORD) -> Any:
    """Logs in with the form of a page, sending the answers that it keeps."""
    browser.read("/login", page.text)
    return browser.post(
        "/login", {**browser.hidden("/login"), "login": login, "password": password}
    )
