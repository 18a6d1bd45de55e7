"""Answers kept over a lost session, where another person or another site sends them."""

from __future__ import annotations

import html
from collections.abc import Callable

import pytest
from flask import Flask

from tests.webapp.browser import ORIGIN, Browser
from tests.webapp.conftest import OTHER_STUDENT, MakeApp, fill
from tests.webapp.flask_apps import Clients
from tests.webapp.lost_sessions import (
    GIVEN,
    KEPT,
    delete_the_account,
    log_in_with,
    log_out_elsewhere,
    lose_the_cookie,
    rotate_the_secret,
)
from tests.webapp.test_courses import QUIZ
from tests.webapp.test_drafts import SAVE, Tab, answers_of, attempts, stored


@pytest.mark.parametrize("other", ["emil", "teacher"])
def test_another_person_s_login_takes_no_answers_and_loses_none(
    app: Flask, student: Browser, clients: Clients, other: str
) -> None:
    tab = Tab(student)
    lose_the_cookie(app, student)
    page = log_in_with(student, tab.post(QUIZ, GIVEN), other)
    assert page.status_code == 200
    text = html.unescape(page.text)
    assert "were typed by <strong>Noor Haddad</strong> on this computer" in text
    assert "They are mine" not in text
    assert stored(app, OTHER_STUDENT) is None
    assert stored(app) is None
    # The typist can still log in and go on.
    student.read("/login", page.text)
    page = student.post("/logout", student.hidden("/logout"))
    assert log_in_with(student, page, "student").location == QUIZ
    assert answers_of(app) == KEPT
    assert stored(app, OTHER_STUDENT) is None
    assert attempts(app) == 0
    assert not clients.of("quiz_submitted")


@pytest.mark.parametrize("path", [QUIZ, SAVE])
def test_the_open_page_of_one_student_is_not_handed_in_for_the_next(
    app: Flask, student: Browser, path: str
) -> None:
    tab = Tab(student)
    log_out_elsewhere(app, student)
    student.log_in("emil")
    page = tab.post(path, GIVEN)
    assert page.status_code == 409
    assert "typed by <strong>Noor Haddad</strong>" in page.text
    assert stored(app, OTHER_STUDENT) is None
    assert attempts(app) == 0


@pytest.mark.parametrize("damage", [rotate_the_secret, delete_the_account])
def test_answers_of_an_unknown_typist_are_taken_only_by_a_decision(
    app: Flask, student: Browser, damage: Callable[..., None]
) -> None:
    tab = Tab(student)
    damage(app, student)
    page = tab.post(QUIZ, GIVEN)
    assert page.status_code == 401
    page = log_in_with(student, page, "emil")
    assert page.status_code == 200
    assert "cannot\n    tell who typed them" in page.text
    assert stored(app, OTHER_STUDENT) is None
    student.read("/login", page.text)
    assert student.post(SAVE, student.hidden(SAVE)).location == QUIZ
    draft = stored(app, OTHER_STUDENT)
    assert draft is not None
    assert draft.answers == KEPT
    # The page that follows is the student's own.
    Tab(student).post(QUIZ, {"q0": "1"})
    assert stored(app, OTHER_STUDENT) is None


def test_a_token_names_its_account_only_if_it_is_this_site_s(
    app: Flask, student: Browser, make_app: MakeApp
) -> None:
    other = make_app("other")
    fill(other)
    stranger = Browser(other)
    stranger.log_in("student")
    Tab(stranger)
    foreign = stranger.hidden(QUIZ)["form"][0]
    own = Tab(student)
    mine = own.hidden["form"][0]
    lose_the_cookie(app, student)
    for token in ("", "x", "x" * 60_000, foreign, mine[:-1], mine + "x"):
        page = student.post(QUIZ, {**own.hidden, **GIVEN, "form": token}, token=own.token)
        page = log_in_with(student, page, "student")
        assert "cannot\n    tell who typed them" in page.text, token[:99]
        assert stored(app) is None
        student.read("/login", page.text)
        student.post("/logout")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Referer": f"{ORIGIN}/"},
        {"Referer": "https://evil.example/"},
        {"Origin": "null"},
        {},
    ],
)
@pytest.mark.parametrize("logged_in", [True, False])
def test_answers_from_another_site_are_not_kept(
    app: Flask, student: Browser, headers: dict[str, str], logged_in: bool
) -> None:
    hidden = Tab(student).hidden
    if not logged_in:
        lose_the_cookie(app, student)
    response = student.client.post(QUIZ, data={**hidden, **GIVEN}, base_url=ORIGIN, headers=headers)
    assert response.status_code == 400
    assert "six" not in response.text
    assert stored(app) is None


def test_what_a_page_keeps_is_bounded(app: Flask, student: Browser) -> None:
    tab = Tab(student)
    lose_the_cookie(app, student)
    many = {f"q{n}": "0" for n in range(900)}
    page = tab.post(QUIZ, {**many, "q1": "9" * 30_000, "other": "x" * 9000, "q0": ["0"] * 500})
    assert page.status_code == 401
    assert len(page.text) < 6000
    assert tab.post(QUIZ, {"q1": "9" * 70_000}).status_code == 413


def test_a_quiz_that_does_not_exist_keeps_nothing(browser: Browser) -> None:
    browser.get("/login")
    path = "/courses/data/quizzes/none"
    response = browser.post(path, GIVEN, token=browser.token)
    assert response.status_code == 302
    assert response.location.startswith("/login")
    response = browser.post(
        "/login", {"kept_course": "data", "kept_quiz": "none", "login": "x", "password": "y"}
    )
    assert "answers" not in response.text
