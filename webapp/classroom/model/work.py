"""Students' work: completed tasks and attempts at quizzes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from webapp.classroom.model.accounts import User
from webapp.classroom.model.scoring import Answers, Question, dump_questions, load_questions, score
from webapp.classroom.store.db import Connection, Database


@dataclass(frozen=True)
class Attempt:
    """One attempt at a quiz, with the questions as they were at that time."""

    id: int
    user_id: int
    quiz: str
    number: int
    questions: tuple[Question, ...]
    answers: dict[int, list[str]]
    score: float
    submitted_ns: int


@dataclass(frozen=True)
class AttemptLine:
    """An attempt in a list, without questions and answers."""

    id: int
    quiz: str
    quiz_title: str
    course: str
    course_title: str
    number: int
    score: float
    submitted_ns: int


def complete_task(db: Database, user: User, task: str, now_ns: int) -> bool:
    """Marks a task as done; returns False if it already was."""
    with db.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO completions VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (user.id, task, now_ns),
        )
        return cursor.rowcount == 1


def completions_of(db: Database, user: User) -> dict[str, int]:
    """Returns the user's completed tasks with their times of completion."""
    rows = db.connection().execute(
        "SELECT task, completed_ns FROM completions WHERE user_id = ?", (user.id,)
    )
    return {row[0]: row[1] for row in rows}


def attempts_made(db: Database, user: User, quiz: str) -> int:
    """Returns the number of the user's latest attempt, 0 before the first."""
    (number,) = (
        db.connection()
        .execute(
            "SELECT coalesce(max(number), 0) FROM attempts WHERE user_id = ? AND quiz = ?",
            (user.id, quiz),
        )
        .fetchone()
    )
    return int(number)


def add_attempt(
    db: Database,
    user: User,
    quiz: str,
    number: int,
    questions: Sequence[Question],
    answers: Answers,
    now_ns: int,
    also: Callable[[Connection], None] = lambda _connection: None,
) -> Attempt | None:
    """Stores the attempt with this number; returns None unless it is the next number.

    The form contains the number, so that a double click or a reload stores only one attempt. `also`
    is called in the same transaction.
    """
    points = score(questions, answers)
    with db.transaction() as connection:
        if number != attempts_made(db, user, quiz) + 1:
            return None
        attempt_id = insert_attempt(
            connection, user.id, quiz, number, dump_questions(questions), answers, points, now_ns
        )
        also(connection)
    kept = {at: list(answer) for at, answer in answers.items()}
    return Attempt(attempt_id, user.id, quiz, number, tuple(questions), kept, points, now_ns)


def insert_attempt(
    connection: Connection,
    user_id: int,
    quiz: str,
    number: int,
    questions: str,
    answers: Answers,
    points: float,
    submitted_ns: int,
) -> int:
    """Inserts an attempt in the caller's transaction; returns its id."""
    cursor = connection.execute(
        "INSERT INTO attempts (user_id, quiz, number, questions, answers, score, submitted_ns)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            user_id,
            quiz,
            number,
            questions,
            json.dumps({str(at): list(answer) for at, answer in answers.items()}),
            points,
            submitted_ns,
        ),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def find_attempt(db: Database, user: User, quiz: str, number: int) -> Attempt | None:
    """Returns one of the user's own attempts, or None."""
    row = (
        db.connection()
        .execute(
            "SELECT id, user_id, quiz, number, questions, answers, score, submitted_ns"
            " FROM attempts WHERE user_id = ? AND quiz = ? AND number = ?",
            (user.id, quiz, number),
        )
        .fetchone()
    )
    if row is None:
        return None
    answers = {int(at): answer for at, answer in json.loads(row[5]).items()}
    return Attempt(row[0], row[1], row[2], row[3], load_questions(row[4]), answers, row[6], row[7])


def attempts_of(db: Database, user: User, quiz: str | None = None) -> list[AttemptLine]:
    """Returns the user's attempts, or those at one quiz, newest first."""
    rows = db.connection().execute(
        "SELECT a.id, a.quiz, q.title, c.slug, c.title, a.number, a.score, a.submitted_ns"
        " FROM attempts a JOIN quizzes q ON q.id = a.quiz JOIN courses c ON c.slug = q.course"
        " WHERE a.user_id = ?1 AND (?2 IS NULL OR a.quiz = ?2)"
        " ORDER BY a.submitted_ns DESC, a.id DESC",
        (user.id, quiz),
    )
    return [AttemptLine(*row) for row in rows]


def best_scores(db: Database, user: User) -> dict[str, float]:
    """Returns the user's best score in each quiz attempted."""
    rows = db.connection().execute(
        "SELECT quiz, max(score) FROM attempts WHERE user_id = ? GROUP BY quiz", (user.id,)
    )
    return {row[0]: row[1] for row in rows}
