"""My data: an account sees all that is stored about it, and nobody else's."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from flask import Flask

from logd.batch import Batch
from logd.reports.registry import REPORTS
from logd.storage.rollups import DAY_NS
from logd_wire.wire import Event
from tests.support.instance import Instance, check_sums
from tests.webapp.browser import Browser
from tests.webapp.conftest import (
    AUDITOR,
    OTHER_STUDENT,
    STUDENT,
    TEACHER,
    MakeApp,
    database,
    fill,
)
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.model import data_requests, work
from webapp.classroom.model.accounts import Role, User, find_user
from webapp.classroom.model.catalogue import list_quizzes
from webapp.classroom.model.my_data import Reading
from webapp.classroom.present import my_data_file, my_data_texts, reading_texts
from webapp.classroom.views import my_data

LISTS = ("/my-data/", "/my-data/entries", "/my-data/mentions", "/my-data/readings")
FILES = ("/my-data/download.json", "/my-data/download.csv")
NS = 1_000_000_000
NOW_NS = time.time_ns()


def do_work(app: Flask, user_id: int) -> None:
    """A finished task, an attempt with answers and a request of one account."""
    db = database(app)
    user = find_user(db, user_id)
    assert user is not None
    quiz = next(q for q in list_quizzes(db, "data") if q.id == "data-chance-quiz")
    assert work.complete_task(db, user, "data-dice", 5)
    with db.transaction() as connection:
        answers = {0: [f"by {user_id}"]}
        work.insert_attempt(connection, user_id, quiz.id, 1, "[]", answers, 0.5, 6)
    kind = data_requests.Kind.CORRECTION
    assert data_requests.make_request(db, user, kind, f"of {user_id}", 7)


def site_rows(app: Flask, user_id: int) -> dict[str, list[dict[str, Any]]]:
    """All rows about an account, by a search of every column of every table for its id."""
    connection = database(app).connection()
    columns = {"users": "id", "completions": "user_id", "attempts": "user_id"}
    columns["data_requests"] = "user_id"
    return {
        table: [
            dict(zip(row.keys(), tuple(row), strict=True))
            for row in connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (user_id,))
        ]
        for table, column in columns.items()
    }


# With a real logd.


def school_events() -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    me, other = str(STUDENT), str(OTHER_STUDENT)
    for user in (me, other, f"{me}.0"):
        yield "page_view", user, {"route": "/"}
        yield "task_completed", user, {"task": f"of {user}"}
        yield "quiz_submitted", user, {"quiz": "q", "score": 0.5}
    for naming in (
        {"user": me}, {"user": STUDENT}, {"users": [other, me]}, {"users": {me: 0.5, other: 1}},
        {"deep": [{"student_id": float(STUDENT)}]}, {"member": {"id": me, "room": 4}},
    ):  # fmt: skip
        yield "group_graded", str(TEACHER), naming
        yield "group_graded", None, naming
    yield "group_graded", str(TEACHER), {"user": other, "task": me}
    read = {"report": "timeline", "everyone": False}
    for reader in (str(TEACHER), me, None):
        yield "report_read", reader, {**read, "params": {"user": me}}
        yield "report_read", reader, {**read, "params": {"user": other}}
    yield "report_read", str(AUDITOR), {"report": "quarantine", "params": {}, "everyone": True}


EVENTS = list(school_events())


def store_events(instance: Instance) -> None:
    store = instance.open_store()
    producer, batch = store.producer(1000, 7), Batch(10**6, 10**9)
    for kind, user, props in EVENTS:
        producer.taken += 1
        event = Event(kind, NOW_NS - DAY_NS + producer.taken, user, msgpack.packb(props))
        batch.add(producer, producer.taken, event, 1)
    producer.ended = True
    store.commit(batch, NOW_NS)
    store.close()


@pytest.fixture
def school(instance: Instance, make_app: MakeApp) -> Iterator[tuple[Instance, Flask]]:
    """The site, with a logd that has everything that can be stored about a student."""
    store_events(instance)
    instance.start()
    app = make_app(
        ACTIVITY_QUERY_SOCKET=str(instance.config.query_socket), ACTIVITY_QUERY_TIMEOUT_S=20.0
    )
    fill(app)
    for user_id in (STUDENT, OTHER_STUDENT, TEACHER):
        do_work(app, user_id)
    yield instance, app
    check_sums(instance.status(), attempted=len(EVENTS), accepted=len(EVENTS))
    instance.stop()
    instance.cli("verify")


def test_the_download_has_all_that_logd_person_and_the_site_hold(
    school: tuple[Instance, Flask],
) -> None:
    instance, app = school
    browser = Browser(app)
    browser.log_in("student")
    whole = json.loads(browser.get("/my-data/download.json").text)
    lines = instance.cli("person", str(STUDENT), "--format", "jsonl").splitlines()
    items = [json.loads(line) for line in lines]
    # Less what has been recorded of the download itself.
    last = len(EVENTS)
    told = {
        kind: {item["id"] for item in items if item["kind"] == kind and item["id"] <= last}
        for kind in ("event", "mention", "reading")
    }
    trail = whole["trail"]
    assert {row["id"] for row in trail["person_events"] if row["id"] <= last} == told["event"]
    assert {row["id"] for row in trail["person_mentions"]} == told["mention"]
    assert len(told["event"]) == 6 + 2 and len(told["mention"]) == 12 + 2
    by_others = [row for row in trail["person_readings"] if not row["own"]]
    assert {row["id"] for row in by_others if not row["named"]} == told["reading"]
    assert [row["reader"] for row in by_others] == [str(AUDITOR), None, str(TEACHER)]
    own = [row["props"]["report"] for row in trail["person_readings"] if row["own"]]
    assert {"timeline", "person_events", "person_mentions"} <= set(own)
    subjects = {
        (item["type"], item["subject"], item["events"])
        for item in items
        if item["kind"] == "subject"
    }
    rollups = [row for row in trail["person_rollups"] if row["kind"] == "subject"]
    assert {(row["type"], row["subject"], row["events"]) for row in rollups} == subjects
    days = {row["type"] for row in trail["person_rollups"] if row["kind"] == "day"}
    assert days == {item["type"] for item in items if item["kind"] == "day"}
    assert (whole["complete"], whole["problem"]) == (True, None)
    # The site's rows: all of them, and of nobody else.
    expected = site_rows(app, STUDENT)
    expected["users"][0]["password_hash"] = "(stored, not shown)"
    for name, rows in expected.items():
        assert [{k: row[k] for k in rows[0]} for row in whole["site"][name]] == rows
    assert whole["site"].keys() == expected.keys()
    text = json.dumps(whole)
    for stranger in (f"of {OTHER_STUDENT}", f"by {OTHER_STUDENT}", "emil", "Emil"):
        assert stranger not in text
    assert f"of {STUDENT}.0" in text, "of every spelling of the id"
    # The table for spreadsheets has the same rows.
    table = list(csv.reader(io.StringIO(browser.get("/my-data/download.csv").text[1:])))
    ids = {int(row[2]) for row in table if row[1] == "person_mentions"}
    # What `logd person` itself has recorded may be there by now.
    assert {one for one in ids if one <= last} == told["mention"]
    assert {row[1] for row in table if row[0] == "site"} == {
        "users", "completions", "attempts", "data_requests: correction"
    }  # fmt: skip
    assert table[-1] == ["file", "end", "", "", "", "", my_data_file.COMPLETE]


def test_every_reading_by_others_is_on_the_page_with_name_and_role(
    school: tuple[Instance, Flask],
) -> None:
    """Also one that is made now, of a report that names the student or may be about anyone."""
    _, app = school
    browser = Browser(app)
    browser.log_in("teacher")
    browser.get(f"/teacher/students/{STUDENT}")
    browser.get("/teacher/courses/data")
    browser.post("/logout")
    browser.log_in("student")
    for page in ("/my-data/", "/my-data/readings"):
        text = " ".join(browser.get(page).text.split())
        assert "Ada Brandt (teacher) looked at your activity, entry by entry" in text
        assert "Ada Brandt (teacher) looked at who has finished which tasks and quizzes" in text
        assert "Ruth Keller (auditor) looked at data that the log refused" in text
        assert "administrator, or a program on the server looked at" in text
        assert text.count("This does not name you, but may have included you.") == 1
        assert "You looked at" not in text
    text = browser.get("/my-data/readings?by=self").text
    assert "You looked at" in text and "Ada Brandt" not in text
    browser.post("/logout")
    browser.log_in("emil")
    assert "(teacher) looked at who has finished" in " ".join(browser.get("/my-data/").text.split())


def test_nobody_sees_the_data_of_another(school: tuple[Instance, Flask]) -> None:
    """No address names an account, whatever is added to it."""
    instance, app = school
    secret = f"of {STUDENT}"
    for login, user_id in (("emil", OTHER_STUDENT), ("teacher", TEACHER), ("auditor", AUDITOR)):
        browser = Browser(app)
        browser.log_in(login)
        for path in (*LISTS, *FILES):
            for query in ("", f"?user={STUDENT}&user_id={STUDENT}&asked_by={STUDENT}"):
                answer = browser.get(path + query)
                assert answer.status_code == 200
                assert secret not in answer.text, (login, path)
        asked = [e for e in instance.events("--type", "report_read") if e["id"] > len(EVENTS)]
        assert asked
        for event in asked:
            assert event["props"]["params"].get("user") == event["user"]
        assert {event["user"] for event in asked} >= {str(user_id)}


# With a stand-in for logd.


@pytest.mark.parametrize("path", [*LISTS, *FILES])
def test_visitors_are_sent_to_the_login(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 302 and "/login" in answer.headers["Location"]


@pytest.mark.parametrize("login", ["student", "teacher", "auditor"])
@pytest.mark.parametrize("path", LISTS)
def test_without_logd_the_pages_say_so_and_show_the_sites_part(
    app: Flask, browser: Browser, login: str, path: str
) -> None:
    do_work(app, STUDENT)
    browser.log_in(login)
    text = browser.get(path).text
    assert "Analytics are unavailable" in text
    if path == "/my-data/" and login == "student":
        assert "1 completed task" in text and "1 quiz attempt with its answers" in text


@pytest.mark.parametrize("path", FILES)
def test_a_file_without_all_of_the_log_says_that_it_is_not_complete(
    app: Flask, student: Browser, reports: FakeReports, path: str
) -> None:
    """logd may end between two pages: what it has answered and the site's part are there."""
    do_work(app, STUDENT)
    event = {"id": 3, "ts_ns": 5 * NS, "stored_ns": 5 * NS, "type": "login", "user": "11"}
    reports.rows("person_events", {**event, "props": {"x": float("nan"), "b": b"\xff"}})
    reports.refuse("person_mentions", "unavailable", "it was <stopped>")
    text = student.get(path).text
    assert "it was <stopped>" in text and "NOT complete" in text
    assert f"by {STUDENT}" in text and "1970-01-01T00:00:05.000Z" in text
    if path.endswith("json"):
        whole = json.loads(text)
        assert whole["complete"] is False
        assert whole["trail"]["person_events"][0]["props"] == {"x": "nan", "b": "/w=="}
    else:
        assert my_data_file.COMPLETE not in text
    # The next download begins, though this one has ended early.
    assert student.get(path).status_code == 200


