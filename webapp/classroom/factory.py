"""The application factory. Comments mark the steps whose order matters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from flask import Flask, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from werkzeug.middleware.proxy_fix import ProxyFix

from logd_wire.paths import PathTooLong, check_socket_path
from webapp.classroom import security
from webapp.classroom.config import settings
from webapp.classroom.extensions import activity, csrf, login_manager
from webapp.classroom.model.accounts import Role
from webapp.classroom.present import filters
from webapp.classroom.store.db import Database
from webapp.classroom.store.instance import Instance, read_secret
from webapp.classroom.views import (
    access,
    auditor,
    auth,
    courses,
    data_requests,
    drafts,
    errors,
    evidence,
    explorer,
    kept_answers,
    live,
    my_data,
    overview,
    quizzes,
    teacher,
)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Creates the site; `config` overrides the environment.

    Raises a ClickException with a message of one line if the instance directory cannot be used.
    """
    app = Flask("webapp.classroom")
    app.config.from_mapping(settings(os.environ, config or {}))
    _check_sockets(app)

    instance = Instance(Path(app.config["CLASSROOM_DIR"]).absolute())
    with instance.prepared():
        app.config["SECRET_KEY"] = app.config["SECRET_KEY"] or read_secret(instance.secret_key)
        db = Database(instance)
        db.migrate()
        # A server may load the app and then fork its workers, which must inherit no connection.
        db.close()
    db.init_app(app)

    if proxies := app.config["CLASSROOM_PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign] # as Flask documents
    security.init_app(app)
    csrf.init_app(app)
    login_manager.init_app(app)
    login_manager.login_view = "auth.login"
    login_manager.login_message = "Log in to see this page."
    # "strong" would end a session whose address or browser version changes, as a phone's does. A
    # stolen cookie is prevented by other means: see SESSION_COOKIE_* in config.py.
    login_manager.session_protection = "basic"
    kept_answers.init_app(app)
    # The extension is initialised after Flask-Login, which finds the user of a page view.
    activity.init_app(app)
    errors.init_app(app)
    filters.init_app(app)
    app.context_processor(_template_variables)

    for module in (
        auth,
        courses,
        quizzes,
        drafts,
        teacher,
        auditor,
        explorer,
        evidence,
        overview,
        live,
        my_data,
        data_requests,
    ):
        app.register_blueprint(module.blueprint)
    app.add_url_rule("/", "home", _home)
    return app


def _home() -> ResponseReturnValue:
    if not current_user.is_authenticated:
        return redirect(url_for("auth.login"))
    return redirect(access.home_of(access.current_account()))


def _template_variables() -> dict[str, Any]:
    return {"Role": Role}


def _check_sockets(app: Flask) -> None:
    for name in ("ACTIVITY_LOG_SOCKET", "ACTIVITY_QUERY_SOCKET"):
        try:
            check_socket_path(app.config[name])
        except PathTooLong as error:
            raise click.ClickException(f"{name}: {error}") from error
