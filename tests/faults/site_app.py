"""A small Flask app for gunicorn: each answer says how many events of its request were accepted.

LOGD_SOCKET is the daemon's socket, BOOT_COUNTS a file: what is logged when the app is loaded (by
the master before it forks, with `--preload`) has no answer to stand in, so it is counted there,
`+` before the call and `=` or `-` behind it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, request

from flask_logd import ActivityLog
from logd_client import Client

OUTBOX_BYTES = 128 * 1024

_of_request = threading.local()


class CountingClient(Client):
    """Counts accepted and refused events of this thread's present request."""

    def emit(self, *args: Any, **options: Any) -> bool:
        accepted = super().emit(*args, **options)
        counts = _of_request.__dict__
        name = "accepted" if accepted else "refused"
        counts[name] = counts.get(name, 0) + 1
        return accepted


class Counted:
    """WSGI middleware: adds the counts as headers, after the page view has been logged."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        _of_request.__dict__.update(accepted=0, refused=0)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            counts = _of_request.__dict__
            told = [(f"X-{name}", str(counts[name])) for name in ("accepted", "refused")]
            return start_response(status, [*headers, *told], *error)

        return self._app(environ, start)


def create_app() -> Flask:
    """A page that logs one event besides its page view."""
    app = Flask(__name__)
    app.config.update(
        ACTIVITY_LOG_SOCKET=os.environ["LOGD_SOCKET"],
        ACTIVITY_LOG_OUTBOX_BYTES=OUTBOX_BYTES,
        ACTIVITY_LOG_USER=lambda: "web",
        ACTIVITY_LOG_CLIENT=CountingClient,
    )
    activity = ActivityLog(app)

    @app.get("/task")
    def task() -> str:
        activity.log("task_completed", task=request.args["number"])
        return "done"

    with open(os.environ["BOOT_COUNTS"], "ab", buffering=0) as counts, app.app_context():
        counts.write(b"+")
        counts.write(b"=" if activity.log("site_started", user="boot") else b"-")
    app.wsgi_app = Counted(app.wsgi_app)  # type: ignore[method-assign] # as Flask's docs have it
    return app
