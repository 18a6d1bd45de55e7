"""Drafts of quizzes: saved by a button and a script, ended by handing in, never replaced unseen."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from flask import Flask

from tests.webapp.browser import Browser
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, database
from tests.webapp.flask_apps import Clients
from tests.webapp.test_courses import QUIZ, questions, right_form
from webapp.classroom.model import drafts, work
from webapp.classroom.model.accounts import find_user
from webapp.classroom.model.catalogue import list_quizzes
from webapp.classroom.model.drafts import ANSWER_CHARS_MAX, Draft, Origin
from webapp.classroom.store.schema import MIGRATIONS

SAVE, AUTOSAVE = f"{QUIZ}/draft", f"{QUIZ}/draft/autosave"


class Tab:
    """One page of the quiz, in a tab of its own: it keeps its hidden fields."""

    def __init__(self, browser: Browser, path: str = QUIZ) -> None:
        self.browser = browser
        self.text = browser.get(path).text
        self.token = browser.forms[QUIZ]
        self.hidden = browser.hidden(QUIZ)

    def post(self, path: str, answers: dict[str, Any], **options: Any) -> Any:
        return self.browser.post(path, {**self.hidden, **answers}, token=self.token, **options)

    def autosave(self, answers: dict[str, Any]) -> Any:
        """Saves as the script does, which takes the new revision."""
        response = self.post(AUTOSAVE, answers)
        if "revision" in (response.json or {}):
            self.hidden["revision"] = response.json["revision"]
        return response


def stored(app: Flask, user_id: int = STUDENT) -> Draft | None:
    user = find_user(database(app), user_id)
    assert user is not None
    quiz = next(q for q in list_quizzes(database(app), "data") if q.id == "data-chance-quiz")
    return drafts.find_draft(database(app), user, quiz)


def answers_of(app: Flask) -> dict[int, list[str]]:
    draft = stored(app)
    assert draft is not None
    return draft.answers


def attempts(app: Flask) -> int:
    (count,) = database(app).connection().execute("SELECT count(*) FROM attempts").fetchone()
    return int(count)


def test_the_button_saves_and_the_page_shows_what_was_saved(
    app: Flask, student: Browser, clients: Clients
) -> None:
    saved = Tab(student).post(SAVE, {"q0": "1", "q1": "about <six>", "q2": ["0", "2"]})
    assert saved.location == QUIZ
    page = Tab(student).text
    assert re.search(r'role="status" aria-live="polite">Saved at \d\d:\d\d<', page)
    assert "These are the answers that you saved at" in page
    assert 'value="about &lt;six&gt;"' in page
    assert page.count(" checked") == 3
    assert attempts(app) == 0
    assert not clients.of("quiz_submitted")
    (event,) = [e for e in clients.of("request_redirected") if e.props["endpoint"] == "drafts.save"]
    assert event.user == str(STUDENT)


def test_a_script_s_saves_are_answered_with_a_text_and_stay_out_of_the_trail(
    app: Flask, student: Browser, clients: Clients
) -> None:
    tab = Tab(student)
    before = len(clients.events)
    for answer in ("0", "1"):
        response = tab.autosave({"q0": answer})
        assert response.status_code == 200
        assert re.fullmatch(r"Saved at \d\d:\d\d", response.json["text"])
    assert answers_of(app) == {0: ["1"]}
    assert len(clients.events) == before


def test_handing_in_ends_the_draft_in_its_transaction(
    app: Flask, student: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(student)
    tab.autosave({"q0": "1"})

    def fail(*_: object, **__: object) -> None:
        raise OSError("in the middle of the transaction")

    with monkeypatch.context() as broken:
        broken.setattr(drafts, "_delete", fail)
        with pytest.raises(OSError, match="in the middle"):
            tab.post(QUIZ, {"q0": "2"})
    assert attempts(app) == 0
    assert answers_of(app) == {0: ["1"]}
    tab.post(QUIZ, {"q0": "2"})
    assert attempts(app) == 1
    assert stored(app) is None
    assert "kept as a draft" not in student.get(f"{QUIZ}/attempts/1").text


def test_a_hand_in_with_an_error_is_saved(app: Flask, student: Browser) -> None:
    response = Tab(student).post(QUIZ, {"q0": "1", "q1": "six"})
    assert response.status_code == 422
    assert answers_of(app) == {0: ["1"], 1: ["six"]}
    assert "Saved at" in response.text
    student.read(QUIZ, response.text)
    again = student.post(QUIZ, {**student.hidden(QUIZ), "q0": "1", "q1": "6"})
    assert again.status_code == 302
    assert stored(app) is None


@pytest.mark.parametrize("number", ["", "x", "9", "²"])
def test_a_form_out_of_turn_is_shown_again_and_saved(
    app: Flask, student: Browser, number: str
) -> None:
    response = Tab(student).post(QUIZ, {"q0": "1", "number": number})
    assert response.status_code == 400
    assert response.text.count(" checked") == 1
    assert answers_of(app) == {0: ["1"]}
    assert attempts(app) == 0


def test_emptied_answers_leave_no_draft(app: Flask, student: Browser) -> None:
    tab = Tab(student)
    tab.autosave({"q0": "1"})
    assert tab.autosave({"q1": " "}).json["text"] == "There is no answer to save yet."
    assert stored(app) is None


def test_a_draft_is_bounded(app: Flask, student: Browser) -> None:
    tab = Tab(student)
    answers = {"q0": ["0", "0", "7", "x"], "q1": "9" * 5000, "q2": [str(n) for n in range(999)]}
    tab.autosave({**answers, "q99": "1"})
    kept = answers_of(app)
    assert kept[0] == ["0"]
    assert kept[1] == ["9" * ANSWER_CHARS_MAX]
    assert len(kept[2]) == len(questions(app)[2].options)
    assert set(kept) == {0, 1, 2}
    (rows,) = database(app).connection().execute("SELECT count(*) FROM quiz_drafts").fetchone()
    assert rows == 1
    assert tab.post(AUTOSAVE, {"q1": "9" * 70_000}).status_code == 413
    assert answers_of(app) == kept


def test_a_draft_is_its_student_s(app: Flask, student: Browser) -> None:
    Tab(student).autosave({"q0": "1"})
    emil = Browser(app)
    emil.log_in("emil")
    assert " checked" not in Tab(emil).text
    Tab(emil).autosave({"q0": "2"})
    assert answers_of(app) == {0: ["1"]}
    assert stored(app, OTHER_STUDENT) is not None


@pytest.mark.parametrize("login", ["teacher", "auditor"])
@pytest.mark.parametrize("path", [SAVE, AUTOSAVE])
def test_only_students_have_drafts(browser: Browser, login: str, path: str) -> None:
    browser.log_in(login)
    assert browser.post(path, {"q0": "1"}, token=browser.token).status_code == 403


def test_an_account_is_deleted_with_its_drafts(app: Flask, student: Browser) -> None:
    Tab(student).autosave({"q0": "1"})
    with database(app).transaction() as connection:
        connection.execute("DELETE FROM users WHERE id = ?", (STUDENT,))
    rows = database(app).connection().execute("SELECT * FROM quiz_drafts").fetchall()
    assert rows == []


def test_answers_stay_with_their_questions_when_the_quiz_changes(
    app: Flask, student: Browser
) -> None:
    Tab(student).autosave({"q0": "1", "q1": "6"})
    with database(app).transaction() as connection:
        connection.execute(
            "UPDATE quizzes SET questions = json_remove(questions, '$[0]')"
            " WHERE id = 'data-chance-quiz'"
        )
    assert answers_of(app) == {0: ["6"]}
    page = Tab(student).text
    assert 'name="q0" inputmode="decimal" autocomplete="off" maxlength="40" value="6"' in page
    assert "The quiz was changed since" in page


# -- two tabs -------------------------------------------------------------------------------------


def test_other_answers_of_a_second_tab_become_the_draft_of_the_next_attempt(
    app: Flask, student: Browser
) -> None:
    first, second = Tab(student), Tab(student)
    first.post(QUIZ, {"q0": "1"})
    response = second.post(QUIZ, {"q0": "2", "q1": "6"})
    assert response.location == f"{QUIZ}/attempts/1"
    page = html.unescape(student.get(response.location).text)
    assert "Attempt 1 was already handed in" in page
    assert "saved as a draft of attempt 2, and not handed in" in page
    assert "kept as a draft of attempt 2" in page
    draft = stored(app)
    assert draft is not None
    assert (draft.number, draft.answers) == (2, {0: ["2"], 1: ["6"]})
    assert attempts(app) == 1
    # It is said as long as it is true, not once.
    assert "kept as a draft of attempt 2" in student.get(response.location).text


@pytest.mark.parametrize("answers", [{"q0": "1", "q2": ["0", "1"]}, {}])
def test_the_same_answers_again_are_the_result_and_nothing_else(
    app: Flask, student: Browser, answers: dict[str, Any]
) -> None:
    first, second = Tab(student), Tab(student)
    for tab in (first, second, second):
        page = student.get(tab.post(QUIZ, answers).location).text
    assert "Attempt 1 was already handed in, on" in page
    assert "draft" not in page
    assert attempts(app) == 1
    assert stored(app) is None


def test_answers_that_another_tab_has_saved_survive_a_hand_in(app: Flask, student: Browser) -> None:
    first, second = Tab(student), Tab(student)
    second.autosave({"q0": "2"})
    student.get(first.post(QUIZ, {"q0": "1"}).location)
    draft = stored(app)
    assert draft is not None
    assert (draft.number, draft.answers) == (2, {0: ["2"]})
    assert "kept as a draft of attempt 2" in student.get(f"{QUIZ}/attempts/1").text
    # The second tab goes on: its answers are for the next attempt by now, and it is told so.
    told = second.autosave({"q0": "2", "q1": "6"}).json["text"]
    assert "as a draft of attempt 2: attempt 1 was already handed in" in told
    assert answers_of(app) == {0: ["2"], 1: ["6"]}


def test_answers_that_were_handed_in_as_the_next_attempt_are_its_result(
    app: Flask, student: Browser
) -> None:
    first, second = Tab(student), Tab(student)
    first.post(QUIZ, {"q0": "1"})
    second.post(QUIZ, {"q0": "2"})
    Tab(student).post(QUIZ, {"q0": "2"})
    assert attempts(app) == 2
    response = second.post(QUIZ, {"q0": "2"})
    assert response.location == f"{QUIZ}/attempts/2"
    assert "Attempt 2 was already handed in" in student.get(response.location).text
    assert stored(app) is None


def test_a_tab_does_not_replace_what_another_has_saved_since(app: Flask, student: Browser) -> None:
    first, second = Tab(student), Tab(student)
    first.autosave({"q0": "1"})
    refused = second.autosave({"q0": "2"})
    assert refused.status_code == 409
    assert "Not saved: other answers to this quiz were saved at" in refused.json["text"]
    assert answers_of(app) == {0: ["1"]}
    first.autosave({"q0": "1", "q1": "6"})
    # The button says so as well; pressed on that page, it is a decision.
    shown = second.post(SAVE, {"q0": "2"})
    assert shown.status_code == 409
    assert "The answers below are not saved" in shown.text
    assert "data-autosave" not in shown.text
    assert answers_of(app) == {0: ["1"], 1: ["6"]}
    student.read(QUIZ, shown.text)
    assert student.post(SAVE, {**student.hidden(QUIZ), "q0": "2"}).status_code == 302
    assert answers_of(app) == {0: ["2"]}


def test_handing_in_a_page_with_a_conflict_keeps_the_others(app: Flask, student: Browser) -> None:
    first, second = Tab(student), Tab(student)
    first.autosave({"q0": "1"})
    failed = second.post(QUIZ, {"q0": "2", "q1": "six"})
    assert failed.status_code == 422
    student.read(QUIZ, failed.text)
    student.post(QUIZ, {**student.hidden(QUIZ), "q0": "2"})
    assert attempts(app) == 1
    draft = stored(app)
    assert draft is not None
    assert (draft.number, draft.answers) == (2, {0: ["1"]})


def test_third_answers_are_shown_and_replace_nothing(app: Flask, student: Browser) -> None:
    first, second, third = Tab(student), Tab(student), Tab(student)
    second.autosave({"q0": "2"})
    first.post(QUIZ, {"q0": "1"})
    shown = third.post(QUIZ, {"q0": "0"})
    assert shown.status_code == 409
    assert "Attempt 1 was already handed in" in shown.text
    assert answers_of(app) == {0: ["2"]}
    assert shown.text.count(" checked") == 1


def test_a_page_that_began_with_the_draft_may_replace_and_end_it(
    app: Flask, student: Browser
) -> None:
    """On another computer, or after the browser was killed."""
    Tab(student).post(SAVE, {"q0": "1"})
    Tab(student).post(SAVE, {"q0": "2"})
    assert answers_of(app) == {0: ["2"]}
    Tab(student).post(QUIZ, {"q0": "3"})
    assert stored(app) is None


def test_saving_what_is_saved_changes_nothing(app: Flask, student: Browser) -> None:
    first, second = Tab(student), Tab(student)
    first.autosave({"q0": "1"})
    before = stored(app)
    assert second.autosave({"q0": "1"}).status_code == 200
    assert stored(app) == before


# -- Back ----------------------------------------------------------------------------------------


def test_back_and_hand_in_is_the_same_attempt(
    app: Flask, student: Browser, clients: Clients
) -> None:
    form = right_form(questions(app))
    student.post(QUIZ, form)
    # The browser asks for the page again and fills in what it remembers: this is attempt 2.
    back = Tab(student)
    assert back.hidden["number"] == ["2"]
    assert "You have handed in attempt 1" in back.text
    response = back.post(QUIZ, form | {"number": "2"})
    assert response.location == f"{QUIZ}/attempts/1"
    assert "These are the answers of attempt 1" in student.get(response.location).text
    assert attempts(app) == len(clients.of("quiz_submitted")) == 1
    # Other answers are an attempt, and so are the same ones later.
    assert back.post(QUIZ, form | {"number": "2", "q0": "0"}).location.endswith("/attempts/2")
    with database(app).transaction() as connection:
        connection.execute("UPDATE attempts SET submitted_ns = 1")
    assert back.post(QUIZ, form | {"number": "3", "q0": "0"}).location.endswith("/attempts/3")


def test_a_page_with_the_former_form_is_the_result_of_its_attempt(
    app: Flask, student: Browser
) -> None:
    tab = Tab(student)
    tab.post(QUIZ, {"q0": "1"})
    Tab(student).post(QUIZ, {"q0": "2"})
    assert tab.post(QUIZ, {"q0": "1"}).location.endswith("/attempts/1")
    assert attempts(app) == 2


# -- the model -----------------------------------------------------------------------------------


def test_an_unknown_page_and_revision_replace_nothing(app: Flask, student: Browser) -> None:
    student.post(SAVE, {"number": "1", "q0": "1"})
    draft = stored(app)
    assert draft is not None
    assert draft.page == ""
    assert not draft.may_be_replaced_by(Origin(1))


def test_the_attempt_of_a_transaction_that_fails_is_not_stored(app: Flask) -> None:
    db = database(app)
    user = find_user(db, STUDENT)
    assert user is not None

    def fail(_connection: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        work.add_attempt(db, user, "data-chance-quiz", 1, [], {}, 1, also=fail)
    assert attempts(app) == 0


def test_the_migrations_are_appended() -> None:
    names = [name for name, _ in MIGRATIONS]
    assert names.index("drafts of quizzes") < names.index("work compared with the trail")
    assert names[:4] == ["accounts", "courses", "work of students", "login throttle"]
