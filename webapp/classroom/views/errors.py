"""Error pages in the site's layout. They show neither a traceback nor the request's data."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from webapp.classroom.views import kept_answers


@dataclass(frozen=True)
class ErrorText:
    title: str
    advice: str


TEXTS = {
    400: ErrorText(
        "The request could not be understood",
        "Something in the address or the form is not as expected. Go back and try again.",
    ),
    403: ErrorText(
        "This page is not for your account",
        "You are logged in, but your role does not include this page.",
    ),
    404: ErrorText(
        "Page not found",
        "The address may be mistyped, or the page may have been removed.",
    ),
    405: ErrorText(
        "That is not possible here",
        "The page exists, but not for this kind of request. Open it from a link instead.",
    ),
    413: ErrorText(
        "The form is too large",
        "The site does not accept a form of this size. Shorten your answers and send it again.",
    ),
    429: ErrorText(
        "Too many attempts",
        "Wait a minute, then try again.",
    ),
    500: ErrorText(
        "Something went wrong on the server",
        "The error was logged with its time and page. Your saved work is safe; please try again.",
    ),
}

CSRF_TEXT = ErrorText(
    "This form was open for too long",
    "For your safety a form is valid for one login only, and that login has ended."
    " Nothing was saved. Go back, reload the page and send the form again.",
)


def init_app(app: Flask) -> None:
    app.register_error_handler(CSRFError, _csrf_failed)
    app.register_error_handler(HTTPException, _http_error)
    # This handler is called for an unhandled exception, after Flask has logged it.
    app.register_error_handler(500, _server_error)


def _csrf_failed(_error: CSRFError) -> ResponseReturnValue:
    recovered = kept_answers.recover()
    if recovered is not None:
        return recovered
    return render_template("error.html", code=400, text=CSRF_TEXT), 400


def _server_error(_error: HTTPException) -> tuple[str, int]:
    # render_template would load the account from the database, which may be what has failed.
    template = current_app.jinja_env.get_template("error.html")
    again = kept_answers.fields_to_send_again()
    return template.render(code=500, text=TEXTS[500], again=again), 500


def _http_error(error: HTTPException) -> tuple[str, int, list[tuple[str, str]]]:
    code = error.code or 500
    text = TEXTS.get(code) or ErrorText(error.name, "Go back and try again.")
    # Headers such as Retry-After and Allow are kept, but not those of werkzeug's own body.
    kept = [
        (name, value)
        for name, value in error.get_headers(request.environ)
        if name.lower() not in {"content-type", "content-length"}
    ]
    return render_template("error.html", code=code, text=text), code, kept
