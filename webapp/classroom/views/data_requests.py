"""The auditors' page of requests for correction or erasure of data."""

from __future__ import annotations

import time

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.classroom.extensions import activity
from webapp.classroom.model import data_requests
from webapp.classroom.model.accounts import Role
from webapp.classroom.model.data_requests import TEXT_CHARS_MAX, Outcome
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account, roles_allowed
from webapp.classroom.views.lookup import KEY_MAX, or_404

blueprint = Blueprint("data_requests", __name__, url_prefix="/audit/requests")

UNPROCESSABLE = 422


@blueprint.get("/")
@roles_allowed(Role.AUDITOR)
def index() -> str:
    return _page()


def _page(wrong_id: int | None = None, error: str = "", text: str = "") -> str:
    db = get_db()
    return render_template(
        "data_requests.html",
        open=data_requests.open_requests(db),
        open_count=data_requests.count_open(db),
        answered=data_requests.answered_requests(db),
        outcomes=list(Outcome),
        wrong_id=wrong_id,
        error=error,
        text=text,
        text_chars_max=TEXT_CHARS_MAX,
    )


@blueprint.post("/<int:request_id>")
@roles_allowed(Role.AUDITOR)
def answer(request_id: int) -> ResponseReturnValue:
    """Stores the answer to a request, which its account then reads on its own page."""
    db = get_db()
    found = or_404(data_requests.find_request(db, request_id) if request_id <= KEY_MAX else None)
    outcome = request.form.get("outcome", "")
    text = request.form.get("answer", "").strip().replace("\r\n", "\n")
    error = None
    if outcome not in set(Outcome):
        error = "Choose whether it was done or refused."
    elif not text:
        error = "Write what was done, or why it was refused: the person reads it."
    elif len(text) > TEXT_CHARS_MAX:
        error = f"Shorten the answer to {TEXT_CHARS_MAX:,} characters; it has {len(text):,}."
    if error is not None and found.answered_ns is None:
        return _page(request_id, error, text[: 2 * TEXT_CHARS_MAX]), UNPROCESSABLE
    if error is None and data_requests.answer_request(
        db, request_id, current_account(), Outcome(outcome), text, time.time_ns()
    ):
        activity.log(
            "data_request_answered",
            props={
                "request": request_id,
                "kind": str(found.kind),
                "outcome": outcome,
                "member": str(found.user_id),  # a person key: the event names who has asked
            },
        )
        flash(f"Your answer to {found.name} was saved.")
    else:
        flash("This request was answered already. The first answer stands.", "warning")
    return redirect(url_for("data_requests.index"))
