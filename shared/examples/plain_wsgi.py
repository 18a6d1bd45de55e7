"""A WSGI application without a framework: `gunicorn plain_wsgi:application`."""

import logging
import os

from logd_client import Client
from logd_client.logging_handler import LogdHandler
from logd_client.wsgi import LogdMiddleware

# Takes nothing yet: each worker that a server forks has an outbox from its first event on.
client = Client(os.environ.get("LOGD_SOCKET", "/run/logd/logd.sock"))
log = logging.getLogger("school")
log.addHandler(LogdHandler(client))


def who(environ):
    return environ.get("HTTP_X_USER")  # of the proxy that asks for passwords


def school(environ, start_response):
    lesson = environ["PATH_INFO"].removeprefix("/lessons/")
    if not lesson.isdecimal():
        start_response("404 Not Found", [])
        return [b""]
    client.emit("lesson_opened", user=who(environ), props={"lesson": int(lesson)})
    log.warning("lesson %s is long", lesson, extra={"logd_user": who(environ)})
    text = f"lesson {lesson}".encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return iter([text])


application = LogdMiddleware(school, client, user=who, exclude=["/static/*"])
