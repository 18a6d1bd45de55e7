"""The examples of the guide store each event once, under each kind of web server.

In the middle of the requests a worker is killed, and the application is loaded again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.example_server import KINDS, WSGI, ExampleServer
from tests.faults.servers import needs_uwsgi
from tests.support.instance import ROOT, Instance, Process, check_streams
from tests.support.tally import Tally

REQUESTS = 60
# What each request logs: the middleware's event, the application's, and a log record's.
TYPES = ("page_view", "lesson_opened", "log_record")
# Each server and each example once; all combinations with `make test-long`.
OFTEN = {
    ("gunicorn sync", "plain_wsgi"),
    ("gunicorn gthread", "django_app"),
    ("gunicorn gevent", "flask_app"),
    ("uWSGI", "plain_wsgi"),
    ("waitress", "django_app"),
    ("flask run", "flask_app"),
    ("uvicorn", "fastapi_app"),
    ("hypercorn", "quart_app"),
}
SERVE_ASGI = ("uvicorn", "uvicorn workers", "hypercorn")
SERVE_WSGI = [kind for kind in KINDS if kind.split()[0] in {"gunicorn", "uWSGI", "waitress"}]
COMBINATIONS = [
    *((kind, app) for kind in SERVE_WSGI for app in WSGI),
    ("flask run", "flask_app"),
    *((kind, app) for kind in SERVE_ASGI for app in ("fastapi_app", "quart_app")),
]


def parameters() -> list[Any]:
    found = []
    for kind, app in COMBINATIONS:
        marks = [] if (kind, app) in OFTEN else [pytest.mark.long(minutes=0.1)]
        if kind == "uWSGI":
            marks.append(needs_uwsgi)
        found.append(pytest.param(kind, app, id=f"{kind}, {app}", marks=marks))
    return found


def number_of(event: dict[str, Any]) -> int:
    """The number of the request that logged an event."""
    props = event["props"]
    named = {
        "page_view": lambda: props["request_id"].removeprefix("r"),
        "lesson_opened": lambda: props["lesson"],
        "log_record": lambda: re.findall(r"\d+", props["message"])[0],
    }
    return int(named[event["type"]]())


@pytest.mark.parametrize(("kind", "app"), parameters())
def test_each_event_of_an_example_is_stored_once_over_a_kill_and_a_reload(
    instance: Instance, tally: Tally, kind: str, app: str
) -> None:
    instance.start()
    server = ExampleServer(instance, KINDS[kind], app)
    happenings: dict[int, Callable[[], None]] = {REQUESTS // 3: server.kill}
    if KINDS[kind].reload:
        happenings[2 * REQUESTS // 3] = server.reload
    try:
        server.ask_for_all(REQUESTS, happenings)
    finally:
        server.close()
    status, events = instance.settle(), instance.events()
    answered, cut_short = len(server.answered), len(server.unanswered)
    assert answered + cut_short == REQUESTS
    assert answered > REQUESTS // 2
    stored = Counter((event["type"], number_of(event)) for event in events)
    assert {key for key in stored if stored[key] > 1} == set()
    assert {(name, n) for name in TYPES for n in server.answered} <= stored.keys()
    for event in events:
        assert event["user"] == f"pupil-{number_of(event) % 7}", event
    assert status["refused_by_clients"] == 0
    accepted = len(TYPES) * answered
    tally.account(
        status, events, attempted=accepted, accepted=accepted,
        killed=len(TYPES) * cut_short, kills=1,
    )  # fmt: skip
    assert (status["lost"], status["quarantined"]) == (0, 0)
    check_streams(events)


def test_a_job_s_events_are_stored_and_its_last_one_is_on_the_disk_when_it_ends(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    students = [str(number) for number in range(10, 20)] + ["07"]
    job = Process(
        str(ROOT / "shared/examples/background_job.py"), *students,
        env={"LOGD_SOCKET": instance.socket, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert job.popen.wait(60) == 0, job.lines
    job.close()
    status, events = instance.settle(), instance.events()
    sent = len(students) + 2
    assert [event["user"] for event in events if event["type"] == "grades_sent"] == students
    assert [event["user"] for event in events if event["type"] == "log_record"] == ["07"]
    tally.account(status, events, attempted=sent, accepted=sent)


def test_the_guide_and_its_examples_name_each_other() -> None:
    guide = (ROOT / "shared/GUIDE.md").read_text()
    examples = {path.name for path in (ROOT / "shared/examples").glob("*.py")}
    assert len(examples) > 5
    assert {name for name in examples if f"examples/{name}" not in guide} == set()
    for name in examples:
        lines = (ROOT / "shared/examples" / name).read_text().splitlines()
        assert len(lines) <= 32, name
    assert {app for _, app in COMBINATIONS} | {"background_job"} == {
        name.removesuffix(".py") for name in examples
    }
