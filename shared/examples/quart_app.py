"""A Quart application: `hypercorn quart_app:application --workers 4`."""

import logging
import os

from quart import Quart, request

from logd_client import Client
from logd_client.asgi import LogdMiddleware
from logd_client.logging_handler import LogdHandler

client = Client(os.environ.get("LOGD_SOCKET", "/run/logd/logd.sock"))
log = logging.getLogger("school")
log.addHandler(LogdHandler(client))
application = Quart(__name__)


@application.get("/lessons/<int:lesson>")
async def open_lesson(lesson):
    user = request.scope["school.user"] = request.headers.get("X-User")
    client.emit("lesson_opened", user=user, props={"lesson": lesson})  # does not wait: no `await`
    log.warning("lesson %d is long", lesson, extra={"logd_user": user})
    return f"lesson {lesson}"


application.asgi_app = LogdMiddleware(
    application.asgi_app, client, user=lambda scope: scope.get("school.user")
)