def test_a_second_download_waits_for_the_first(student: Browser, reports: FakeReports) -> None:
    assert my_data._downloads.acquire(blocking=False)
    try:
        answer = student.get(FILES[0])
        assert answer.status_code == 302
        assert "Another download is running" in student.get("/my-data/").text
    finally:
        my_data._downloads.release()
    for path in (*FILES, FILES[0]):
        assert student.get(path).status_code == 200
        # Also where nothing of the file is read, as a server closes it.
        student.client.head(path, base_url="https://classroom.example").close()
    assert student.get("/my-data/download.exe").status_code == 404
    assert reports.asked("person_events")


def test_a_download_is_made_of_pieces_of_bounded_size(
    student: Browser, reports: FakeReports
) -> None:
    """It does not collect the rows: each part of the log is asked for when it is written."""
    pages = 40

    def page(params: dict[str, Any]) -> dict[str, Any]:
        at = params.get("before_id", pages + 1) - 1
        rows = [{"id": at * 100 + n, "props": {"text": "x" * 500}} for n in range(50)]
        return {"ok": True, "rows": rows, "next": at if at > 1 else None}

    reports.reports["person_events"] = page
    response = student.client.get(FILES[0], base_url="https://classroom.example")
    sizes, asked = [], []
    for piece in response.iter_encoded():
        sizes.append(len(piece))
        asked.append(len(reports.asked("person_events")))
    assert asked[0] < 5 and asked[-1] == pages
    assert max(sizes) < 64 * 1024
    assert len(json.loads(student.get(FILES[0]).text)["trail"]["person_events"]) == 50 * pages


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_a_cell_is_no_formula(student: Browser, reports: FakeReports, text: str) -> None:
    reports.rows("person_mentions", {"id": 1, "type": text, "user": text, "props": {}})
    table = list(csv.reader(io.StringIO(student.get(FILES[1]).text[1:])))
    (row,) = (row for row in table if row[1] == "person_mentions")
    assert row[4:6] == [f"'{text}"] * 2


