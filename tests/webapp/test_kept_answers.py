"""A quiz's answers survive a session that ended before they arrived, and go to nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from itsdangerous import TimestampSigner

from tests.webapp.browser import PASSWORD, Browser
from tests.webapp.conftest import OTHER_STUDENT, database
from tests.webapp.flask_apps import Clients
from tests.webapp.lost_sessions import (
    GIVEN,
    KEPT,
    LOSSES,
    log_in_with,
    log_out_elsewhere,
    lose_the_cookie,
)
from tests.webapp.test_courses import QUIZ, questions, right_form
from tests.webapp.test_drafts import AUTOSAVE, SAVE, Tab, answers_of, attempts, stored
from webapp.classroom.views.quiz_form import TOKEN_AGE_MAX_S

LogIn = Callable[..., Any]


@pytest.mark.parametrize("path", [QUIZ, SAVE])
@pytest.mark.parametrize("lose", LOSSES)
def test_after_a_lost_session_the_same_student_continues_with_all_answers(
    app: Flask, student: Browser, clients: Clients, path: str, lose: Callable[..., None]
) -> None:
    tab = Tab(student)
    lose(app, student)
    page = tab.post(path, GIVEN)
    assert page.status_code == 401
    assert "Your login had ended" in page.text
    assert stored(app) is None
    restored = log_in_with(student, page, "student")
    assert restored.location == QUIZ
    assert answers_of(app) == KEPT
    shown = Tab(student).text
    assert "Your answers are here again, and saved. They are not handed in yet." in shown
    assert 'value="about &lt;six&gt;"' in shown
    assert attempts(app) == 0
    assert not clients.of("quiz_submitted")
    assert len(clients.of("login")) == 2


def test_an_expired_session_keeps_the_answers(
    app: Flask, student: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(student)
    later_s = int(time.time()) + 9 * 3600
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _self: later_s)
    page = tab.post(QUIZ, GIVEN)
    assert page.status_code == 401
    log_in_with(student, page, "student")
    assert answers_of(app) == KEPT


def test_a_page_that_was_open_for_a_month_does_not_say_whose_it_is(
    app: Flask, student: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(student)
    later_s = int(time.time()) + TOKEN_AGE_MAX_S + 60
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _self: later_s)
    page = log_in_with(student, tab.post(QUIZ, GIVEN), "student")
    assert "tell who typed them" in page.text
    student.read("/login", page.text)
    assert student.post(SAVE, student.hidden(SAVE)).location == QUIZ
    assert answers_of(app) == KEPT


@pytest.mark.parametrize("path", [QUIZ, SAVE])
def test_a_form_with_a_valid_token_and_no_login_is_kept_too(
    app: Flask, student: Browser, path: str
) -> None:
    tab = Tab(student)
    lose_the_cookie(app, student)
    student.get("/login")
    page = student.post(path, {**tab.hidden, **GIVEN}, token=student.token)
    assert page.status_code == 401
    assert log_in_with(student, page, "student").location == QUIZ
    assert answers_of(app) == KEPT


def test_a_wrong_password_and_too_many_of_them_keep_the_answers(
    app: Flask, student: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(student)
    lose_the_cookie(app, student)
    page = tab.post(QUIZ, GIVEN)
    for _ in range(5):
        page = log_in_with(student, page, "student", "not the password")
        assert page.status_code == 200
    page = log_in_with(student, page, "student")
    assert page.status_code == 429
    student.read("/login", page.text)
    page = student.post("/login", student.hidden("/login"))
    assert "Your login had ended" in page.text
    app.config["LOGIN_LIMIT_ACCOUNT"] = "100 per hour"  # the wait is over
    assert log_in_with(student, page, "student").location == QUIZ
    assert answers_of(app) == KEPT


def test_logged_in_again_in_another_tab_the_form_is_shown_filled_in(
    app: Flask, student: Browser
) -> None:
    tab = Tab(student)
    log_out_elsewhere(app, student)
    student.log_in("student")
    assert tab.post(QUIZ, GIVEN).location == QUIZ
    assert "not handed in yet" in Tab(student).text
    assert answers_of(app) == KEPT
    assert attempts(app) == 0


def test_the_kept_login_page_works_when_another_tab_has_logged_in_meanwhile(
    app: Flask, student: Browser
) -> None:
    tab = Tab(student)
    lose_the_cookie(app, student)
    page = tab.post(QUIZ, GIVEN)
    student.read("/login", page.text)
    kept, token = student.hidden("/login"), student.forms["/login"]
    student.log_in("student")
    answer = student.post("/login", {**kept, "login": "student", "password": "x"}, token=token)
    assert answer.location == QUIZ
    assert answers_of(app) == KEPT


def test_kept_answers_sent_by_a_page_of_this_login_are_restored(
    app: Flask, student: Browser
) -> None:
    tab = Tab(student)
    kept = {"kept_course": "data", "kept_quiz": "data-chance-quiz", **tab.hidden, **GIVEN}
    assert student.post("/login", kept, token=tab.token).location == QUIZ
    assert answers_of(app) == KEPT


def test_an_attempt_handed_in_before_is_the_result_after_the_login(
    app: Flask, student: Browser
) -> None:
    form = right_form(questions(app))
    tab = Tab(student)
    tab.post(QUIZ, form)
    lose_the_cookie(app, student)
    page = tab.post(QUIZ, form)
    assert log_in_with(student, page, "student").location == f"{QUIZ}/attempts/1"
    assert stored(app) is None
    assert attempts(app) == 1


def test_a_draft_of_another_page_is_not_replaced_by_a_login(app: Flask, student: Browser) -> None:
    tab, other = Tab(student), Tab(student)
    other.autosave({"q0": "0"})
    lose_the_cookie(app, student)
    page = tab.post(QUIZ, GIVEN)
    shown = log_in_with(student, page, "student")
    assert shown.status_code == 200
    assert "The answers below are not saved" in shown.text
    assert 'value="about &lt;six&gt;"' in shown.text
    assert answers_of(app) == {0: ["0"]}
    student.read("/login", shown.text)
    assert student.post(SAVE, {**student.hidden(SAVE), **GIVEN}).location == QUIZ
    assert answers_of(app) == KEPT


# -- forged ---------------------------------------------------------------------------------------


def test_a_login_without_kept_answers_is_as_before(browser: Browser) -> None:
    assert "kept_" not in browser.get("/login").text
    assert browser.log_in("student").location == "/courses/"


@pytest.mark.parametrize("path", [QUIZ, SAVE])
def test_an_error_of_the_site_keeps_the_answers(
    app: Flask, student: Browser, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    tab = Tab(student)
    given = {**GIVEN, "q1": "6"}

    def full(*_: object, **__: object) -> None:
        raise OSError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(database(app), "transaction", full)
        page = tab.post(path, {**given, "login": "x", "q": "x", "qx": "x"})
    assert page.status_code == 500
    student.read(path, page.text)
    hidden = student.hidden(path)
    assert hidden.keys() == {"number", "revision", "form", "q0", "q1", "q2"}
    assert student.post(path, hidden).status_code == 302
    assert attempts(app) == (path == QUIZ)
    if path == QUIZ:
        assert "<dd>6 %</dd>" in student.get(f"{QUIZ}/attempts/1").text
    else:
        assert answers_of(app) == {0: ["1"], 1: ["6"], 2: ["0", "2"]}


# -- the script -----------------------------------------------------------------------------------


def test_a_script_s_save_without_a_session_says_so(app: Flask, student: Browser) -> None:
    tab = Tab(student)
    log_out_elsewhere(app, student)
    answer = tab.post(AUTOSAVE, GIVEN)
    assert answer.status_code == 401
    assert "you are logged out" in answer.json["text"]
    student.log_in("emil")
    answer = tab.post(AUTOSAVE, GIVEN)
    assert answer.status_code == 403
    assert "another account has logged in" in answer.json["text"]
    assert stored(app) is None
    assert stored(app, OTHER_STUDENT) is None


def test_a_script_s_page_goes_on_after_a_login_in_another_tab(app: Flask, student: Browser) -> None:
    tab = Tab(student)
    log_out_elsewhere(app, student)
    student.log_in("student")
    answer = tab.autosave(GIVEN)
    assert answer.status_code == 200
    assert answers_of(app) == KEPT
    # With the token that the answer has, its form is valid again.
    tab.token = answer.json["csrf_token"]
    assert tab.post(QUIZ, {"q0": "1"}).location.endswith("/attempts/1")
    assert stored(app) is None


# -- tasks ----------------------------------------------------------------------------------------


def test_a_task_whose_session_was_lost_is_shown_again(
    app: Flask, student: Browser, clients: Clients
) -> None:
    task = "/courses/data/tasks/data-dice"
    student.get(task)
    token = student.forms[f"{task}/complete"]
    lose_the_cookie(app, student)
    login = student.post(f"{task}/complete", token=token).location
    assert unquote(login) == f"/login?next={task}"
    assert "press the button again" in student.get(login).text
    answer = student.post(login, {"login": "student", "password": PASSWORD})
    assert answer.location == task
    assert not clients.of("task_completed")
    student.post(f"{task}/complete")
    assert len(clients.of("task_completed")) == 1
