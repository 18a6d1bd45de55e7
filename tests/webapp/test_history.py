"""The demo history: reproducible, in order, and in the form that the live site logs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from tests.webapp.browser import Browser
from tests.webapp.flask_apps import Clients
from webapp.classroom.model.content import read_courses
from webapp.classroom.model.scoring import score
from webapp.demo.history import DAYS, History, generate, is_holiday
from webapp.demo.school import AUDITOR, STUDENTS
from webapp.demo.visits import PAGES

NOW = datetime(2026, 11, 24, 15, 30, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 1_000_000_000


@pytest.fixture(scope="module")
def history() -> History:
    return generate(NOW_NS, read_courses())


def day_of(ts_ns: int) -> datetime:
    at = datetime.fromtimestamp(ts_ns // 1_000_000_000, UTC)
    return at.replace(hour=0, minute=0, second=0)


def test_the_same_seed_gives_the_same_history(history: History) -> None:
    assert generate(NOW_NS, read_courses()) == history


def test_another_seed_gives_another_history(history: History) -> None:
    assert generate(NOW_NS, read_courses(), seed=1).events != history.events


def test_the_history_has_about_fifty_thousand_events(history: History) -> None:
    assert 45_000 <= len(history.events) <= 55_000
    kinds = Counter(event_type for event_type, *_ in history.events)
    assert set(kinds) == {
        "page_view",
        "login",
        "logout",
        "login_failed",
        "task_completed",
        "quiz_submitted",
    }


def test_events_are_in_order_of_time_and_not_in_the_future(history: History) -> None:
    times = [ts_ns for _, _, ts_ns, _ in history.events]
    assert times == sorted(times)
    assert times[-1] < NOW_NS + 2_000_000_000  # the last request may just be ending
    assert day_of(times[0]) == day_of(NOW_NS) - timedelta(days=DAYS - 1)


def test_rows_and_events_agree(history: History) -> None:
    done = {
        (user, props["task"])
        for event_type, user, _, props in history.events
        if event_type == "task_completed"
    }
    assert done == {(str(row.user_id), row.task) for row in history.completions}
    assert len(done) == len(history.completions)
    handed_in = [
        (user, props["quiz"], props["attempt"], props["score"])
        for event_type, user, _, props in history.events
        if event_type == "quiz_submitted"
    ]
    rows = [(str(row.user_id), row.quiz, row.number, row.score) for row in history.tries]
    assert sorted(handed_in) == sorted(rows)


def test_scores_are_those_of_the_answers(history: History) -> None:
    quizzes = {quiz.id: quiz for course in read_courses() for quiz in course.quizzes}
    assert len(history.tries) > 50
    for row in history.tries:
        assert score(quizzes[row.quiz].questions, row.answers) == row.score


def test_some_fail_some_try_again_and_some_lag_behind(history: History) -> None:
    assert any(row.score < 0.5 for row in history.tries)
    assert any(row.number > 1 for row in history.tries)
    per_student = Counter(row.user_id for row in history.completions)
    counts = [per_student[student.id] for student in STUDENTS]
    assert min(counts) <= 6
    assert max(counts) >= 14


def test_school_days_are_busy_and_weekends_and_holidays_are_quiet(history: History) -> None:
    last = day_of(NOW_NS)
    views = Counter(day_of(ts_ns) for kind, _, ts_ns, _ in history.events if kind == "page_view")
    busy: list[int] = []
    quiet: list[int] = []
    for days_before in range(1, DAYS):
        day = last - timedelta(days=days_before)
        off = day.weekday() >= 5 or is_holiday(days_before)
        (quiet if off else busy).append(views[day])
    assert min(busy) > max(quiet)


def test_the_auditor_comes_once_a_week(history: History) -> None:
    days = {day_of(ts_ns) for _, user, ts_ns, _ in history.events if user == str(AUDITOR.id)}
    assert {day.weekday() for day in days} == {2}


def test_every_page_of_the_history_exists_on_the_site(app: Flask) -> None:
    rules = {(rule.endpoint, rule.rule) for rule in app.url_map.iter_rules()}
    assert {(endpoint, rule) for endpoint, (rule, _) in PAGES.items()} <= rules


def test_the_live_site_logs_events_of_the_same_form(
    history: History, student: Browser, clients: Clients
) -> None:
    student.get("/courses/data")
    student.post("/courses/data/tasks/data-dice/complete")
    student.post("/courses/data/quizzes/data-chance-quiz", {"number": "1"})
    student.post("/logout")
    student.log_in("student", "wrong")
    made_up = {
        kind: {name: type(value) for name, value in props.items()}
        for kind, _, _, props in history.events
    }
    live = {
        event.type: {name: type(value) for name, value in event.props.items()}
        for event in clients.events
    }
    assert live == made_up