def test_a_search_that_found_nothing_yet_goes_on(student: Browser, reports: FakeReports) -> None:
    """logd searches a bounded part for each page; the site asks for a few, then for a click."""
    for report in ("person_mentions", "person_readings"):
        reports.reports[report] = lambda params: {
            "ok": True, "rows": [], "next": params.get("before_id", 100) - 10,
        }  # fmt: skip
    for page, report in (("mentions", "person_mentions"), ("readings", "person_readings")):
        text = student.get(f"/my-data/{page}").text
        assert "Older entries are still to be searched" in text
        assert "before=70" in text
        assert len(reports.asked(report)) == 3
        student.get(f"/my-data/{page}?before=70")
        assert reports.asked(report)[3]["before_id"] == 70
    assert "in the part that was searched" in student.get("/my-data/").text
    for bad in ("x", "-1", str(2**63)):
        assert student.get(f"/my-data/mentions?before={bad}").status_code == 400


def test_each_report_about_persons_has_words() -> None:
    missing = {name for name, report in REPORTS.items() if report.concern}
    missing -= reading_texts.REPORTS.keys()
    assert not missing, "add them to webapp/classroom/present/reading_texts.py"
    told = reading_texts.describe_report("report_read", "of a newer <logd>\u202e")
    assert told == "the report “of a newer <logd>\ufffd”"


