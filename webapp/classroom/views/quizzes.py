"""The quiz pages: form, result, and the student's own attempts."""

from __future__ import annotations

import time

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import login_required

from flask_logd import Outcome
from webapp.classroom.extensions import activity
from webapp.classroom.model import drafts, work
from webapp.classroom.model.accounts import Role
from webapp.classroom.model.content import Quiz
from webapp.classroom.model.scoring import BadAnswer, Question, mark
from webapp.classroom.present.filters import moment
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.lookup import course_or_404, or_404
from webapp.classroom.views.quiz_form import (
    ATTEMPT_NUMBER_DIGITS_MAX,
    SentForm,
    form_page,
    quiz_or_404,
    read_form,
)

blueprint = Blueprint("quizzes", __name__)

# HTTP's status for a form that was understood but is not filled in correctly.
UNPROCESSABLE = 422
# The same answers as in the attempt before, within this time, are the same hand-in: the browser's
# Back button shows the form of a new attempt with the answers of the last one.
REPEATED_WITHIN_NS = 3600 * 10**9

NOT_IN_THE_RECORD = (
    "Your result is saved, but it could not be recorded in the school's activity log."
    " Please tell your teacher."
)
OUT_OF_TURN = (
    "Your answers were not handed in, because this page was out of date. They are below:"
    " please check them, and hand them in again."
)


@blueprint.get("/courses/<slug>/quizzes/<quiz_id>")
@login_required  # type: ignore[untyped-decorator] # Flask-Login has no types
def quiz(slug: str, quiz_id: str) -> str:
    return form_page(slug, quiz_or_404(slug, quiz_id))


@blueprint.post("/courses/<slug>/quizzes/<quiz_id>")
@roles_allowed(Role.STUDENT)
def submit(slug: str, quiz_id: str) -> ResponseReturnValue:
    db, user = get_db(), current_account()
    found = quiz_or_404(slug, quiz_id)
    sent = read_form(found)
    number, now_ns = sent.number, time.time_ns()
    if errors := _errors(found.questions, sent.answers):
        saved = drafts.save_draft(db, user, found, sent.origin, sent.answers, now_ns)
        return form_page(slug, found, sent, saved, errors=errors), UNPROCESSABLE
    made = work.attempts_made(db, user, found.id)
    if number is None or number > made + 1:
        saved = drafts.save_draft(db, user, found, sent.origin, sent.answers, now_ns)
        return form_page(slug, found, sent, saved, notice=OUT_OF_TURN), 400
    if number == made + 1 and _is_repeated(found, made, sent, now_ns):
        flash(f"These are the answers of attempt {made}: no other attempt was made.")
        return _to_result(slug, found, made)
    attempt = work.add_attempt(
        *(db, user, found.id, number, found.questions, sent.answers, now_ns),
        also=lambda connection: drafts.end_draft(
            connection, user, found, sent.origin, sent.answers
        ),
    )
    if attempt is None:
        return _handed_in_before(slug, found, sent, number)
    outcome = activity.log(
        "quiz_submitted", quiz=found.id, course=slug, score=attempt.score, attempt=number
    )
    # The extension itself flashes the message about an unknown outcome.
    if outcome is Outcome.REFUSED:
        flash(NOT_IN_THE_RECORD, "warning")
    return _to_result(slug, found, number)


@blueprint.get("/courses/<slug>/quizzes/<quiz_id>/attempts/<int:number>")
@roles_allowed(Role.STUDENT)
def result(slug: str, quiz_id: str, number: int) -> str:
    db, user = get_db(), current_account()
    card = course_or_404(slug)
    found = quiz_or_404(slug, quiz_id)
    if number >= 10**ATTEMPT_NUMBER_DIGITS_MAX:
        abort(404)
    attempt = or_404(work.find_attempt(db, user, quiz_id, number))
    marked = [
        (question, attempt.answers.get(at, []), mark(question, attempt.answers.get(at, [])))
        for at, question in enumerate(attempt.questions)
    ]
    return render_template(
        "result.html",
        course=card,
        quiz=found,
        attempt=attempt,
        marked=marked,
        draft=drafts.find_draft(db, user, found),
    )


@blueprint.get("/results")
@roles_allowed(Role.STUDENT)
def history() -> str:
    return render_template("results.html", attempts=work.attempts_of(get_db(), current_account()))


def _is_repeated(found: Quiz, made: int, sent: SentForm, now_ns: int) -> bool:
    """Whether the answers are those of the attempt before, handed in again with its form."""
    latest = work.find_attempt(get_db(), current_account(), found.id, made) if made else None
    if latest is None or latest.questions != found.questions:
        return False
    given = drafts.keepable(found.questions, sent.answers)
    is_recent = 0 <= now_ns - latest.submitted_ns < REPEATED_WITHIN_NS
    return bool(given) and is_recent and given == drafts.keepable(found.questions, latest.answers)


def _handed_in_before(slug: str, found: Quiz, sent: SentForm, number: int) -> ResponseReturnValue:
    """Answers a form whose attempt was handed in before; other answers become a draft."""
    db, user = get_db(), current_account()
    saved = drafts.save_draft(db, user, found, sent.origin, sent.answers, time.time_ns())
    number = saved.handed_in or number
    earlier = or_404(work.find_attempt(db, user, found.id, number))
    told = f"Attempt {number} was already handed in, on {moment(earlier.submitted_ns)}."
    if saved.conflict:
        notice = f"{told} The answers below are different ones, and were not handed in."
        return form_page(slug, found, sent, saved, notice=notice, may_replace=True), 409
    if saved.other and saved.draft is not None:
        flash(
            f"{told} This is its result. The answers that you have just sent are different: they"
            f" are saved as a draft of attempt {saved.draft.number}, and not handed in.",
            "warning",
        )
    else:
        flash(f"{told} This is its result.")
    return _to_result(slug, found, number)


def _to_result(slug: str, found: Quiz, number: int) -> ResponseReturnValue:
    return redirect(url_for("quizzes.result", slug=slug, quiz_id=found.id, number=number))


def _errors(questions: tuple[Question, ...], answers: dict[int, list[str]]) -> dict[int, str]:
    """Returns the error of each answer that has one, by the question's index."""
    errors = {}
    for at, question in enumerate(questions):
        try:
            mark(question, answers[at])
        except BadAnswer as error:
            errors[at] = str(error)
    return errors
