"""The roles that may open each page."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.webapp.browser import Browser
from tests.webapp.conftest import OTHER_STUDENT, TEACHER, database
from tests.webapp.flask_apps import Clients
from webapp.classroom.model import work
from webapp.classroom.model.accounts import find_login
from webapp.classroom.model.catalogue import list_quizzes

# A file cannot say that logd is not there, which it is not in these tests.
OPEN, CLOSED, LOGIN, AWAY = 200, 403, 302, 503

RULES = {
    #                                            visitor student teacher auditor
    "/courses/": (LOGIN, OPEN, OPEN, OPEN),
    "/courses/data": (LOGIN, OPEN, OPEN, OPEN),
    "/courses/data/quizzes/data-chance-quiz": (LOGIN, OPEN, OPEN, OPEN),
    "/results": (LOGIN, OPEN, CLOSED, CLOSED),
    "/teacher/": (LOGIN, CLOSED, OPEN, CLOSED),
    "/teacher/courses/data": (LOGIN, CLOSED, OPEN, CLOSED),
    "/teacher/students/11": (LOGIN, CLOSED, OPEN, CLOSED),
    "/audit/": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/events": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/events/counts": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/events/searches": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/events/9": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/events/export/csv": (LOGIN, CLOSED, CLOSED, AWAY),
    "/audit/losses": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/quarantine": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/readings": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/exports": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/live": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/live/stream?after=0": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/requests/": (LOGIN, CLOSED, CLOSED, OPEN),
    "/my-data/": (LOGIN, OPEN, OPEN, OPEN),
    "/my-data/entries": (LOGIN, OPEN, OPEN, OPEN),
    "/my-data/mentions": (LOGIN, OPEN, OPEN, OPEN),
    "/my-data/readings": (LOGIN, OPEN, OPEN, OPEN),
    "/my-data/download.json": (LOGIN, OPEN, OPEN, OPEN),
    "/my-data/download.csv": (LOGIN, OPEN, OPEN, OPEN),
    "/audit/evidence": (LOGIN, CLOSED, CLOSED, OPEN),
    "/audit/evidence?user=11": (LOGIN, CLOSED, CLOSED, OPEN),
    # Without logd it is 503 for those who may have it.
    "/audit/evidence/download?user=11": (LOGIN, CLOSED, CLOSED, 503),
}
READERS = (None, "student", "teacher", "auditor")


@pytest.mark.parametrize("path", RULES)
@pytest.mark.parametrize("reader", READERS)
def test_a_page_opens_for_its_roles_only(browser: Browser, path: str, reader: str | None) -> None:
    if reader:
        browser.log_in(reader)
    assert browser.get(path).status_code == RULES[path][READERS.index(reader)]


@pytest.mark.parametrize("reader", ["teacher", "auditor"])
@pytest.mark.parametrize(
    "path", ["/courses/data/tasks/data-dice/complete", "/courses/data/quizzes/data-chance-quiz"]
)
def test_only_students_hand_in_work(
    browser: Browser, clients: Clients, reader: str, path: str
) -> None:
    browser.log_in(reader)
    forged = browser.post(path, {"number": "1"}, token=browser.token)
    assert forged.status_code == CLOSED
    assert not clients.of("task_completed") + clients.of("quiz_submitted")


def test_a_student_cannot_read_the_results_of_another(app: Flask, student: Browser) -> None:
    """The URL of a result does not name its student."""
    db = database(app)
    emil = find_login(db, "emil")
    assert emil is not None
    quiz = next(q for q in list_quizzes(db, "data") if q.id == "data-chance-quiz")
    assert work.add_attempt(db, emil, quiz.id, 1, quiz.questions, {}, 1) is not None
    path = "/courses/data/quizzes/data-chance-quiz/attempts/1"
    assert student.get(path).status_code == 404
    assert "Chance" not in student.get("/results").text


def test_only_students_have_a_timeline(teacher: Browser) -> None:
    assert teacher.get(f"/teacher/students/{OTHER_STUDENT}").status_code == 200
    for other in (TEACHER, 999, 2**70):
        assert teacher.get(f"/teacher/students/{other}").status_code == 404