def test_readings_of_a_kind_are_one_line_a_day_with_all_their_minutes() -> None:
    """Who looked is shown with each time: the teacher's page asks for several reports at once."""

    def reading(number: int, minutes: int, report: str, reader: str | None = "21") -> Reading:
        ts_ns = 100 * DAY_NS + minutes * 60 * NS
        return Reading(number, ts_ns, "report_read", reader, True, False, {"report": report})

    people = {"21": User(21, "t", "Ada", Role.TEACHER)}
    lines = my_data_texts.reading_lines(
        [
            reading(9, 125, "timeline"), reading(8, 125, "completions"), reading(7, 64, "timeline"),
            reading(6, 64, "timeline"), reading(5, 3, "timeline"), reading(4, 3, "timeline", "99"),
            reading(3, 2, "timeline", None), reading(2, -1, "timeline"),
        ],
        people,
    )  # fmt: skip
    assert [(line.who.split(" (")[0][:10], line.what[:13], line.before) for line in lines] == [
        ("Ada", "your activity", ["01:04", "00:03"]),
        ("Ada", "who has finis", []),
        ("An account", "your activity", []),
        ("The server", "your activity", []),
        ("Ada", "your activity", []),
    ]
    (line,) = my_data_texts.reading_lines([reading(n, n, "timeline") for n in range(30, 0, -1)], {})
    assert (len(line.before), line.more) == (10, 19)


# The site's tables.
