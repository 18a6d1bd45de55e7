"""The login and logout pages."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Response,
    current_app,
    flash,
    g,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_user, logout_user

from flask_logd import keyed_digest
from webapp.classroom.extensions import activity
from webapp.classroom.model.accounts import (
    User,
    check_password,
    find_login,
    normal_text,
)
from webapp.classroom.model.throttle import LoginThrottle
from webapp.classroom.store.db import get_db
from webapp.classroom.views import kept_answers
from webapp.classroom.views.access import current_account, home_of
from webapp.classroom.views.forms import LoginForm

blueprint = Blueprint("auth", __name__)


@blueprint.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    kept = kept_answers.from_request()
    if current_user.is_authenticated:
        return kept_answers.restore(kept) if kept else redirect(home_of(current_account()))
    form = LoginForm()
    if not form.validate_on_submit():
        return kept_answers.login_page(kept, form)

    db = get_db()
    # The same spelling for the throttle and the look-up.
    typed = normal_text(cast(str, form.login.data).strip())
    address = request.remote_addr or "unknown"
    throttle = LoginThrottle.build(
        db, current_app.config["LOGIN_LIMIT_ACCOUNT"], current_app.config["LOGIN_LIMIT_ADDRESS"]
    )
    user = find_login(db, typed)
    if wait_s := throttle.take(typed, address):
        if throttle.is_news(typed, address):
            _log_attempt("login_throttled", user, address)
        return _too_many(wait_s, kept)

    right = check_password(
        db, user, cast(str, form.password.data), current_app.config["PASSWORD_METHOD"]
    )
    if user is None or not right:
        throttle.failed(address)
        _log_attempt("login_failed", user, address)
        # The message is the same in both cases, so that it does not disclose which logins exist.
        form.password.errors = ["The login name or the password is wrong."]
        return kept_answers.login_page(kept, form)

    throttle.succeeded(typed, address)
    # Against session fixation: nothing set before the login may remain in the session.
    _clear_session()
    login_user(user)
    # The session is not permanent, since pupils share computers: the cookie ends
    # with the browser, and its signature after PERMANENT_SESSION_LIFETIME.
    activity.log("login", user=user.key)
    if kept:
        return kept_answers.restore(kept)
    return redirect(safe_next(request.args.get("next")) or home_of(user))


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    if current_user.is_authenticated:
        activity.log("logout", user=current_account().key)
        logout_user()
    _clear_session()
    if kept := kept_answers.from_request():
        return kept_answers.login_page(kept)
    flash("You are logged out.")
    return redirect(url_for("auth.login"))


def _clear_session() -> None:
    session.clear()
    g.pop("csrf_token", None)  # Flask-WTF keeps the session's token for the rest of the request


def _log_attempt(event_type: str, user: User | None, address: str) -> None:
    """Logs a login attempt with the account's id and a digest of the address.

    The typed text is never logged, since it may be a password in the wrong field. Nor is the
    address itself, which the trail would keep for ever: the digest shows which attempts came from
    the same address.
    """
    digest = keyed_digest(current_app.config["SECRET_KEY"], address)
    activity.log(event_type, user=None if user is None else user.key, address_digest=digest)


def _too_many(wait_s: int, kept: kept_answers.KeptAnswers | None) -> Response:
    response = make_response(render_template("too_many.html", wait_s=wait_s, kept=kept), 429)
    response.headers["Retry-After"] = str(wait_s)
    return response


def safe_next(target: str | None) -> str | None:
    """Returns the page to open after the login if it is a page of this site, otherwise None.

    Browsers read `\\` as `/` and skip control characters, so that `/\\evil.example` is another host
    to them, though a path to urlsplit.
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return None
    if "\\" in target or any(ord(character) < 0x20 for character in target):
        return None
    parts = urlsplit(target)
    return target if not parts.scheme and not parts.netloc else None
