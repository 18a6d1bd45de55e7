"""The Flask extension with the real client and daemon: its events are stored."""

from __future__ import annotations

import json
import os

from flask import Flask

from flask_logd import ActivityLog, Outcome
from tests.support.instance import Instance, check_sums


def make_app(instance: Instance) -> tuple[Flask, ActivityLog]:
    app = Flask(__name__)
    app.config.update(ACTIVITY_LOG_SOCKET=instance.socket, ACTIVITY_LOG_USER=lambda: 7)
    activity = ActivityLog(app)

    @app.get("/tasks/<int:task>")
    def finish(task: int) -> str:
        return str(activity.log("task_completed", task=task))

    @app.get("/durable")
    def durable() -> str:
        return str(activity.log("exam_handed_in", durable=True, timeout_s=60))

    @app.get("/malformed")
    def malformed() -> str:
        return str(activity.log("Not A Type", thing=object()))

    return app, activity


def test_page_views_and_events_are_stored_in_order_even_if_logd_comes_later(
    instance: Instance,
) -> None:
    app, activity = make_app(instance)
    for task in range(3):
        assert app.test_client().get(f"/tasks/{task}").text == "True"
    instance.start()
    with app.app_context():
        assert activity.client().flush(20)
        stats = activity.stats()
    assert (stats["attempted"], stats["refused"], stats["pending"]) == (6, 0, 0)
    events = instance.events("--user", "7")
    assert [event["type"] for event in events] == ["task_completed", "page_view"] * 3
    for done, view in zip(events[::2], events[1::2], strict=True):
        assert done["props"]["request_id"] == view["props"]["request_id"]
        assert view["props"]["route"] == "/tasks/<int:task>"
        assert view["props"]["status"] == 200
    activity.client(app).close()


def test_a_durable_event_is_on_disk_when_the_page_is_sent(instance: Instance) -> None:
    app, activity = make_app(instance)
    instance.start()
    assert app.test_client().get("/durable").text == str(Outcome.STORED)
    assert len(instance.events("--type", "exam_handed_in")) == 1
    activity.client(app).close()


def test_a_malformed_event_is_refused_and_counted_and_the_page_works(instance: Instance) -> None:
    app, activity = make_app(instance)
    assert app.test_client().get("/malformed").text == "False"
    with app.app_context():
        stats = activity.stats()
    assert (stats["accepted"], stats["refused_by_cause"]) == (1, {"malformed": 1})
    activity.client(app).close()


def test_a_forked_worker_is_a_producer_of_its_own(instance: Instance) -> None:
    app, activity = make_app(instance)
    app.test_client().get("/tasks/1")
    child = os.fork()
    if child == 0:
        app.test_client().get("/tasks/2")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    instance.start()
    instance.settle()
    events = instance.events("--type", "task_completed")
    assert {event["props"]["task"] for event in events} == {1, 2}
    assert len({event["producer"] for event in events}) == 2, json.dumps(events)
    activity.client(app).close()


def test_a_person_in_a_pages_address_is_found_and_erased(instance: Instance) -> None:
    app = Flask(__name__)
    app.config.update(
        ACTIVITY_LOG_SOCKET=instance.socket,
        ACTIVITY_LOG_USER=lambda: 1,
        ACTIVITY_LOG_VIEW_ARGS="all",
    )
    activity = ActivityLog(app)
    app.add_url_rule("/students/<int:user_id>", "student", lambda user_id: f"{user_id}")
    for student in (7, 8):
        assert app.test_client().get(f"/students/{student}").status_code == 200
    instance.start()
    check_sums(instance.settle(), attempted=2, accepted=2)
    activity.client(app).close()
    found = instance.cli("person", "7", "--format", "jsonl").splitlines()
    pages = [json.loads(line) for line in found if "view_args" in line]
    assert [page["props"]["view_args"] for page in pages] == [{"user_id": 7}]
    instance.cli("forget", "7", "--yes")
    assert "view_args" not in instance.cli("person", "7", "--format", "jsonl")
    views = instance.events("--type", "page_view")
    assert [view["props"]["view_args"]["user_id"] for view in views] == ["(erased)", 8]
