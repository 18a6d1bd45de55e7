"""A quiz's answers survive a session that ended before they arrived, and go to nobody else."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from itsdangerous import TimestampSigner

from tests.webapp.browser import ORIGIN, PASSWORD, Browser
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, MakeApp, database, fill
from tests.webapp.flask_apps import Clients
from tests.webapp.test_courses import QUIZ, questions, right_form
from tests.webapp.test_drafts import AUTOSAVE, SAVE, Tab, answers_of, attempts, stored
from webapp.classroom.views.quiz_form import TOKEN_AGE_MAX_S

GIVEN: dict[str, Any] = {"q0": "1", "q1": "about <six>", "q2": ["0", "2"]}
KEPT = {0: ["1"], 1: ["about <six>"], 2: ["0", "2"]}
LogIn = Callable[..., Any]


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


# -- another person -------------------------------------------------------------------------------


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


# -- forged ---------------------------------------------------------------------------------------


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
