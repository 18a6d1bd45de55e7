"""The site's settings, from the environment and from the mapping given to create_app.

The site knows where logd's sockets are and nothing else of it: logd's key lies in the same
directory in a development set-up, and no code here ever names that file.
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
# A quiz form is a few hundred bytes; nothing is uploaded.
REQUEST_BYTES_MAX = 64 * 1024

QUIZ_UNCONFIRMED = (
    "Your result is kept. Its entry in the school's record is not"
    " confirmed yet, which can happen when the record is busy. There is nothing you need to do."
)


def settings(environ: Mapping[str, str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of one app: defaults, then the environment, then what the caller overrides."""
    logd = Path(environ.get("LOGD_DIR", LOGD_DIRECTORY)).absolute()
    defaults: dict[str, Any] = {
        "CLASSROOM_DIR": environ.get("CLASSROOM_DIR", INSTANCE_DIRECTORY),
        "CLASSROOM_PROXIES": proxies_in_front(environ.get("CLASSROOM_PROXIES", "0")),
        "ACTIVITY_LOG_SOCKET": environ.get("ACTIVITY_LOG_SOCKET", str(logd / "logd.sock")),
        # A quiz counts: its page waits until it is in the record, or says that it may not be yet.
        "ACTIVITY_LOG_DURABLE": ("quiz_submitted",),
        "ACTIVITY_LOG_DURABLE_TIMEOUT_S": 2.0,
        "ACTIVITY_LOG_DURABLE_UNKNOWN": "tell_user",
        "ACTIVITY_LOG_DURABLE_MESSAGE": QUIZ_UNCONFIRMED,
        "ACTIVITY_QUERY_SOCKET": environ.get("ACTIVITY_QUERY_SOCKET", str(logd / "query.sock")),
        "ACTIVITY_QUERY_TIMEOUT_S": 2.0,
        # A cookie that travels over plain HTTP is a session given away, so leaving that open takes
        # a deliberate word, meant for http://127.0.0.1 during development.
        "SESSION_COOKIE_SECURE": environ.get("CLASSROOM_INSECURE_HTTP") != "1",
        "SESSION_COOKIE_NAME": "classroom",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "PERMANENT_SESSION_LIFETIME": timedelta(hours=SESSION_HOURS),
        "MAX_CONTENT_LENGTH": REQUEST_BYTES_MAX,
        "MAX_FORM_MEMORY_SIZE": REQUEST_BYTES_MAX,
        # The token lives as long as the session: a form left open over lunch still sends.
        "WTF_CSRF_TIME_LIMIT": None,
        "PASSWORD_METHOD": "scrypt",
        "LOGIN_LIMIT_ACCOUNT": "5 per 5 minutes",
        "LOGIN_LIMIT_ADDRESS": "30 per 15 minutes",
    }
    return defaults | dict(overrides)


def proxies_in_front(text: str) -> int:
    """How many reverse proxies set X-Forwarded-For before the request reaches the site."""
    if not (text.isascii() and text.isdigit()):
        raise click.ClickException(
            f"CLASSROOM_PROXIES is {text!r}; it is the number of reverse proxies in front of the "
            "site, 0 for none."
        )
    return int(text)
