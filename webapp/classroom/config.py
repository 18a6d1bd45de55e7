"""The site's settings, from the environment and from the mapping given to create_app.

Of logd the site knows only the paths of its sockets. In development logd's key is in the same
directory; no code of the site names that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

INSTANCE_DIRECTORY = "var/classroom"
LOGD_DIRECTORY = "var/logd"

SESSION_HOURS = 8
# A quiz form has a few hundred bytes, and there are no uploads.
REQUEST_BYTES_MAX = 64 * 1024

# The message about an unconfirmed event, of a quiz or a task.
QUIZ_UNCONFIRMED = (
    "Your work is saved. Its entry in the school's activity log is not confirmed yet,"
    " which can happen when the log is busy. You do not need to do anything."
)


def settings(environ: Mapping[str, str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of one app: defaults, overridden by the environment, then the caller."""
    logd = Path(environ.get("LOGD_DIR", LOGD_DIRECTORY)).absolute()
    defaults: dict[str, Any] = {
        "CLASSROOM_DIR": environ.get("CLASSROOM_DIR", INSTANCE_DIRECTORY),
        "CLASSROOM_PROXIES": proxies_in_front(environ.get("CLASSROOM_PROXIES", "0")),
        "ACTIVITY_LOG_SOCKET": environ.get("ACTIVITY_LOG_SOCKET", str(logd / "logd.sock")),
        # The arguments of the page's address are logged, since they name the lesson that was read.
        "ACTIVITY_LOG_VIEW_ARGS": "all",
        "ACTIVITY_LOG_FILTER": without_polls,
        # A script saves drafts every few seconds, which is no act of a person.
        "ACTIVITY_LOG_EXCLUDE": ("static", "*.static", "drafts.autosave"),
        # The page after a quiz or a task waits until the event is stored, or says that it may not
        # be. Both are what a pupil has done, and take place a few times an hour.
        "ACTIVITY_LOG_DURABLE": ("quiz_submitted", "task_completed"),
        "ACTIVITY_LOG_DURABLE_TIMEOUT_S": 2.0,
        # Half of gunicorn's threads: the other half serves pages while logd hangs.
        "ACTIVITY_LOG_DURABLE_WAITERS": 2,
        "ACTIVITY_LOG_DURABLE_UNKNOWN": "tell_user",
        "ACTIVITY_LOG_DURABLE_MESSAGE": QUIZ_UNCONFIRMED,
        "ACTIVITY_QUERY_SOCKET": environ.get("ACTIVITY_QUERY_SOCKET", str(logd / "query.sock")),
        "ACTIVITY_QUERY_TIMEOUT_S": 2.0,
        # A cookie sent over plain HTTP can be stolen, so that has to be allowed
        # by an explicit setting, meant for http://127.0.0.1 in development.
        "SESSION_COOKIE_SECURE": environ.get("CLASSROOM_INSECURE_HTTP") != "1",
        "SESSION_COOKIE_NAME": "classroom",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "PERMANENT_SESSION_LIFETIME": timedelta(hours=SESSION_HOURS),
        "MAX_CONTENT_LENGTH": REQUEST_BYTES_MAX,
        "MAX_FORM_MEMORY_SIZE": REQUEST_BYTES_MAX,
        # The token is valid as long as the session,
        # so that a form left open for hours can still be sent.
        "WTF_CSRF_TIME_LIMIT": None,
        "PASSWORD_METHOD": "scrypt",
        "LOGIN_LIMIT_ACCOUNT": "5 per 5 minutes",
        "LOGIN_LIMIT_ADDRESS": "30 per 15 minutes",
    }
    return defaults | dict(overrides)


def without_polls(
    event_type: str, _user: str | None, props: dict[str, Any]
) -> dict[str, Any] | None:
    """Drops the page views of the live view, which asks every 2 s; refused requests are kept.

    logd records each reading itself, and the live view would show its own requests without an end.
    """
    is_poll = event_type == "page_view" and props.get("endpoint") == "live.stream"
    return None if is_poll else props


def proxies_in_front(text: str) -> int:
    """Reads the number of reverse proxies that set X-Forwarded-For in front of the site."""
    if not (text.isascii() and text.isdigit()):
        raise click.ClickException(
            f"CLASSROOM_PROXIES is {text!r}, but must be the number of reverse proxies in front of "
            "the site (0 for none)."
        )
    return int(text)
