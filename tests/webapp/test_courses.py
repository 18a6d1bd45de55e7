"""The course pages: lessons, tasks, and quizzes with their attempts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from tests.webapp.browser import Browser
from tests.webapp.conftest import STUDENT, database
from tests.webapp.flask_apps import Clients
from webapp.classroom.model.catalogue import list_quizzes
from webapp.classroom.model.content import BadContent, read_courses
from webapp.classroom.model.scoring import Kind, Question

QUIZ = "/courses/data/quizzes/data-chance-quiz"


def questions(app: Flask) -> tuple[Question, ...]:
    return next(
        q for q in list_quizzes(database(app), "data") if q.id == "data-chance-quiz"
    ).questions


def right_form(asked: tuple[Question, ...], number: int = 1) -> dict[str, str | list[str]]:
    form: dict[str, str | list[str]] = {"number": str(number)}
    for at, question in enumerate(asked):
        if question.kind is Kind.NUMBER:
            form[f"q{at}"] = str(question.value)
        else:
            form[f"q{at}"] = [str(option) for option in question.correct]
    return form


def test_every_page_of_every_course_opens(student: Browser) -> None:
    for course in read_courses():
        base = f"/courses/{course.slug}"
        paths = [f"{base}/lessons/{lesson.slug}" for lesson in course.lessons]
        paths += [f"{base}/tasks/{task.id}" for task in course.tasks]
        paths += [f"{base}/quizzes/{quiz.id}" for quiz in course.quizzes]
        assert {student.get(path).status_code for path in [base, *paths]} == {200}


def test_completing_a_task_is_shown_at_once_and_logged_once(
    student: Browser, clients: Clients
) -> None:
    path = "/courses/data/tasks/data-dice"
    assert "I have done this task" in student.get(path).text
    done = student.post(f"{path}/complete", follow_redirects=True)
    assert "Task completed: A hundred dice" in done.text
    assert "You completed this task" in student.get(path).text
    (event,) = clients.of("task_completed")
    assert event.user == str(STUDENT)
    assert event.props["task"] == "data-dice"
    assert event.props["course"] == "data"


def test_completing_a_task_twice_is_logged_once(student: Browser, clients: Clients) -> None:
    for _ in range(2):
        response = student.post("/courses/data/tasks/data-dice/complete", follow_redirects=True)
    assert "was already done" in response.text
    assert len(clients.of("task_completed")) == 1


def test_a_task_belongs_to_its_course(student: Browser) -> None:
    path = "/courses/python/tasks/data-dice/complete"
    assert student.post(path, token=student.token).status_code == 404


def test_progress_counts_completed_tasks(student: Browser) -> None:
    student.post("/courses/data/tasks/data-dice/complete")
    assert "1 of 5 tasks done" in student.get("/courses/").text


def test_correct_answers_give_full_marks_and_an_event(
    app: Flask, student: Browser, clients: Clients
) -> None:
    response = student.post(QUIZ, right_form(questions(app)), follow_redirects=True)
    assert "Your result: 100" in response.text
    (event,) = clients.of("quiz_submitted")
    assert event.props | {"request_id": ""} == {
        "quiz": "data-chance-quiz",
        "course": "data",
        "score": 1.0,
        "attempt": 1,
        "request_id": "",
    }


def test_feedback_explains_each_question(app: Flask, student: Browser) -> None:
    asked = questions(app)
    form = right_form(asked)
    form["q0"] = "0"  # wrong
    form["q1"] = ""  # not answered
    form["q2"] = form["q2"][:1]  # half of what is right
    text = student.post(QUIZ, form, follow_redirects=True).text
    verdicts = [
        re.sub(r"<[^>]+>|\s+", " ", found).strip()
        for found in re.findall(r'class="verdict[^>]*>(.*?)</p>', text, re.S)
    ]
    assert [verdict.split(" ", 1)[1].strip() for verdict in verdicts] == [
        "Wrong",
        "Not answered",
        "Partly right: 50 % of the points",
        "Right",
    ]
    assert text.count('class="explanation"') == len(asked)


def test_an_invalid_number_is_shown_beside_the_question_and_answers_are_kept(
    app: Flask, student: Browser, clients: Clients
) -> None:
    form = right_form(questions(app)) | {"q1": "about <six>"}
    response = student.post(QUIZ, form)
    assert response.status_code == 422
    assert "Your answers were not handed in" in response.text
    assert 'value="about &lt;six&gt;"' in response.text
    assert response.text.count(" checked") == 3
    assert not clients.of("quiz_submitted")


@pytest.mark.parametrize("q0", ["7", "x", "-1"])
def test_an_option_that_was_not_offered_is_refused(
    app: Flask, student: Browser, clients: Clients, q0: str
) -> None:
    assert student.post(QUIZ, right_form(questions(app)) | {"q0": q0}).status_code == 422
    assert not clients.of("quiz_submitted")


def test_a_double_click_submits_one_attempt(app: Flask, student: Browser, clients: Clients) -> None:
    first = student.post(QUIZ, right_form(questions(app)))
    second = student.post(QUIZ, {"number": "1"})
    assert first.location == second.location
    assert len(clients.of("quiz_submitted")) == 1
    assert "100" in student.get(second.location).text


@pytest.mark.parametrize("number", ["", "0", "2", "x", "-1", "1e3", "9" * 30, "²"])
def test_an_attempt_out_of_turn_is_refused(student: Browser, number: str) -> None:
    assert student.post(QUIZ, {"number": number}).status_code == 400


def test_a_student_s_attempts_are_listed(app: Flask, student: Browser) -> None:
    student.post(QUIZ, {"number": "1"})
    student.post(QUIZ, right_form(questions(app), 2))
    history = student.get("/results").text
    newest_first = re.findall(r"<strong>(\d+)", history)
    assert newest_first == ["100", "0"]
    assert history.count("/attempts/") == 2
    page = student.get(QUIZ).text
    assert "attempt 3" in page
    assert "You have handed in attempt 2" in page
    assert page.count("/attempts/") == 3
    assert "your best:" in student.get("/courses/data").text


def test_old_feedback_is_unchanged_when_the_quiz_changes(app: Flask, student: Browser) -> None:
    student.post(QUIZ, right_form(questions(app)))
    with database(app).transaction() as connection:
        connection.execute("UPDATE quizzes SET questions = '[]' WHERE id = 'data-chance-quiz'")
    text = student.get(f"{QUIZ}/attempts/1").text
    assert "A fair coin has shown heads" in text


@pytest.mark.parametrize("number", ["0", "2", "9" * 30])
def test_a_result_that_does_not_exist_is_a_404(student: Browser, number: str) -> None:
    assert student.get(f"{QUIZ}/attempts/{number}").status_code == 404


def test_a_teacher_sees_a_preview_of_a_quiz(teacher: Browser) -> None:
    text = teacher.get(QUIZ).text
    assert "Preview" in text
    assert "Hand in" not in text


def test_storing_the_courses_again_updates_them_and_keeps_the_work(
    app: Flask, student: Browser
) -> None:
    student.post("/courses/data/tasks/data-dice/complete")
    result = app.test_cli_runner().invoke(args=["seed"])
    assert result.exit_code == 0, result.output
    assert "You completed this task" in student.get("/courses/data/tasks/data-dice").text


def test_a_broken_course_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "course.toml").write_text('title = "No position"\n')
    with pytest.raises(BadContent, match=r"broken/course\.toml"):
        read_courses(tmp_path)
