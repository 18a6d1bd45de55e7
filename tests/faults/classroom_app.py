"""The Classroom as gunicorn serves it, whose workers leave their clients' counts when they end.

COUNTS is the file that each worker appends a line to.
"""

from __future__ import annotations

import atexit
import json
import os

from flask import Flask

from logd_client import Client
from webapp.classroom.factory import create_app

_clients: list[Client] = []


def _client(*args: object, **options: object) -> Client:
    client = Client(*args, **options)  # type: ignore[arg-type] # as the extension gives them
    _clients.append(client)
    return client


@atexit.register
def _leave_counts() -> None:
    # It runs before the client's own handler, so it closes the client itself.
    for client in _clients:
        client.close()
        with open(os.environ["COUNTS"], "ab", buffering=0) as counts:
            counts.write(json.dumps(client.stats()).encode() + b"\n")


def application() -> Flask:
    """Returns the app; the rest of its settings is the site's own."""
    return create_app({"ACTIVITY_LOG_CLIENT": _client})
