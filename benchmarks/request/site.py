"""The site of `make bench-request`: one page that logs one event and reports the time it took."""

from __future__ import annotations

import time
from pathlib import Path

from flask import Flask, Response, request

from benchmarks.request.ledger import Ledger
from benchmarks.request.ways import QUIZ_EVERY, WAYS

CALL_HEADER = "X-Call-Ns"
EVENT_HEADER = "X-Event"
PAGE = "/lesson/12"


def create_app(name: str, directory: str) -> Flask:
    """Make the site in a web process, after the fork. The way `name` logs in `directory`.

    Raises ValueError for an unknown way.
    """
    if name not in WAYS:
        raise ValueError(f"unknown way of logging {name!r}; there are {', '.join(WAYS)}")
    app = Flask("benchmark")
    logger = WAYS[name].make(app, Path(directory))
    ledger = Ledger(Path(directory))
    log, clock_ns = logger.log, time.perf_counter_ns

    @app.get("/lesson/<int:lesson>")
    def page(lesson: int) -> Response:
        event = request.headers[EVENT_HEADER]
        quiz = is_quiz(event)
        at = ledger.record_call(event)
        start_ns = clock_ns()
        accepted = log(event, quiz)
        took_ns = clock_ns() - start_ns
        ledger.record_answer(at, accepted)
        response = Response(f"<!doctype html><title>Lesson {lesson}</title><p>Read this.")
        response.headers[CALL_HEADER] = str(took_ns)
        return response

    return app


def is_quiz(event: str) -> bool:
    """Whether this event's page counts as a quiz: the last of every QUIZ_EVERY of a connection."""
    return int(event.rpartition("-")[2]) % QUIZ_EVERY == QUIZ_EVERY - 1
