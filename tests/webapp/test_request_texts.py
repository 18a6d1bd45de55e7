"""Requests in timelines and lists of events: told as what they were, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from logd_wire.requests import OTHER_REQUESTS, PAGE_VIEW, request_type
from tests.webapp.browser import Browser
from tests.webapp.conftest import OTHER_STUDENT, STUDENT
from tests.webapp.fake_reports import FakeReports
from tests.webapp.flask_apps import Clients
from webapp.classroom.model import catalogue
from webapp.classroom.model.analytics import Event
from webapp.classroom.present.request_texts import NAME_CHARS_MAX, describe_request, is_echo
from webapp.classroom.present.texts import describe_event
from webapp.classroom.store.db import get_db

SEEN = re.compile(r"\b(opened|read|saw|viewed)\b", re.IGNORECASE)


def event(event_type: str, user: str | None = "7", **props: Any) -> Event:
    return Event(1, 1, 1, event_type, user, "00ff", 1, props)


# What the student does, and what the teacher reads of it.
STORY: list[tuple[Callable[[Browser], Any], str]] = [
    (lambda b: b.get("/courses/"), "Opened the list of courses"),
    (lambda b: b.get("/courses/data"), "Opened the course “Reading data with care”"),
    (lambda b: b.get("/courses/data/lessons/spread"), "Read the lesson “{spread}”"),
    (lambda b: b.get("/courses/data/tasks/data-dice"), "Opened the task “A hundred dice”"),
    (lambda b: b.get("/results"), "Opened their own results"),
    (lambda b: b.get("/my-data/"), "Opened the page “My data”"),
    (lambda b: b.get("/my-data/readings"), "Opened the list of who looked at their data"),
    (lambda b: b.get("/audit/requests/"), "Was refused the requests about data"),
    (lambda b: b.get("/teacher/"), "Was refused the teacher's page of the class"),
    (
        lambda b: b.get(f"/teacher/students/{OTHER_STUDENT}"),
        f"Was refused the teacher's page about student #{OTHER_STUDENT}",
    ),
    (lambda b: b.get("/audit/"), "Was refused the auditor's overview"),
    (
        lambda b: b.get("/courses/data/lessons/spreed"),
        "Asked for the lesson “spreed”, which was not found",
    ),
    (lambda b: b.get("/no-such-page"), "Asked for an unknown page, which was not found"),
    (lambda b: b.get("/logout"), "Asked for an unknown page, which was not shown"),
    (lambda b: b.get("/login"), "Asked for the login page and was sent to another page"),
    (
        lambda b: b.post("/courses/data/quizzes/data-chance-quiz", {"number": "x"}),
        "Sent a form to the quiz “Chance”, which was not accepted",
    ),
]


def test_what_a_student_did_is_told_as_what_it_was(
    app: Flask, student: Browser, clients: Clients
) -> None:
    with app.app_context():
        titles = catalogue.titles(get_db())
    titles_by_name = {"spread": titles["lesson:data/spread"]}
    for act, told in STORY:
        before = len(clients.events)
        act(student)
        described = [
            describe_event(Event(1, 1, 1, e.type, e.user, "", 1, e.props), titles)
            for e in clients.events[before:]
        ]
        assert described[-1] == told.format(**titles_by_name)
        assert clients.events[-1].user == str(STUDENT)


def test_a_teacher_and_an_auditor_read_that_a_page_was_refused(
    app: Flask, browser: Browser, reports: FakeReports
) -> None:
    refused = {
        "id": 9, "ts_ns": 1, "stored_ns": 1, "type": "request_refused", "user": str(STUDENT),
        "producer": "00ff", "sequence": 9,
        "props": {"endpoint": "teacher.dashboard", "method": "GET", "status": 403},
    }  # fmt: skip
    reports.rows("timeline", refused)
    reports.rows("events", refused)
    for login, page in (("teacher", f"/teacher/students/{STUDENT}"), ("auditor", "/audit/events")):
        browser.log_in(login)
        text = browser.get(page).text
        assert "Was refused the teacher&#39;s page of the class" in text
        assert "Opened" not in text
        browser.post("/logout")


def test_the_lesson_is_named_in_the_auditors_list(auditor: Browser, reports: FakeReports) -> None:
    args = {"slug": "data", "lesson_slug": "what-is-typical"}
    reports.rows("events", {
        "id": 9, "ts_ns": 1, "stored_ns": 1, "type": "page_view", "user": str(STUDENT),
        "producer": "00ff", "sequence": 9,
        "props": {"endpoint": "courses.lesson", "method": "GET", "status": 200, "view_args": args},
    })  # fmt: skip
    text = auditor.get("/audit/events").text
    assert re.search(r'<a href="/audit/events/9">Read the lesson “[^”]+”</a>', text)
    assert "what-is-typical" in text


@pytest.mark.parametrize(
    ("slug", "told"),
    [
        ("x” and completed the task “y", "x' and completed the task 'y"),
        ("\u202egnihton daer\u2066\x1b[1m\0", "\ufffdgnihton daer\ufffd\ufffd[1m\ufffd"),
        ("a\u200cb", "a\u200cb"),
        ("z" * 5000, "z" * (NAME_CHARS_MAX - 1) + "…"),
    ],
)
def test_an_address_cannot_say_what_was_done(slug: str, told: str) -> None:
    """Whoever is watched chooses the addresses that a teacher reads about."""
    asked = event(
        "request_refused", endpoint="courses.lesson", method="GET", status=404,
        view_args={"slug": "data", "lesson_slug": slug},
    )  # fmt: skip
    assert describe_request(asked, {}) == f"Asked for the lesson “{told}”, which was not found"


@pytest.mark.parametrize(
    "status", [301, 302, 303, 307, 400, 401, 403, 404, 405, 410, 422, 429, 500]
)
@pytest.mark.parametrize("stored_as", ["page_view", None])
@pytest.mark.parametrize("endpoint", ["teacher.dashboard", "courses.lesson", "shop.page", None])
def test_no_request_without_a_page_reads_like_one(
    status: int, stored_as: str | None, endpoint: str | None
) -> None:
    """Also what earlier versions stored as page views."""
    told = describe_request(
        event(
            stored_as or request_type("GET", status),
            endpoint=endpoint, route="/x", method="GET", status=status, view_args={"slug": "a"},
        ),
        {},
    )  # fmt: skip
    assert told is not None
    assert not SEEN.search(told), told


@pytest.mark.parametrize(
    ("method", "status", "stored_as", "echo"),
    [
        ("POST", 302, "request_redirected", True),
        ("POST", 200, "request_answered", True),
        ("POST", 302, "page_view", True),
        ("POST", None, "page_view", True),
        ("POST", 403, "request_refused", False),
        ("POST", 422, "page_view", False),
        ("POST", 500, "request_failed", False),
        ("GET", 302, "request_redirected", False),
        ("GET", 200, "page_view", False),
        ("POST", 200, "task_completed", False),
    ],
)
def test_only_an_accepted_form_is_left_out_for_its_effect(
    method: str, status: int | None, stored_as: str, echo: bool
) -> None:
    assert is_echo(event(stored_as, method=method, status=status)) is echo


@pytest.mark.parametrize(
    ("event_type", "told"),
    [
        ("login_failed", "Someone tried to log in to {} with a wrong password"),
        ("login_throttled", "Logging in to {} was blocked after too many wrong passwords"),
    ],
)
def test_a_failed_login_is_not_told_as_the_owners_deed(event_type: str, told: str) -> None:
    assert describe_event(event(event_type), {}) == told.format("this account")
    assert describe_event(event(event_type, None), {}) == told.format("an unknown account")


@given(
    st.sampled_from(sorted(OTHER_REQUESTS | {PAGE_VIEW})),
    st.dictionaries(
        st.sampled_from(["endpoint", "route", "method", "status", "view_args"]),
        st.recursive(
            st.none() | st.integers() | st.text() | st.sampled_from(["courses.lesson", "GET"]),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    ),
)
def test_any_properties_are_described(event_type: str, props: dict[str, Any]) -> None:
    assert describe_request(event(event_type, **props), {})
