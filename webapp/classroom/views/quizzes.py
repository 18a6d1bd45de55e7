"""The quiz pages: form, result, and the student's own attempts."""

from __future__ import annotations

import time

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import login_required

from flask_logd import Outcome
from webapp.classroom.extensions import activity
from webapp.classroom.model import catalogue, work
from webapp.classroom.model.accounts import Role
from webapp.classroom.model.content import Quiz
from webapp.classroom.model.scoring import BadAnswer, Question, mark
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.lookup import course_or_404, or_404

blueprint = Blueprint("quizzes", __name__)

# HTTP's status for a form that was understood but is not filled in correctly.
UNPROCESSABLE = 422
ATTEMPT_NUMBER_DIGITS_MAX = 6

NOT_IN_THE_RECORD = (
    "Your result is saved, but it could not be recorded in the school's activity log."
    " Please tell your teacher."
)


@blueprint.get("/courses/<slug>/quizzes/<quiz_id>")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def quiz(slug: str, quiz_id: str) -> str:
    return _form_page(slug, _quiz_or_404(slug, quiz_id))


@blueprint.post("/courses/<slug>/quizzes/<quiz_id>")
@roles_allowed(Role.STUDENT)
def submit(slug: str, quiz_id: str) -> ResponseReturnValue:
    db, user = get_db(), current_account()
    found = _quiz_or_404(slug, quiz_id)
    answers = {
        at: [text for text in request.form.getlist(f"q{at}") if text.strip()]
        for at in range(len(found.questions))
    }
    if errors := _errors(found.questions, answers):
        return _form_page(slug, found, answers, errors), UNPROCESSABLE
    number = _attempt_number()
    attempt = work.add_attempt(db, user, found.id, number, found.questions, answers, time.time_ns())
    if attempt is None:
        if work.find_attempt(db, user, found.id, number) is None:
            abort(400)
        flash("This attempt was already handed in. Here is its result.")
    else:
        outcome = activity.log(
            "quiz_submitted", quiz=found.id, course=slug, score=attempt.score, attempt=number
        )
        # The extension itself flashes the message about an unknown outcome.
        if outcome is Outcome.REFUSED:
            flash(NOT_IN_THE_RECORD, "warning")
    return redirect(url_for("quizzes.result", slug=slug, quiz_id=quiz_id, number=number))


@blueprint.get("/courses/<slug>/quizzes/<quiz_id>/attempts/<int:number>")
@roles_allowed(Role.STUDENT)
def result(slug: str, quiz_id: str, number: int) -> str:
    db, user = get_db(), current_account()
    card = course_or_404(slug)
    found = _quiz_or_404(slug, quiz_id)
    if number >= 10**ATTEMPT_NUMBER_DIGITS_MAX:
        abort(404)
    attempt = or_404(work.find_attempt(db, user, quiz_id, number))
    marked = [
        (question, attempt.answers.get(at, []), mark(question, attempt.answers.get(at, [])))
        for at, question in enumerate(attempt.questions)
    ]
    return render_template("result.html", course=card, quiz=found, attempt=attempt, marked=marked)


@blueprint.get("/results")
@roles_allowed(Role.STUDENT)
def history() -> str:
    return render_template("results.html", attempts=work.attempts_of(get_db(), current_account()))


def _quiz_or_404(slug: str, quiz_id: str) -> Quiz:
    course_or_404(slug)
    found = (quiz for quiz in catalogue.list_quizzes(get_db(), slug) if quiz.id == quiz_id)
    return or_404(next(found, None))


def _form_page(
    slug: str,
    found: Quiz,
    answers: dict[int, list[str]] | None = None,
    errors: dict[int, str] | None = None,
) -> str:
    db, user = get_db(), current_account()
    return render_template(
        "quiz.html",
        course=course_or_404(slug),
        quiz=found,
        answers=answers or {},
        errors=errors or {},
        number=work.attempts_made(db, user, found.id) + 1,
        attempts=work.attempts_of(db, user, found.id),
    )


def _errors(questions: tuple[Question, ...], answers: dict[int, list[str]]) -> dict[int, str]:
    """Returns the error of each answer that has one, by the question's index."""
    errors = {}
    for at, question in enumerate(questions):
        try:
            mark(question, answers[at])
        except BadAnswer as error:
            errors[at] = str(error)
    return errors


def _attempt_number() -> int:
    text = request.form.get("number", "")
    if not (text.isascii() and text.isdigit() and len(text) <= ATTEMPT_NUMBER_DIGITS_MAX):
        abort(400)
    return int(text)
