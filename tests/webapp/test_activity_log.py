"""The Flask extension: what `log` takes and returns, the decorator, and the context of jobs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, assert_type

import flask_login
import pytest
from flask import Flask, Response, abort, redirect, request, session

from flask_logd import ActivityLog, Outcome, keyed_digest
from logd_wire.schema import Malformed
from tests.support.instance import Instance, check_sums
from tests.webapp.flask_apps import (
    Clients,
    DatabaseClosed,
    logging_to,
    make_app,
    with_flask_login,
)


@pytest.fixture
def app(clients: Clients) -> Flask:
    return with_flask_login(make_app(ACTIVITY_LOG_CLIENT=clients))


@pytest.fixture
def activity(app: Flask) -> ActivityLog:
    return ActivityLog(app)


# -- properties, time, return type -------------------------------------------------------------


def test_props_takes_names_that_are_arguments_of_log(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    given = {"user": 9, "durable": True, "timeout_s": 3, "ts": "now", "props": 1, "self": 2}
    with app.app_context():
        assert activity.log("enrolled", user=7, props=given, event_type="x", task=1)
    (event,) = clients.events
    assert (event.user, event.durable) == ("7", False)
    assert event.props == {**given, "event_type": "x", "task": 1}


def test_named_properties_take_precedence_over_props(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    with app.app_context():
        activity.log("enrolled", props={"task": 1, "course": "data"}, task=2)
    assert clients.events[0].props == {"task": 2, "course": "data"}


AT = datetime(2026, 11, 3, 14, 5, 6, 789012, tzinfo=UTC)
AT_NS = 1_793_714_706_789_012_000


@pytest.mark.parametrize(
    ("ts", "ts_ns"),
    [
        (AT, AT_NS),
        (AT.astimezone(timezone(timedelta(hours=5, minutes=45))), AT_NS),
        (AT_NS + 345, AT_NS + 345),
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (None, None),
    ],
)
@pytest.mark.parametrize("durable", [False, True])
def test_an_event_has_the_time_that_is_given(
    app: Flask, activity: ActivityLog, clients: Clients, ts: Any, ts_ns: Any, durable: bool
) -> None:
    with app.app_context():
        assert activity.log("enrolled", ts=ts, durable=durable)
    assert clients.events[0].ts_ns == ts_ns


@pytest.mark.parametrize(
    "given",
    [
        {"ts": datetime(2026, 11, 3)},
        {"ts": 1_793_714_706.789},
        {"ts": "2026-11-03"},
        {"ts": -1},
        {"ts": datetime(1969, 1, 1, tzinfo=UTC)},
        {"props": 5},
        {"props": ["task"]},
        {"props": "task"},
    ],
)
def test_a_time_or_properties_of_another_form_are_refused_as_malformed(
    instance: Instance, given: dict[str, Any]
) -> None:
    app = make_app(ACTIVITY_LOG_SOCKET=instance.socket)
    activity = ActivityLog(app)
    with app.app_context():
        assert activity.log("enrolled", **given) is False
        assert activity.log("enrolled", durable=True, timeout_s=0, **given) is Outcome.REFUSED
        assert activity.log("enrolled", task=1)
        stats = activity.stats()
        assert stats["refused_by_cause"] == {"malformed": 2}
        assert stats["hook_failures"] == 0
    instance.start()
    check_sums(instance.settle(), attempted=3, accepted=1, refused=2)
    activity.client(app).close()
    testing = make_app(ACTIVITY_LOG_SOCKET=instance.socket, TESTING=True)
    strict = ActivityLog(testing)
    with testing.app_context(), pytest.raises(Malformed, match=r"^(ts|props)"):
        strict.log("enrolled", **given)
    strict.client(testing).close()


def test_log_has_one_type_for_each_way_to_call_it(app: Flask, activity: ActivityLog) -> None:
    """mypy checks these types (`make lint`); the test checks that they are true."""
    with app.app_context():
        plain = activity.log("enrolled", durable=False)
        waited = activity.log("enrolled", durable=True)
        either = activity.log("enrolled")
    assert_type(plain, bool)
    assert_type(waited, Outcome)
    assert_type(either, bool | Outcome)
    assert (type(plain), type(waited), type(either)) == (bool, Outcome, bool)


# -- the decorator -----------------------------------------------------------------------------


def test_a_decorated_view_logs_the_arguments_of_its_address_after_it_succeeded(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    @app.post("/tasks/<int:task>/complete")
    @activity.logged("task_completed")
    def complete(task: int, password: str = "secret") -> str:
        assert not clients.of("task_completed"), "not before it is done"
        return f"{task} {password}"

    browser = app.test_client()
    browser.get("/login/7")
    assert browser.post("/tasks/12/complete").text == "12 secret"
    (event,) = clients.of("task_completed")
    sent = clients.events[-1]
    assert event.user == "7"
    assert event.props == {"task": 12, "request_id": sent.props["request_id"]}
    assert complete.__name__ == "complete"


@pytest.mark.parametrize(
    ("answer", "logged"),
    [
        (lambda: "ok", True),
        (lambda: ("ok", 201), True),
        (lambda: ("ok", {"X-A": "b"}), True),
        (lambda: redirect("/text"), True),
        (lambda: ("no", 404), False),
        (lambda: ("no", "403 FORBIDDEN"), False),
        (lambda: ("no", 422, {"X-A": "b"}), False),
        (lambda: Response("no", 409), False),
        (lambda: abort(403), False),
        (lambda: 1 // 0, False),
    ],
)
def test_a_view_that_refuses_or_fails_logs_nothing(
    app: Flask, activity: ActivityLog, clients: Clients, answer: Any, logged: bool
) -> None:
    app.add_url_rule("/do", "do", activity.logged("done")(lambda: answer()))
    app.test_client().get("/do")
    assert bool(clients.of("done")) is logged


def test_named_arguments_of_any_function_are_logged(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    @activity.logged("grades_sent", "course", "dry_run", durable=True, props={"by": "job"})
    def send(course: str, password: str, *, dry_run: bool = False) -> int:
        return len(course + password)

    with app.app_context():
        assert send("data", "secret") == 10
    (event,) = clients.events
    assert event.props == {"course": "data", "dry_run": False, "by": "job"}
    assert event.durable


def test_a_name_that_is_no_argument_is_found_when_the_function_is_decorated(
    activity: ActivityLog,
) -> None:
    with pytest.raises(TypeError, match="send has no argument 'curse' to log"):

        @activity.logged("grades_sent", "curse")
        def send(course: str) -> None: ...


def test_a_decorated_coroutine_logs_when_it_has_ended(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    @activity.logged("grades_sent", "course")
    async def send(course: str) -> str:
        await asyncio.sleep(0)
        assert not clients.events
        return course

    with app.app_context():
        assert asyncio.run(send("data")) == "data"
    assert [event.props for event in clients.events] == [{"course": "data"}]


def test_a_decorated_function_does_nothing_where_nothing_could_be_logged(
    activity: ActivityLog,
) -> None:
    done = []

    @activity.logged("grades_sent")
    def send() -> None:
        done.append(1)

    with pytest.raises(RuntimeError, match="application context"):
        send()
    assert done == []


def test_a_failure_to_log_does_not_change_what_the_function_returns() -> None:
    app = make_app()
    activity = logging_to(Clients(broken=OSError("broken")), app)
    with app.app_context():
        assert activity.logged("grades_sent")(lambda: 5)() == 5
        assert activity.stats()["hook_failures"] == 1


# -- jobs --------------------------------------------------------------------------------------


def test_a_context_gives_user_and_properties_to_the_events_of_a_job(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    with app.app_context():
        with activity.context(user=7, props={"user": 8}, job="grades", run=1):
            activity.log("grades_sent", course="data")
            with activity.context(run=2):
                activity.log("grades_sent", user=9)
            activity.log("grades_sent", run=3)
        activity.log("grades_sent")
    assert [(event.user, event.props) for event in clients.events] == [
        ("7", {"user": 8, "job": "grades", "run": 1, "course": "data"}),
        ("9", {"user": 8, "job": "grades", "run": 2}),
        ("7", {"user": 8, "job": "grades", "run": 3}),
        (None, {}),
    ]


def test_a_context_ends_with_an_exception(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    with app.app_context():
        with pytest.raises(DatabaseClosed), activity.context(user=7):
            raise DatabaseClosed
        activity.log("grades_sent")
    assert clients.events[0].user is None


def test_a_context_holds_for_its_thread_its_app_and_its_request_only(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    other = make_app(ACTIVITY_LOG_CLIENT=clients)
    activity.init_app(other)

    @app.get("/work")
    def work() -> str:
        activity.log("asked")
        with activity.context(user=flask_login.current_user, step=1):
            activity.log("worked")
        return "done"

    def in_a_thread() -> None:
        with app.app_context():
            activity.log("from_a_thread")

    def in_another_app() -> None:
        with other.app_context():
            activity.log("from_another_app")

    browser = app.test_client()
    browser.get("/login/7")
    with app.app_context(), activity.context(user=1, job="j"):
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        in_another_app()
        browser.get("/work")
        activity.log("from_the_job")
    found = {event.type: (event.user, event.props) for event in clients.events[1:]}
    for props in (found["asked"][1], found["worked"][1], found["page_view"][1]):
        assert props.pop("request_id")
    assert found["from_a_thread"] == (None, {})
    assert found["from_another_app"] == (None, {})
    assert found["asked"] == ("7", {})
    assert found["worked"] == ("7", {"step": 1})
    assert found["page_view"][0] == "7" and "job" not in found["page_view"][1]
    assert found["from_the_job"] == ("1", {"job": "j"})


def test_tasks_of_one_loop_have_a_context_each(
    app: Flask, activity: ActivityLog, clients: Clients
) -> None:
    async def job(user: int) -> None:
        with activity.context(user=user):
            for _ in range(3):
                await asyncio.sleep(0)
                activity.log("worked", of=user)

    async def both() -> None:
        await asyncio.gather(job(1), job(2))

    with app.app_context():
        asyncio.run(both())
    assert len(clients.events) == 6
    assert all(event.user == str(event.props["of"]) for event in clients.events)


def test_a_context_without_an_app_raises_with_the_remedy(activity: ActivityLog) -> None:
    with pytest.raises(RuntimeError, match="application context"):
        activity.context(user=7)


# -- digests -----------------------------------------------------------------------------------


def test_a_digest_is_the_same_for_the_same_key_and_text_only() -> None:
    digest = keyed_digest("key", "192.0.2.7")
    assert digest == keyed_digest(b"key", "192.0.2.7")
    assert len(digest) == 32 and int(digest, 16)
    others = {keyed_digest("other", "192.0.2.7"), keyed_digest("key", "192.0.2.8")}
    assert digest not in others and len(others) == 2
    with pytest.raises(ValueError, match="needs a key"):
        keyed_digest("", "192.0.2.7")


@pytest.mark.parametrize("setting", ["EXTRA", "FILTER"])
def test_a_callable_that_reads_the_session_changes_no_response(
    clients: Clients, setting: str
) -> None:
    def read(*_: Any) -> Mapping[str, Any]:
        return {
            "address_digest": keyed_digest("key", request.remote_addr or ""),
            "on_behalf_of": session.get("on_behalf_of"),
        }

    app = make_app(ACTIVITY_LOG_USER=lambda: 7, **{f"ACTIVITY_LOG_{setting}": read})
    activity = logging_to(clients, app)

    @app.get("/logs")
    def logs() -> str:
        activity.log("enrolled")
        return "logged"

    response = app.test_client().get("/logs")
    assert "Vary" not in response.headers
    assert [event.props["address_digest"] for event in clients.events] == [
        keyed_digest("key", "127.0.0.1")
    ] * 2
