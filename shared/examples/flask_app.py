"""A Flask application: `flask --app flask_app run`, or `gunicorn flask_app:application`."""

import logging
import os

from flask import Flask, request

from flask_logd import ActivityLog
from logd_client import Client
from logd_client.logging_handler import LogdHandler

SOCKET = os.environ.get("LOGD_SOCKET", "/run/logd/logd.sock")

application = Flask(__name__)
application.config.update(
    ACTIVITY_LOG_SOCKET=SOCKET,
    ACTIVITY_LOG_USER=lambda: request.headers.get("X-User"),  # not needed with Flask-Login
    ACTIVITY_LOG_VIEW_ARGS="all",  # which lesson, not only that one was read
)
activity = ActivityLog(application)  # logs the requests
log = logging.getLogger("school")
log.addHandler(LogdHandler(Client(SOCKET)))


@application.get("/lessons/<int:lesson>")
def open_lesson(lesson):
    activity.log("lesson_opened", lesson=lesson)
    log.warning("lesson %d is long", lesson, extra={"logd_user": request.headers.get("X-User")})
    return f"lesson {lesson}"
