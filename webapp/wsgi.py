"""For WSGI servers: `gunicorn "webapp.wsgi:application()"`.

The same app as create_app's, but what keeps it from starting is said in one sentence. gunicorn
would print the traceback of the exception, once for each worker.
"""

from __future__ import annotations

import sys

import click
from flask import Flask

from webapp.factory import create_app

# gunicorn's own word for "the app cannot be loaded": it stops instead of starting workers for ever.
EXIT_APP_NOT_LOADED = 4


def application() -> Flask:
    """The app, or the end of the process."""
    try:
        return create_app()
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_APP_NOT_LOADED)
