"""Keeps the answers of a quiz's form that arrives without a valid session.

The session may have expired, been ended in another tab, or its cookie be gone. The answers cannot
be stored then, since nobody is known to have sent them. The page that answers the form has them as
hidden fields instead: first the login page, and after the login the form itself, filled in. A form
names its account by a signed token (quiz_form.py), and the answers are given to that account only.
If another person logs in, or the token is not valid, a page says so and lets the person choose.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_login.utils import login_url

from webapp.classroom.extensions import login_manager
from webapp.classroom.model import drafts
from webapp.classroom.model.accounts import Role, User, find_user
from webapp.classroom.model.content import Quiz
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account
from webapp.classroom.views.drafts import autosaved
from webapp.classroom.views.forms import LoginForm
from webapp.classroom.views.quiz_form import SentForm, find_quiz, form_page, new_token, read_form

UNAUTHORIZED, FORBIDDEN, CONFLICT = 401, 403, 409
# Pages whose forms may have a quiz's answers as hidden fields.
_CARRIERS = ("auth.login", "auth.logout")
_AUTOSAVE = "drafts.autosave"
_FIELDS, _ANSWER = ("number", "revision", "form"), re.compile(r"q\d{1,4}", re.ASCII)
_FORMS = ("quizzes.submit", "drafts.save", _AUTOSAVE)

LOGGED_OUT = (
    "Not saved: you are logged out. Your answers are still on this page. Press “Save and continue"
    " later”, and log in on the page that follows."
)
OTHER_ACCOUNT = (
    "Not saved: another account has logged in since this page was opened. Press “Save and continue"
    " later” to see what you can do."
)
TASK_NOT_MARKED = (
    "Your login had ended or changed, so that the task is not marked as done yet. Please press the"
    " button again."
)
RESTORED = "Your answers are here again, and saved. They are not handed in yet."


@dataclass(frozen=True)
class KeptAnswers:
    """The answers of one form, and the quiz that they belong to."""

    slug: str
    quiz: Quiz
    sent: SentForm

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The names and values of the hidden fields that carry the answers."""
        kept = drafts.keepable(self.quiz.questions, self.sent.answers)
        return [
            ("kept_course", self.slug),
            ("kept_quiz", self.quiz.id),
            *((name, request.form.get(name, "")[:200]) for name in _FIELDS),
            *((f"q{at}", text) for at, texts in kept.items() for text in texts),
        ]

    @property
    def typist(self) -> User | None:
        """The account that the form was made for, if that is known."""
        return None if self.sent.typist is None else find_user(get_db(), self.sent.typist)


def init_app(_app: Flask) -> None:
    login_manager.unauthorized_handler(_without_login)


def from_request() -> KeptAnswers | None:
    """Returns the answers that this request brings; None if it brings none.

    They are taken from pages of this site only: its form is shown filled in with them, without a
    token of the session to prove where they come from.
    """
    if request.method != "POST" or not _is_from_this_site():
        return None
    if request.endpoint in _FORMS:
        args = request.view_args or {}
        slug, quiz_id = args.get("slug", ""), args.get("quiz_id", "")
    elif request.endpoint in _CARRIERS:
        slug, quiz_id = request.form.get("kept_course", ""), request.form.get("kept_quiz", "")
    else:
        return None
    quiz = find_quiz(slug, quiz_id)
    return None if quiz is None else KeptAnswers(slug, quiz, read_form(quiz))


def fields_to_send_again() -> list[tuple[str, str]]:
    """Returns the fields of a quiz's form, without use of the database, which may have failed."""
    if request.method != "POST" or request.endpoint not in _FORMS or not _is_from_this_site():
        return []
    return [
        (name, text)
        for name in request.form
        if name in _FIELDS or _ANSWER.fullmatch(name)
        for text in request.form.getlist(name)
    ]


def login_page(kept: KeptAnswers | None, form: LoginForm | None = None) -> str:
    """Renders the login page, which keeps the answers if there are any."""
    return render_template("login.html", form=form or LoginForm(formdata=None), kept=kept)


def recover() -> ResponseReturnValue | None:
    """Answers a form of a quiz whose token is not of this session; None for any other request."""
    kept = from_request()
    if kept is None:
        return _recover_task()
    if not current_user.is_authenticated:
        return _ask_for_login(kept)
    if request.endpoint == _AUTOSAVE:
        if not _is_typist(kept):
            return {"text": OTHER_ACCOUNT}, FORBIDDEN
        return autosaved(kept.slug, kept.quiz.id)
    return restore(kept)


def restore(kept: KeptAnswers) -> ResponseReturnValue:
    """Gives the answers to the account that typed them, as its draft; asks if it is another."""
    if not _is_typist(kept):
        return _ask_whose(kept)
    origin, answers = kept.sent.origin, kept.sent.answers
    db, user = get_db(), current_account()
    saved = drafts.save_draft(db, user, kept.quiz, origin, answers, time.time_ns())
    if saved.conflict:
        page = form_page(kept.slug, kept.quiz, kept.sent, saved, may_replace=True)
        return make_response(page, _conflict())
    where: dict[str, Any] = {"slug": kept.slug, "quiz_id": kept.quiz.id}
    if saved.handed_in and not saved.other:
        flash(f"Attempt {saved.handed_in} was already handed in. This is its result.")
        return redirect(url_for("quizzes.result", **where, number=saved.handed_in))
    if saved.draft is not None:
        flash(RESTORED)
    return redirect(url_for("quizzes.quiz", **where))


def _ask_for_login(kept: KeptAnswers) -> ResponseReturnValue:
    if request.endpoint == _AUTOSAVE:
        return {"text": LOGGED_OUT}, UNAUTHORIZED
    return login_page(kept), UNAUTHORIZED


def _ask_whose(kept: KeptAnswers) -> Response:
    page = render_template(
        "kept.html", kept=kept, typist=kept.typist, token=new_token(), Student=Role.STUDENT
    )
    return make_response(page, _conflict())


def _conflict() -> int:
    """Returns the status of a page that asks: the login or logout before it has succeeded."""
    return 200 if request.endpoint in _CARRIERS else CONFLICT


def _is_typist(kept: KeptAnswers) -> bool:
    user = current_account()
    return user.role is Role.STUDENT and kept.sent.typist == user.id


def _without_login() -> ResponseReturnValue:
    """Answers a request that needs a login, in place of Flask-Login."""
    kept = from_request()
    if kept is not None:
        return _ask_for_login(kept)
    if task := _recover_task():
        return task
    flash(login_manager.login_message)
    return redirect(login_url(login_manager.login_view, next_url=request.url))


def _recover_task() -> ResponseReturnValue | None:
    """Leads back to the task whose button was pressed without a valid session."""
    if request.endpoint != "courses.complete":
        return None
    flash(TASK_NOT_MARKED, "warning")
    task = url_for("courses.task", **request.view_args or {})
    return redirect(task if current_user.is_authenticated else url_for("auth.login", next=task))


def _is_from_this_site() -> bool:
    """Whether the browser says that a page of this site has sent the request."""
    for name in ("Origin", "Referer"):
        value = request.headers.get(name)
        if value and value != "null":
            return urlsplit(value).netloc == request.host
    return False
