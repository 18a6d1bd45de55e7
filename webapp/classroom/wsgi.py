"""For WSGI servers: `gunicorn --preload "webapp.classroom.wsgi:application()"`.

The same site as create_app's, but what keeps it from starting is said in one sentence, where the
server would print a traceback. Preloaded, it is said once and not by each worker; the app may be
forked, since before its first request it holds neither its database nor its log open.
"""

from __future__ import annotations

import sys

import click
from flask import Flask

from webapp.classroom.factory import create_app

# gunicorn's own word for "the app cannot be loaded": it stops instead of starting workers for ever.
EXIT_APP_NOT_LOADED = 4


def application() -> Flask:
    """The app, or the end of the process."""
    try:
        return create_app()
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_APP_NOT_LOADED)
