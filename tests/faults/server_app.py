"""A Flask app that has each worker of a web server log the same number of events at once.

LOGD_SOCKET is the daemon's socket, WORKERS how many workers there are, EVENTS how many events each
of them logs when it is asked, and MEETING a directory where workers wait for one another. One event
is logged when the app is loaded: by the process that forks the workers, if the server has one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask, jsonify

from flask_logd import ActivityLog
from tests.support.instance import until


def create_app() -> Flask:
    """The app; `/events` is to be asked by as many at once as there are workers."""
    app = Flask(__name__)
    app.config.update(
        ACTIVITY_LOG_SOCKET=os.environ["LOGD_SOCKET"],
        ACTIVITY_LOG_EXCLUDE=["events"],
        ACTIVITY_LOG_USER=lambda: None,
    )
    activity = ActivityLog(app)
    meeting = Path(os.environ["MEETING"])

    @app.get("/events")
    def events() -> Any:
        worker = f"worker-{os.getpid()}"
        (meeting / worker).touch()
        # A worker that waits takes no second request, so each of them has one.
        everyone = int(os.environ["WORKERS"])
        until(lambda: len(list(meeting.glob("worker-*"))) == everyone, "all workers are asked")
        numbers = range(int(os.environ["EVENTS"]))
        refused = [
            n for n in numbers if not activity.log("question_answered", user=worker, number=n)
        ]
        flushed = activity.client().flush(30)
        return jsonify(worker=worker, refused=refused, flushed=flushed, stats=activity.stats())

    with app.app_context():
        accepted = activity.log("site_started", user="boot", number=0)
    with open(meeting / "boots", "ab", buffering=0) as boots:
        boots.write(b"=" if accepted else b"-")
    return app
