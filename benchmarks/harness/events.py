"""Events as a site's web processes log them, with the properties of the extension and Classroom.

Mostly page views, some tasks and quizzes. No two are the same: each request has its own id and
duration, so that no cache on the way makes the figures better than they are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

USERS = 1000
LESSONS = 200
_ROUTES = (
    ("/", "home.index", "GET"),
    ("/courses/<slug>", "courses.course", "GET"),
    ("/courses/<slug>/lessons/<int:lesson>", "courses.lesson", "GET"),
    ("/courses/<slug>/tasks/<int:task>/done", "courses.task_done", "POST"),
    ("/quizzes/<int:quiz>", "quizzes.quiz", "GET"),
    ("/quizzes/<int:quiz>/submit", "quizzes.submit", "POST"),
    ("/teacher/", "dashboard.overview", "GET"),
    ("/profile", "account.profile", "GET"),
)
# The lengths have no common factor,
# so that a template recurs with a duration after a million events.
_TEMPLATES = 997
_DURATIONS = 1009

Event = tuple[str, str, dict[str, Any]]


def events(seed: int) -> Iterator[Event]:
    """Yield type, user and properties without end, the same for the same seed.

    The dict of properties is reused for later events. An event takes about 0.3 us to make.
    """
    chosen = random.Random(seed)
    templates = [_template(chosen) for _ in range(_TEMPLATES)]
    durations = [round(chosen.lognormvariate(2, 1), 3) for _ in range(_DURATIONS)]
    of_this_process = f"{chosen.getrandbits(96):024x}"
    for number in count():
        event = templates[number % _TEMPLATES]
        props = event[2]
        props["request_id"] = f"{number:08x}{of_this_process}"
        if "duration_ms" in props:
            props["duration_ms"] = durations[number % _DURATIONS]
        yield event


def _template(chosen: random.Random) -> Event:
    user = str(chosen.randrange(USERS))
    lesson = chosen.randrange(LESSONS)
    match chosen.choices(("page_view", "task_completed", "quiz_submitted"), (85, 10, 5))[0]:
        case "task_completed":
            props = {"request_id": "", "task": lesson, "course": f"course-{lesson // 20}"}
            return "task_completed", user, props
        case "quiz_submitted":
            score = round(chosen.random(), 2)
            return "quiz_submitted", user, {"request_id": "", "quiz": lesson, "score": score}
    route, endpoint, method = chosen.choice(_ROUTES)
    status = chosen.choices((200, 302, 404, 500), (90, 7, 2, 1))[0]
    return (
        "page_view",
        user,
        {
            "route": route,
            "endpoint": endpoint,
            "method": method,
            "status": status,
            "duration_ms": 0.0,
            "request_id": "",
        },
    )
