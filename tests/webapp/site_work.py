"""Work of students in the site's database, for tests of its comparison with the trail."""

from __future__ import annotations

from flask import Flask

from tests.webapp.conftest import STUDENT, database
from webapp.classroom.model.catalogue import list_quizzes
from webapp.classroom.model.scoring import dump_questions
from webapp.classroom.model.work import insert_attempt

QUIZ, TASK = "data-chance-quiz", "data-dice"

HOUR_NS = 3600 * 10**9


DAY_NS = 24 * HOUR_NS


def add_attempt(app: Flask, number: int, at_ns: int, user_id: int = STUDENT) -> None:
    quiz = next(q for q in list_quizzes(database(app), "data") if q.id == QUIZ)
    asked = dump_questions(quiz.questions)
    with database(app).transaction() as connection:
        insert_attempt(connection, user_id, QUIZ, number, asked, {}, 0.25 * number, at_ns)


def add_completion(app: Flask, at_ns: int, user_id: int = STUDENT, task: str = TASK) -> None:
    with database(app).transaction() as connection:
        connection.execute("INSERT INTO completions VALUES (?, ?, ?)", (user_id, task, at_ns))


def states(app: Flask) -> dict[str, int]:
    rows = (
        database(app)
        .connection()
        .execute("SELECT state, count(*) FROM trail_entries GROUP BY state")
    )
    return {row[0]: row[1] for row in rows}
