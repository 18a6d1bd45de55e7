"""Error pages in the site's own look. None of them shows a traceback or what was sent."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException


@dataclass(frozen=True)
class ErrorText:
    title: str
    advice: str


TEXTS = {
    400: ErrorText(
        "That request could not be understood",
        "Something in the address or the form is not as expected. Go back and try again.",
    ),
    403: ErrorText(
        "This page is not for your account",
        "You are logged in, but your role does not include this page.",
    ),
    404: ErrorText(
        "There is no such page",
        "The address may be mistyped, or the page may have been removed.",
    ),
    405: ErrorText(
        "That is not possible here",
        "The page exists, but not for this kind of request. Open it from a link instead.",
    ),
    413: ErrorText(
        "That was too much at once",
        "The form you sent is larger than the site accepts. Shorten your answers and send again.",
    ),
    429: ErrorText(
        "Too many attempts",
        "Wait a little, then try again.",
    ),
    500: ErrorText(
        "Something went wrong on our side",
        "It has been noted with the time and the page. Your earlier work is safe; try again.",
    ),
}

CSRF_TEXT = ErrorText(
    "This form was open for too long",
    "For your safety a form is tied to your login, and that login is over or another one has begun."
    " Nothing was saved. Go back, reload the page and send the form again.",
)


def init_app(app: Flask) -> None:
    app.register_error_handler(CSRFError, _csrf_failed)
    app.register_error_handler(HTTPException, _http_error)
    # Reached by an unhandled exception: Flask logs it first, then asks for the 500 page.
    app.register_error_handler(500, _server_error)


def _csrf_failed(_error: CSRFError) -> tuple[str, int]:
    return render_template("error.html", code=400, text=CSRF_TEXT), 400


def _server_error(_error: HTTPException) -> tuple[str, int]:
    # Not render_template: it would load the account from the database, and that may be what fails.
    template = current_app.jinja_env.get_template("error.html")
    return template.render(code=500, text=TEXTS[500]), 500


def _http_error(error: HTTPException) -> tuple[str, int, list[tuple[str, str]]]:
    code = error.code or 500
    text = TEXTS.get(code) or ErrorText(error.name, "Go back and try again.")
    # Retry-After, Allow and the like stay; the body's own headers go with werkzeug's body.
    kept = [
        (name, value)
        for name, value in error.get_headers(request.environ)
        if name.lower() not in {"content-type", "content-length"}
    ]
    return render_template("error.html", code=code, text=text), code, kept
