"""The site of `benchmarks.request`: one page that logs one event and says how long that took."""

from __future__ import annotations

import time
from pathlib import Path

from flask import Flask, Response, jsonify

from benchmarks import modes

CALL_HEADER = "X-Call-Ns"
PAGE = "/lesson/12"
FINISH = "/finish"

NAMES = (
    "none",
    "sync-delete",
    "sync-wal",
    "sync-wal-open",
    "queue",
    "queue-kept",
    "logd",
    "logd-durable",
)


def make_mode(app: Flask, name: str, directory: Path) -> modes.Mode:
    """The way of logging called `name`, with its files in `directory`."""
    match name:
        case "none":
            return modes.Nothing()
        case "sync-delete":
            return modes.Synchronous(directory, modes.DELETE_FULL)
        case "sync-wal":
            return modes.Synchronous(directory, modes.WAL_NORMAL)
        case "sync-wal-open":
            return modes.Synchronous(directory, modes.WAL_NORMAL, open_elsewhere=True)
        case "queue":
            return modes.InProcessQueue(directory, keep_connection=False)
        case "queue-kept":
            return modes.InProcessQueue(directory, keep_connection=True)
        case "logd":
            return modes.Logd(app, directory / "logd.sock", durable=False)
        case "logd-durable":
            return modes.Logd(app, directory / "logd.sock", durable=True)
    raise ValueError(f"{name!r} is no way of logging; there are {', '.join(NAMES)}")


def create_app(name: str, directory: str) -> Flask:
    """The site, as gunicorn makes it: in the worker, after the fork."""
    app = Flask("benchmark")
    mode = make_mode(app, name, Path(directory))
    log, clock_ns = mode.log, time.perf_counter_ns

    @app.get("/lesson/<int:lesson>")
    def page(lesson: int) -> Response:
        start_ns = clock_ns()
        log()
        took_ns = clock_ns() - start_ns
        response = Response(f"<!doctype html><title>Lesson {lesson}</title><p>Read this.")
        response.headers[CALL_HEADER] = str(took_ns)
        return response

    @app.post(FINISH)
    def finish() -> Response:
        return jsonify(mode.finish())

    return app
