"""A Django project in one file: `waitress-serve django_app:application`."""

import logging
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from logd_client import Client
from logd_client.wsgi import LogdMiddleware

client = Client(os.environ.get("LOGD_SOCKET", "/run/logd/logd.sock"))
handlers = {"logd": {"class": "logd_client.logging_handler.LogdHandler", "client": client}}
logs = {"version": 1, "handlers": handlers, "loggers": {"school": {"handlers": ["logd"]}}}
common = ["django.middleware.common.CommonMiddleware"]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING=logs, MIDDLEWARE=common)
log = logging.getLogger("school")


def open_lesson(request, lesson):
    # With django.contrib.auth, a middleware of Django's sets it: str(request.user.pk).
    user = request.META["logd.user"] = request.headers.get("X-User")
    client.emit("lesson_opened", user=user, props={"lesson": lesson})
    log.warning("lesson %d is long", lesson, extra={"logd_user": user})
    return HttpResponse(f"lesson {lesson}")


urlpatterns = [path("lessons/<int:lesson>", open_lesson)]
# Django's environ is the `request.META` of its views.
application = LogdMiddleware(get_wsgi_application(), client, user=lambda e: e.get("logd.user"))
