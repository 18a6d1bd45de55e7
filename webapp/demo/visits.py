"""An invented visit to the site, as the events that the live site would log."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

from logd_wire.requests import request_type
from webapp.demo.school import Person

NS = 1_000_000_000

# The pages of the site, by endpoint: URL rule and usual response time in milliseconds.
PAGES: dict[str, tuple[str, float]] = {
    "auth.login": ("/login", 95.0),
    "auth.logout": ("/logout", 3.0),
    "courses.index": ("/courses/", 6.0),
    "courses.course": ("/courses/<slug>", 6.5),
    "courses.lesson": ("/courses/<slug>/lessons/<lesson_slug>", 5.0),
    "courses.task": ("/courses/<slug>/tasks/<task_id>", 4.5),
    "courses.complete": ("/courses/<slug>/tasks/<task_id>/complete", 5.0),
    "quizzes.quiz": ("/courses/<slug>/quizzes/<quiz_id>", 6.0),
    "quizzes.submit": ("/courses/<slug>/quizzes/<quiz_id>", 7.0),
    "quizzes.result": ("/courses/<slug>/quizzes/<quiz_id>/attempts/<int:number>", 5.5),
    "quizzes.history": ("/results", 5.0),
    "teacher.dashboard": ("/teacher/", 48.0),
    "teacher.course": ("/teacher/courses/<slug>", 60.0),
    "teacher.timeline": ("/teacher/students/<int:user_id>", 14.0),
    "auditor.overview": ("/audit/", 9.0),
    "auditor.events": ("/audit/events", 15.0),
    "auditor.losses": ("/audit/losses", 8.0),
}

Event = tuple[str, str | None, int, dict[str, Any]]


class PresentReached(Exception):
    """The visit has reached the end of the history."""


class Visit:
    """One person's visit, from login to leaving; appends the events that the site would log."""

    def __init__(
        self, person: Person, start: datetime, now_ns: int, events: list[Event], rng: random.Random
    ) -> None:
        self.key = str(person.id)
        self.clock_ns = int(start.timestamp()) * NS + rng.randrange(NS)
        self._now_ns = now_ns
        self._events = events
        self._rng = rng

    def wait(self, seconds: float) -> None:
        """Advances the clock by about `seconds`, as a person reads and types."""
        self.clock_ns += int(self._rng.lognormvariate(0, 0.6) * seconds * NS)

    def request(
        self,
        endpoint: str,
        method: str = "GET",
        status: int = 200,
        event: tuple[str, dict[str, Any]] | None = None,
        view_args: dict[str, Any] | None = None,
    ) -> int:
        """Appends the event of one request, after the event that its view logs, if any.

        `view_args` are the arguments of the page's address. Returns the time of the request's end.
        """
        at_ns = self.clock_ns
        if at_ns >= self._now_ns:
            raise PresentReached
        rule, usual_ms = PAGES[endpoint]
        duration_ms = usual_ms * self._rng.lognormvariate(0, 0.3)
        shared_id = request_id(self._rng)
        end_ns = at_ns + int(duration_ms * 1e6)
        if event is not None:
            event_type, props = event
            self._events.append(
                (event_type, self.key, end_ns - 200_000, {"request_id": shared_id, **props})
            )
        props = {
            "route": rule,
            "endpoint": endpoint,
            "method": method,
            "status": status,
            "duration_ms": duration_ms,
            "request_id": shared_id,
        }
        if view_args:
            props["view_args"] = view_args
        self._events.append((request_type(method, status), self.key, end_ns, props))
        self.clock_ns = end_ns
        return end_ns

    def log_in(self) -> None:
        if self._rng.random() < 0.05:
            if self.clock_ns >= self._now_ns:
                raise PresentReached
            self._events.append(failed_login(self.key, self.clock_ns, self._rng))
            self.wait(8)
        self.request("auth.login", "POST", 302, ("login", {}))

    def log_out(self) -> None:
        self.wait(10)
        self.request("auth.logout", "POST", 302, ("logout", {}))


def failed_login(user: str | None, at_ns: int, rng: random.Random) -> Event:
    """Returns the event of a refused login; its request has none, since nobody is logged in."""
    props = {"request_id": request_id(rng), "address_digest": request_id(rng)}
    return ("login_failed", user, at_ns, props)


def request_id(rng: random.Random) -> str:
    return f"{rng.getrandbits(128):032x}"
