"""Saves drafts of quizzes: by a button, and by a script a moment after a change."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, flash, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import generate_csrf

from webapp.classroom.model import drafts
from webapp.classroom.model.accounts import Role
from webapp.classroom.present.filters import saved_time
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.quiz_form import form_page, quiz_or_404, read_form

blueprint = Blueprint("drafts", __name__, url_prefix="/courses/<slug>/quizzes/<quiz_id>/draft")

CONFLICT = 409


@blueprint.post("")
@roles_allowed(Role.STUDENT)
def save(slug: str, quiz_id: str) -> ResponseReturnValue:
    """Saves the answers, for the button of the form."""
    quiz = quiz_or_404(slug, quiz_id)
    sent = read_form(quiz)
    saved = drafts.save_draft(
        get_db(), current_account(), quiz, sent.origin, sent.answers, time.time_ns()
    )
    if saved.conflict:
        return form_page(slug, quiz, sent, saved, may_replace=True), CONFLICT
    if saved.handed_in and not saved.other:
        flash(f"Attempt {saved.handed_in} was already handed in. This is its result.")
        return redirect(
            url_for("quizzes.result", slug=slug, quiz_id=quiz_id, number=saved.handed_in)
        )
    flash(_told(saved))
    return redirect(url_for("quizzes.quiz", slug=slug, quiz_id=quiz_id))


@blueprint.post("/autosave")
@roles_allowed(Role.STUDENT)
def autosave(slug: str, quiz_id: str) -> ResponseReturnValue:
    """Saves the answers, for the script of the form; the answer has a text to show."""
    return autosaved(slug, quiz_id)


def autosaved(slug: str, quiz_id: str) -> ResponseReturnValue:
    """Saves the answers of this request for its account; the answer has a new token of forms."""
    quiz = quiz_or_404(slug, quiz_id)
    sent = read_form(quiz)
    saved = drafts.save_draft(
        get_db(), current_account(), quiz, sent.origin, sent.answers, time.time_ns()
    )
    answer: dict[str, Any] = {"text": _told(saved), "csrf_token": generate_csrf()}
    if saved.conflict:
        return answer, CONFLICT
    return answer | {"revision": saved.draft.revision if saved.draft else ""}


def _told(saved: drafts.SaveResult) -> str:
    if saved.conflict and saved.draft is not None:
        return (
            f"Not saved: other answers to this quiz were saved {_when(saved.draft)}, on another"
            " page or computer. To save these in their place, press “Save and continue later”."
        )
    if saved.handed_in and not saved.other:
        return f"Attempt {saved.handed_in} is handed in with these answers."
    if saved.draft is None:
        return "There is no answer to save yet."
    text = f"Saved {_when(saved.draft)}"
    if saved.other:
        text += (
            f", as a draft of attempt {saved.draft.number}: attempt {saved.handed_in} was already"
            " handed in, with other answers"
        )
    return text


def _when(draft: drafts.Draft) -> str:
    return saved_time(draft.saved_ns)
