"""The site's rows about an account: every table is shown, or said not to be about persons."""

from __future__ import annotations

import json

import pytest
from flask import Flask

from tests.webapp.browser import Browser
from tests.webapp.conftest import (
    OTHER_STUDENT,
    STUDENT,
    database,
)
from webapp.classroom.model import personal_rows, work
from webapp.classroom.model.accounts import find_user
from webapp.classroom.model.catalogue import list_quizzes


def test_every_table_is_about_persons_or_said_not_to_be(app: Flask) -> None:
    assert personal_rows.unclassified(database(app).connection()) == []


@pytest.mark.parametrize(
    ("table", "unknown"),
    [
        ("drafts (user_id INTEGER REFERENCES users (id), text TEXT)", []),
        (
            "drafts (user_id INTEGER REFERENCES users (id), text TEXT, PRIMARY KEY (user_id, text))"
            " WITHOUT ROWID",
            [],
        ),
        ("drafts (owner INTEGER REFERENCES users (id), text TEXT)", ["drafts", "drafts.owner"]),
        ("drafts (login TEXT, text TEXT)", ["drafts"]),
        (
            "drafts (user_id INTEGER REFERENCES users (id), by INTEGER REFERENCES users (id))",
            ["drafts.by"],
        ),
    ],
)
def test_a_new_table_is_shown_or_found(
    app: Flask, student: Browser, table: str, unknown: list[str]
) -> None:
    """So that no table with data of persons can be forgotten."""
    with database(app).transaction() as connection:
        connection.execute(f"CREATE TABLE {table}")
        if "user_id" in table:
            of = (STUDENT, STUDENT), (OTHER_STUDENT, OTHER_STUDENT)
            connection.executemany("INSERT INTO drafts VALUES (?, ?)", of)
    assert personal_rows.unclassified(database(app).connection()) == unknown
    if unknown == []:
        drafts = json.loads(student.get("/my-data/download.json").text)["site"]["drafts"]
        assert drafts == [{"user_id": STUDENT, "text": str(STUDENT)}]
        assert "1 row of “drafts”" in student.get("/my-data/").text


def test_rows_are_read_in_parts(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    db = database(app)
    user = find_user(db, STUDENT)
    assert user is not None
    monkeypatch.setattr(personal_rows, "PAGE_ROWS", 2)
    quiz = next(q for q in list_quizzes(db, "data") if q.id == "data-chance-quiz")
    for number in range(1, 8):
        assert work.add_attempt(db, user, quiz.id, number, quiz.questions, {}, number)
    with db.transaction() as connection:
        connection.execute(
            "CREATE TABLE two (a TEXT, user_id INTEGER, b INTEGER, PRIMARY KEY (a, user_id, b))"
            " WITHOUT ROWID"
        )
        keys = [(a, b) for a in "xyz" for b in range(3)]
        connection.executemany("INSERT INTO two VALUES (?, 11, ?), (?1, 12, ?2)", keys)
    two = [
        (row["a"], row["b"]) for table, row in personal_rows.rows_about(db, user) if table == "two"
    ]
    assert two == keys
    found = [
        row["number"] for table, row in personal_rows.rows_about(db, user) if table == "attempts"
    ]
    assert found == list(range(1, 8))
