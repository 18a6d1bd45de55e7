"""A FastAPI application: `uvicorn fastapi_app:application --workers 4`."""

import logging
import os

from fastapi import FastAPI, Request

from logd_client import Client
from logd_client.asgi import LogdMiddleware
from logd_client.logging_handler import LogdHandler

client = Client(os.environ.get("LOGD_SOCKET", "/run/logd/logd.sock"))
log = logging.getLogger("school")
log.addHandler(LogdHandler(client))
application = FastAPI()


def page(scope):
    return scope["route"].path if "route" in scope else None  # the pattern, "/lessons/{lesson}"


application.add_middleware(
    LogdMiddleware, client=client, user=lambda scope: scope.get("school.user"), route=page
)


@application.get("/lessons/{lesson}")
async def open_lesson(lesson: int, request: Request) -> str:
    user = request.scope["school.user"] = request.headers.get("X-User")
    client.emit("lesson_opened", user=user, props={"lesson": lesson})  # does not wait: no `await`
    log.warning("lesson %d is long", lesson, extra={"logd_user": user})
    return f"lesson {lesson}"
