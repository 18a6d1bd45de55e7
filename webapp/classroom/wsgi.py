"""Creates the app for WSGI servers: `gunicorn --preload "webapp.classroom.wsgi:application()"`.

A failure to start is a message of one line and an exit code in place of a traceback; with
`--preload` it is printed once and not by each worker. The app may be forked after loading: until
its first request it has opened neither its database nor its log.
"""

from __future__ import annotations

import sys

import click
from flask import Flask

from webapp.classroom.factory import create_app

# gunicorn's own exit code for an app that cannot be loaded: it then stops starting workers.
EXIT_APP_NOT_LOADED = 4


def application() -> Flask:
    """Returns the app, or ends the process with a message."""
    try:
        return create_app()
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_APP_NOT_LOADED)
