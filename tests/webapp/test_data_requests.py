"""Requests for correction or erasure: asked once, answered by an auditor, erased as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from werkzeug.test import TestResponse

from tests.webapp.browser import ORIGIN, Browser
from tests.webapp.conftest import AUDITOR, OTHER_STUDENT, STUDENT, TEACHER, database
from tests.webapp.flask_apps import Clients
from tests.webapp.test_my_data import do_work, site_rows
from webapp.classroom.model import data_requests
from webapp.classroom.model.accounts import Role, add_user, find_user
from webapp.classroom.model.data_requests import TEXT_CHARS_MAX

PAGE, ASK, AUDIT = "/my-data/", "/my-data/requests", "/audit/requests/"
ERASURE = {"kind": "erasure", "text": "Please <b>all</b> of it.\r\nThank you."}


def stored(app: Flask) -> list[dict[str, Any]]:
    rows = database(app).connection().execute("SELECT * FROM data_requests ORDER BY id").fetchall()
    return [dict(zip(row.keys(), tuple(row), strict=True)) for row in rows]


def ask(browser: Browser, form: dict[str, str]) -> TestResponse:
    browser.get(PAGE)
    return browser.post(ASK, form)


def test_a_request_is_answered_by_an_auditor_and_read_by_who_has_asked(
    app: Flask, browser: Browser, clients: Clients
) -> None:
    browser.log_in("student")
    assert ask(browser, ERASURE).headers["Location"] == f"{PAGE}#requests"
    text = browser.get(PAGE).text
    assert "Please &lt;b&gt;all&lt;/b&gt; of it.\nThank you." in text
    assert "Waiting for an auditor." in text
    (row,) = stored(app)
    (made,) = clients.of("data_request_made")
    assert (made.user, made.props["kind"], made.props["request"]) == (
        str(STUDENT), "erasure", row["id"],
    )  # fmt: skip
    browser.post("/logout")

    browser.log_in("auditor")
    text = browser.get(AUDIT).text
    assert "Erasure: Noor Haddad" in text and "Open: 1" in text
    assert f"logd forget {STUDENT}\n" in text.replace("</code>", "\n")
    assert f"classroom forget-user {STUDENT}\n" in text
    answer = {"outcome": "refused", "answer": "The school must keep it until July."}
    assert browser.post(f"{AUDIT}{row['id']}", answer).status_code == 302
    (answered,) = clients.of("data_request_answered")
    assert answered.user == str(AUDITOR)
    told = {name: answered.props[name] for name in ("request", "kind", "outcome", "member")}
    assert told == {
        "request": row["id"], "kind": "erasure", "outcome": "refused", "member": str(STUDENT),
    }  # fmt: skip
    text = browser.get(AUDIT).text
    assert "Open: 0" in text and "Refused by Ruth Keller" in text
    browser.post("/logout")

    browser.log_in("student")
    text = browser.get(PAGE).text
    assert "<strong>Refused</strong> by Ruth Keller" in text
    assert "The school must keep it until July." in text
    browser.post("/logout")
    browser.log_in("emil")
    assert "July" not in browser.get(PAGE).text


def test_a_second_click_asks_once_and_another_kind_is_another_request(
    app: Flask, student: Browser, clients: Clients
) -> None:
    for _ in range(2):
        assert ask(student, ERASURE).status_code == 302
    assert "You have asked for this already" in student.get(PAGE).text
    assert len(stored(app)) == len(clients.of("data_request_made")) == 1
    ask(student, {"kind": "correction", "text": "My name"})
    assert [row["kind"] for row in stored(app)] == ["erasure", "correction"]


def test_two_auditors_answer_once(app: Flask, browser: Browser, clients: Clients) -> None:
    do_work(app, STUDENT)
    (row,) = stored(app)
    browser.log_in("auditor")
    for outcome in ("done", "refused"):
        browser.post(
            f"{AUDIT}{row['id']}", {"outcome": outcome, "answer": outcome}, token=browser.token
        )
    (row,) = stored(app)
    assert (row["outcome"], row["answer"], row["answered_by"]) == ("done", "done", AUDITOR)
    assert len(clients.of("data_request_answered")) == 1
    assert "The first answer stands" in browser.get(AUDIT).text
    for number in (row["id"] + 1, 2**64):
        gone = browser.post(
            f"{AUDIT}{number}", {"outcome": "done", "answer": "x"}, token=browser.token
        )
        assert gone.status_code == 404


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({}, "Choose what you ask for."),
        ({"kind": "gossip", "text": "x"}, "Choose what you ask for."),
        ({"kind": "erasure", "text": " \r\n "}, "Write in a few words"),
        ({"kind": "erasure", "text": "x" * (TEXT_CHARS_MAX + 1)}, "it has 2,001."),
    ],
)
def test_a_request_that_cannot_be_sent_says_why_and_keeps_the_text(
    app: Flask, student: Browser, clients: Clients, form: dict[str, str], why: str
) -> None:
    answer = student.post(ASK, form, token=student.token)
    assert answer.status_code == 422
    assert why in answer.text and form.get("text", "").strip() in answer.text
    assert stored(app) == [] and not clients.of("data_request_made")
    longest = {"kind": "erasure", "text": "\r\n".join("x" * (TEXT_CHARS_MAX // 2)) + "x"}
    assert ask(student, longest).status_code == 302, "a line end counts as one character"


def test_the_page_of_requests_is_bounded(
    app: Flask, auditor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_requests, "SHOWN_MAX", 2)
    for user_id in (STUDENT, OTHER_STUDENT, TEACHER):
        do_work(app, user_id)
    text = auditor.get(AUDIT).text
    assert "Open: 3" in text and "The oldest 2 are shown" in text
    assert text.count("<article") == 2 and "Ada Brandt" not in text


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"answer": "x"}, "Choose whether"),
        ({"outcome": "later", "answer": "x"}, "Choose whether"),
        ({"outcome": "done", "answer": " "}, "Write what was done"),
        ({"outcome": "done", "answer": "x" * (TEXT_CHARS_MAX + 1)}, "it has 2,001."),
    ],
)
def test_an_answer_that_cannot_be_saved_says_why_and_keeps_the_text(
    app: Flask, auditor: Browser, form: dict[str, str], why: str
) -> None:
    do_work(app, STUDENT)
    (row,) = stored(app)
    answer = auditor.post(f"{AUDIT}{row['id']}", form, token=auditor.token)
    assert answer.status_code == 422
    assert why in answer.text and f">{form['answer'].strip()}</textarea>" in answer.text
    assert stored(app) == [row]


@pytest.mark.parametrize("login", ["student", "teacher"])
def test_only_auditors_see_and_answer_requests(app: Flask, browser: Browser, login: str) -> None:
    do_work(app, OTHER_STUDENT)
    (row,) = stored(app)
    browser.log_in(login)
    assert browser.get(AUDIT).status_code == 403
    form = {"outcome": "done", "answer": "x"}
    forged = browser.post(f"{AUDIT}{row['id']}", form, token=browser.token)
    assert forged.status_code == 403
    visitor = Browser(app)
    visitor.get("/login")
    assert visitor.post(ASK, ERASURE, token=visitor.token).status_code == 302
    assert stored(app) == [row]


def test_a_form_without_the_token_of_the_session_changes_nothing(
    app: Flask, student: Browser
) -> None:
    assert student.client.post(ASK, data=ERASURE, base_url=ORIGIN).status_code == 400
    assert stored(app) == []


# `flask --app webapp forget-user`


def forget(app: Flask, *arguments: str, typed: str = "") -> Result:
    return app.test_cli_runner().invoke(args=["forget-user", *arguments], input=typed)


def test_an_account_is_erased_with_all_its_rows_and_no_other_is(
    app: Flask, browser: Browser
) -> None:
    for user_id in (STUDENT, OTHER_STUDENT, TEACHER):
        do_work(app, user_id)
    db = database(app)
    auditor, others = find_user(db, AUDITOR), [OTHER_STUDENT, TEACHER, AUDITOR]
    assert auditor is not None
    kept = {user_id: site_rows(app, user_id) for user_id in others}
    browser.log_in("student")
    with db.transaction() as connection:  # of other modules, which refer to one another
        connection.execute(
            "CREATE TABLE a_note (user_id INTEGER, attempt INTEGER REFERENCES attempts (id))"
        )
        connection.execute("INSERT INTO a_note SELECT user_id, id FROM attempts")
        connection.execute("CREATE TABLE z_note (id INTEGER PRIMARY KEY, user_id INTEGER)")
        connection.execute("INSERT INTO z_note SELECT id, user_id FROM attempts")
        connection.execute("CREATE TABLE m_note (user_id INTEGER, z REFERENCES z_note (id))")
        connection.execute("INSERT INTO m_note SELECT user_id, id FROM z_note")
    assert forget(app, str(STUDENT), typed="n\n").exit_code == 1
    assert all(site_rows(app, STUDENT).values())
    done = forget(app, str(STUDENT), typed="y\n")
    assert done.exit_code == 0, done.output
    assert (
        "student student (Noor Haddad), id 11. Rows: 1 of users, 1 of a_note, 1 of attempts"
        in done.output
    )
    assert f"Erased 7 rows. Now run: logd forget {STUDENT}" in done.output
    assert not any(site_rows(app, STUDENT).values())
    assert {user_id: site_rows(app, user_id) for user_id in others} == kept
    assert browser.get(PAGE).status_code == 302, "the session ends"
    assert "No account has the id 11" in forget(app, str(STUDENT), "--yes").output


def test_an_auditor_who_is_erased_leaves_the_answers(app: Flask) -> None:
    do_work(app, STUDENT)
    db = database(app)
    auditor = find_user(db, AUDITOR)
    assert auditor is not None
    (row,) = stored(app)
    done = data_requests.Outcome.DONE
    assert data_requests.answer_request(db, row["id"], auditor, done, "yes", 8)
    assert forget(app, str(AUDITOR), "--yes").exit_code == 0
    (row,) = stored(app)
    assert (row["answer"], row["answered_by"]) == ("yes", None)


def test_no_other_account_gets_the_number_of_an_erased_one(app: Flask) -> None:
    """Also that of the latest account: the log and backups may still hold entries under it."""

    def add(login: str) -> int:
        with database(app).transaction() as connection:
            return add_user(connection, login=login, name="N", role=Role.STUDENT, password_hash="x")

    first = add("first")
    assert first == AUDITOR + 1
    assert forget(app, str(first), "--yes").exit_code == 0
    assert add("second") == first + 1
    for user_id in (STUDENT, OTHER_STUDENT, TEACHER, AUDITOR, first + 1):
        assert forget(app, str(user_id), "--yes").exit_code == 0
    assert add("third") == first + 2
