"""The teacher's pages, with and without logd."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from logd_wire.query import QueryClient, Unavailable
from tests.webapp.browser import Browser
from tests.webapp.conftest import OTHER_STUDENT, STUDENT, TEACHER
from tests.webapp.fake_reports import FakeReports
from webapp.classroom.model import accounts
from webapp.classroom.store.db import get_db
from webapp.classroom.views.teacher import STUDENTS_SHOWN, student_page

NS = 1_000_000_000
AT_NS = int(datetime(2026, 11, 3, 14, 5, tzinfo=UTC).timestamp()) * NS
TODAY = int(time.time()) // 86_400
UNAVAILABLE = "Analytics are unavailable"


def event_row(at: int, event_type: str, **props: object) -> dict[str, object]:
    return {
        "id": at,
        "ts_ns": AT_NS,
        "stored_ns": AT_NS,
        "type": event_type,
        "user": str(STUDENT),
        "producer": "00ff",
        "sequence": at,
        "props": props,
    }


def test_the_charts_have_a_sentence_and_a_table(teacher: Browser, reports: FakeReports) -> None:
    reports.rows(
        "daily_activity",
        {"day": TODAY - 1, "events": 1200, "users": 2},
        {"day": TODAY, "events": 30, "users": 1},
    )
    text = teacher.get("/teacher/?days=7").text
    assert text.count('src="data:image/svg+xml;base64,') == 2
    assert "615 page views on days with any" in text
    assert "<td>1,200</td>" in text
    assert text.count('<th scope="row">') == 2 * 7


@pytest.mark.parametrize(
    ("query", "days"), [("", 60), ("?days=7", 7), ("?days=30", 30), ("?days=9999", 60)]
)
def test_the_range_of_the_charts_can_be_chosen(
    teacher: Browser, reports: FakeReports, query: str, days: int
) -> None:
    teacher.get(f"/teacher/{query}")
    (asked,) = reports.asked("daily_activity")
    assert asked["until_day"] - asked["since_day"] + 1 == days
    assert asked["users"] == sorted([str(STUDENT), str(OTHER_STUDENT)], reverse=True)


def test_reports_are_requested_on_behalf_of_the_account(
    teacher: Browser, reports: FakeReports
) -> None:
    teacher.get("/teacher/courses/data")
    assert {message["asked_by"] for message in reports.requests} == {str(TEACHER)}


def test_the_matrix_shows_what_logd_has_stored(teacher: Browser, reports: FakeReports) -> None:
    reports.rows(
        "completions",
        {
            "user": str(STUDENT),
            "subject": "data-dice",
            "events": 1,
            "first_ts_ns": AT_NS,
            "last_ts_ns": AT_NS,
            "last_value": None,
            "best_value": None,
        },
    )
    text = teacher.get("/teacher/courses/data").text
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)
    noor = next(row for row in rows if "Noor Haddad" in row)
    assert noor.count("✓") == 1
    assert "done Tue 3 Nov 2026, 14:05" in noor
    assert "1 of 5" in noor
    emil = next(row for row in rows if "Emil" in row)
    assert emil.count("not yet") == 5


def test_all_pages_of_a_report_are_read(teacher: Browser, reports: FakeReports) -> None:
    row = {"events": 1, "first_ts_ns": AT_NS, "last_ts_ns": AT_NS, "user": str(STUDENT)}

    def answer(params: dict[str, object]) -> dict[str, object]:
        if params.get("after") is None:
            return {"ok": True, "rows": [row | {"subject": "data-dice"}], "next": 7}
        return {"ok": True, "rows": [row | {"subject": "data-income"}], "next": None}

    reports.reports["completions"] = answer
    assert "2 of 5" in teacher.get("/teacher/courses/data").text
    assert [params.get("after") for params in reports.asked("completions")] == [None, 7]


def test_a_report_with_too_many_pages_ends_its_panel_only(
    teacher: Browser, reports: FakeReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.classroom.model.reports.REPORT_PAGES_MAX", 3)
    row = {"events": 1, "first_ts_ns": AT_NS, "last_ts_ns": AT_NS, "user": str(STUDENT)}
    reports.rows("completions", row | {"subject": "data-dice"}, following=7)
    page = teacher.get("/teacher/courses/data")
    assert page.status_code == 200
    assert "1 of 5" not in page.text
    assert len(reports.asked("completions")) == 3


def many(teacher: Browser, count: int) -> list[str]:
    """Adds students; returns the keys of all of them."""
    with teacher.client.application.app_context():
        db = get_db()
        with db.transaction() as connection:
            for number in range(count):
                accounts.add_user(
                    connection,
                    login=f"many{number}",
                    name=f"Many {number}",
                    role=accounts.Role.STUDENT,
                    password_hash="x",
                )
        return [user.key for user in accounts.list_users(db, accounts.Role.STUDENT)]


def test_a_school_of_over_1000_students_is_asked_about_in_parts(
    teacher: Browser, reports: FakeReports
) -> None:
    keys = many(teacher, 2100)
    row = {"events": 1, "first_ts_ns": AT_NS, "last_ts_ns": AT_NS}

    def daily(params: dict[str, Any]) -> dict[str, Any]:
        count = len(params["users"])
        return {"ok": True, "rows": [{"day": TODAY, "events": 2 * count, "users": count}]}

    def scores(params: dict[str, Any]) -> dict[str, Any]:
        rows = [{"subject": "data-chance-quiz", "bucket": 9, "users": len(params["users"])}]
        return {"ok": True, "rows": rows}

    reports.reports["daily_activity"], reports.reports["score_distribution"] = daily, scores
    reports.reports["completions"] = lambda params: {
        "ok": True,
        "rows": [row | {"user": user, "subject": "data-dice"} for user in params["users"]],
    }
    text = teacher.get("/teacher/").text
    assert f"<td>{2 * len(keys):,}</td>" in text and f"<td>{len(keys):,}</td>" in text
    text = teacher.get("/teacher/courses/data").text
    assert f"latest scores of {len(keys)} students; {len(keys)} of them" in text
    assert text.count("1 of 5") == STUDENTS_SHOWN and len(text) < 110_000  # mostly charts
    assert f"All {len(keys):,} students" in text
    (totals,) = re.findall(r"<tfoot>(.*?)</tfoot>", text, re.S)
    assert totals.count(f">{len(keys):,}<") == 1 and totals.count(">0<") == 4
    for report in ("daily_activity", "completions", "score_distribution"):
        parts = [params["users"] for params in reports.asked(report)]
        assert len(parts) == 3
        assert sorted(key for part in parts for key in part) == sorted(keys)


def test_each_student_of_a_large_class_is_on_one_page_which_its_letter_finds(
    teacher: Browser, reports: FakeReports
) -> None:
    keys = many(teacher, 2 * STUDENTS_SHOWN + 3)
    found: list[str] = []
    for number in range(1, 4):
        text = teacher.get(f"/teacher/courses/data?page={number}").text
        found += re.findall(r'<th scope="row"><a href="/teacher/students/(\d+)"', text)
        assert ('rel="prev"' in text, 'rel="next"' in text) == (number > 1, number < 3)
    assert found == keys, "in the order of names"
    letters = re.findall(r'page=(\d)"[^>]*>(\w)</a>', text)
    assert ("1", "E") in letters and ("1", "M") in letters and ("3", "N") in letters
    for page in ("0", "4", "9" * 18):
        assert teacher.get(f"/teacher/courses/data?page={page}").status_code == 404
    assert teacher.get("/teacher/courses/data?page=x").status_code == 400


def test_a_class_of_one_page_has_no_pages_and_an_empty_one_a_page(
    teacher: Browser, reports: FakeReports
) -> None:
    text = teacher.get("/teacher/courses/data").text
    assert "page=" not in text and "Further names" not in text
    assert "All 2 students" in text
    assert student_page([], None).pages == 1


def test_names_are_in_the_order_in_which_people_look_for_them() -> None:
    names = ["Zoe Ek", "Ömer Ak", "omar Ba", "Øyvind Li", "Åsa Mo", "Łukasz Ny", "Lena O'Dea",
             "Émile Or", "Anne-Marie Po", "Anne Quin", "ßara", "李明", "Ωmega"]  # fmt: skip
    ordered = sorted(names, key=accounts.name_key)
    assert ordered == [
        "Anne-Marie Po", "Anne Quin", "Åsa Mo", "Émile Or", "Lena O'Dea", "Łukasz Ny",
        "omar Ba", "Ömer Ak", "Øyvind Li", "ßara", "Zoe Ek", "Ωmega", "李明",
    ]  # fmt: skip


def test_lists_of_people_are_in_that_order(teacher: Browser, reports: FakeReports) -> None:
    with teacher.client.application.app_context():
        db = get_db()
        with db.transaction() as connection:
            for login, name in (("omer", "Ömer Ak"), ("omar", "Omar Ba"), ("emilia", "Émilia Aa")):
                accounts.add_user(
                    connection, login=login, name=name, role=accounts.Role.STUDENT,
                    password_hash="x",
                )  # fmt: skip
    for page in ("/teacher/", "/teacher/courses/data"):
        shown = re.findall(r'/teacher/students/\d+">([^<]+)</a>', teacher.get(page).text)
        assert shown == ["Emil Sørensen", "Émilia Aa", "Noor Haddad", "Omar Ba", "Ömer Ak"]


def test_accounts_are_found_by_their_ids_of_events(teacher: Browser) -> None:
    keys = many(teacher, 600)
    odd = ["999", "x", "", "-1", "²", "9" * 30, "٣"]
    with teacher.client.application.app_context():
        found = accounts.find_users(get_db(), [*keys, *odd])
    assert set(found) == set(keys)
    assert all(key == user.key for key, user in found.items())


def test_pages_that_take_too_long_together_end_their_panel(
    teacher: Browser, reports: FakeReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.classroom.model.reports.REPORTS_S_MAX", -1.0)
    page = teacher.get("/teacher/courses/data")
    assert page.status_code == 200
    assert "its pages take over" in page.text
    assert reports.requests == []


def test_quiz_scores_are_shown_as_a_distribution(teacher: Browser, reports: FakeReports) -> None:
    reports.rows(
        "score_distribution",
        {"subject": "data-chance-quiz", "bucket": 9, "users": 3},
        {"subject": "data-chance-quiz", "bucket": 2, "users": 1},
    )
    text = teacher.get("/teacher/courses/data").text
    assert "latest scores of 4 students; 3 of them reached half of the points or more" in text
    assert text.count("no student has handed it in yet") == 2 * 2


def test_a_timeline_describes_events(teacher: Browser, reports: FakeReports) -> None:
    reports.rows(
        "timeline",
        event_row(9, "task_completed", task="data-dice", course="data"),
        event_row(8, "page_view", endpoint="courses.complete", route="/x", method="POST"),
        event_row(7, "quiz_submitted", quiz="data-chance-quiz", score=0.5),
        event_row(6, "page_view", endpoint="courses.lesson", method="GET"),
        event_row(5, "page_view", route="/<script>", method="GET"),
        event_row(4, "quiz_submitted", quiz=[1], score="high"),
        event_row(3, "something_new_happened"),
        following=3,
    )
    text = teacher.get(f"/teacher/students/{STUDENT}").text
    described = [
        re.sub("<[^>]+>", "", found)
        for found in re.findall(r"</time>\s*<span>(.*?)</span>", text, re.S)
    ]
    assert described == [
        "Completed the task “A hundred dice”",
        "Handed in the quiz “Chance”: 50\N{NO-BREAK SPACE}%",
        "Read a lesson",
        "Opened /&lt;script&gt;",
        "Handed in the quiz “[1]”: an unknown score",
        "Something new happened",
    ]
    assert f'href="/teacher/students/{STUDENT}?before=3&amp;before_ns={AT_NS}"' in text
    assert "Newest" not in text


def test_a_doubtful_time_is_shown_with_the_time_of_storing(
    teacher: Browser, reports: FakeReports
) -> None:
    doubtful = event_row(8, "login") | {"ts_ns": 0, "time_in_doubt": True}
    reports.rows("timeline", event_row(9, "login"), doubtful)
    text = teacher.get(f"/teacher/students/{STUDENT}").text
    (shown,) = re.findall(r"<small>time by the sender's clock; stored (.*?)</small>", text)
    assert "2026" in shown and "Thu 1 Jan 1970" in text


def test_a_timeline_is_paged_by_key(teacher: Browser, reports: FakeReports) -> None:
    reports.rows("timeline", event_row(2, "login"))
    text = teacher.get(f"/teacher/students/{STUDENT}?before=3&before_ns=9").text
    (asked,) = reports.asked("timeline")
    assert (asked["before_id"], asked["before_ns"]) == (3, 9)
    assert "Newest" in text
    assert "Older" not in text


@pytest.mark.parametrize("key", ["x", "-1", "9" * 40, str(2**63), "1.5", "²"])
def test_an_invalid_paging_key_is_refused(teacher: Browser, key: str) -> None:
    assert teacher.get(f"/teacher/students/{STUDENT}?before={key}").status_code == 400
    assert teacher.get(f"/teacher/students/{STUDENT}?before=3&before_ns={key}").status_code == 400


@pytest.mark.parametrize(
    ("path", "still_there"),
    [
        ("/teacher/", "Emil Sørensen"),
        ("/teacher/courses/data", "Reading data with care"),
        (f"/teacher/students/{STUDENT}", "Noor Haddad"),
    ],
)
def test_without_logd_a_page_says_so_and_shows_the_rest(
    teacher: Browser, path: str, still_there: str
) -> None:
    response = teacher.get(path)
    assert response.status_code == 200
    assert UNAVAILABLE in response.text
    assert "inform the site's administrator" in response.text
    assert still_there in response.text


def test_a_refused_report_s_message_is_shown(teacher: Browser, reports: FakeReports) -> None:
    reports.refuse("daily_activity", "bad_parameter", "users: too many")
    text = teacher.get("/teacher/").text
    assert UNAVAILABLE in text
    assert "users: too many" in text


@pytest.mark.parametrize("row", [{}, {"day": "x"}, {"day": None, "events": 1}])
def test_an_answer_of_another_version_does_not_break_the_page(
    teacher: Browser, reports: FakeReports, row: dict[str, object]
) -> None:
    reports.rows("daily_activity", row)
    reports.rows("completions", row)
    for path in ("/teacher/", "/teacher/courses/data"):
        assert teacher.get(path).status_code == 200


def test_an_endless_report_is_ended(teacher: Browser, reports: FakeReports) -> None:
    reports.reports["completions"] = lambda _params: {"ok": True, "rows": [], "next": 1}
    response = teacher.get("/teacher/courses/data")
    assert response.status_code == 200
    assert UNAVAILABLE in response.text


def test_an_unavailable_logd_is_requested_once_per_page(
    teacher: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page waits for one timeout, not for one per panel."""
    asked: list[str] = []

    def ask(_self: QueryClient, report: str, **_params: object) -> None:
        asked.append(report)
        raise Unavailable("timed out")

    monkeypatch.setattr(QueryClient, "ask", ask)
    teacher.get("/teacher/courses/data")
    assert asked == ["completions"]
