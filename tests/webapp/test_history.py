"""The demo history: reproducible, in order, and in the form that the live site logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask, url_for

from tests.support.instance import Instance, check_sums
from tests.webapp.browser import Browser
from tests.webapp.flask_apps import Clients
from webapp.classroom.model.content import read_courses
from webapp.classroom.model.scoring import score
from webapp.demo import seed
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
        "request_redirected",
        "request_refused",
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


def test_every_address_of_the_history_leads_to_the_page_it_names(
    app: Flask, history: History
) -> None:
    found = 0
    with app.test_request_context():
        for _, _, _, props in history.events:
            if "endpoint" in props:
                args = props.get("view_args", {})
                url = url_for(props["endpoint"], **args)
                method = props["method"]
                assert app.url_map.bind("").match(url, method) == (props["endpoint"], args)
                found += bool(args)
    assert found > 30_000


def test_which_lesson_was_read_by_whom_is_the_plan_that_was_played(history: History) -> None:
    assert readings_of(
        (event_type, user, props) for event_type, user, _, props in history.events
    ) == Counter((str(row.user_id), row.course, row.lesson) for row in history.readings)
    assert len(history.readings) > 10_000
    per_lesson = Counter(row.lesson for row in history.readings)
    lessons = [lesson.slug for course in read_courses() for lesson in course.lessons]
    assert set(per_lesson) == set(lessons), "every lesson has a reader"
    ends = {(str(row.user_id), row.ended_ns) for row in history.readings}
    assert ends == {
        (user, ts_ns)
        for event_type, user, ts_ns, props in history.events
        if event_type == "page_view" and props["endpoint"] == "courses.lesson"
    }


def test_the_stored_trail_says_which_lesson_was_read_by_whom(
    history: History, instance: Instance
) -> None:
    """All events, logged as the command `seed --demo` does, and read back from the daemon."""
    instance.start()
    client = seed.open_client(instance.socket)
    with closing(client):
        for event in history.events:
            seed.emit_with_retries(client, event)
        assert client.flush(60)
        stats = client.stats()
    status = instance.settle()
    sums = {name: stats[name] for name in ("attempted", "accepted", "refused")}
    check_sums(status, **sums)
    assert status["stored"] - status["own"] == len(history.events)
    stored = instance.events("--type", "page_view")
    assert readings_of((row["type"], row["user"], row["props"]) for row in stored) == Counter(
        (str(row.user_id), row.course, row.lesson) for row in history.readings
    )


def test_the_live_site_logs_events_of_the_same_form(
    history: History, student: Browser, clients: Clients
) -> None:
    student.get("/courses/data")
    student.get("/courses/data/lessons/spread")
    student.get("/courses/data/lessons/spreed")
    student.get("/courses/data/tasks/data-dice")
    student.post("/courses/data/tasks/data-dice/complete")
    student.get("/courses/data/quizzes/data-chance-quiz")
    student.post("/courses/data/quizzes/data-chance-quiz", {"number": "1"})
    student.get("/courses/data/quizzes/data-chance-quiz/attempts/1")
    student.get("/results")
    student.post("/logout")
    student.log_in("student", "wrong")
    made_up = {
        (kind, props.get("endpoint")): form_of(props) for kind, _, _, props in history.events
    }
    live = {
        (event.type, event.props.get("endpoint")): form_of(event.props) for event in clients.events
    }
    assert len(live) >= 14
    assert live == {key: made_up[key] for key in live}


def form_of(props: Mapping[str, Any]) -> dict[str, Any]:
    """The names and types of properties, also of those in a map."""
    return {
        name: form_of(value) if isinstance(value, dict) else type(value)
        for name, value in props.items()
    }


def readings_of(
    events: Iterable[tuple[str, str | None, Mapping[str, Any]]],
) -> Counter[tuple[str | None, Any, Any]]:
    """Who read which lesson how often, by the page views alone."""
    return Counter(
        (user, props["view_args"]["slug"], props["view_args"]["lesson_slug"])
        for event_type, user, props in events
        if event_type == "page_view" and props["endpoint"] == "courses.lesson"
    )
