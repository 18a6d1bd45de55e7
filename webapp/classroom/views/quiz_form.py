"""The form of a quiz: what a page sends, and the page that shows it.

Each page has a signed token that names the account for which it was made, so that answers which
arrive without a valid session are given to nobody else.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from flask import current_app, render_template, request
from itsdangerous import BadData, URLSafeTimedSerializer

from webapp.classroom.model import catalogue, drafts, work
from webapp.classroom.model.accounts import Role
from webapp.classroom.model.content import Quiz
from webapp.classroom.model.drafts import Origin, SaveResult
from webapp.classroom.store.db import get_db
from webapp.classroom.views.access import current_account
from webapp.classroom.views.lookup import course_or_404, or_404

ATTEMPT_NUMBER_DIGITS_MAX = 6
# A page that was left open longer than this does not name its account any more.
TOKEN_AGE_MAX_S = 30 * 24 * 3600
_TOKEN_CHARS_MAX = 200


@dataclass(frozen=True)
class SentForm:
    """What a page of a quiz has sent. `typist` is the account it was made for, if that is known."""

    answers: dict[int, list[str]] = field(default_factory=dict)
    number: int | None = None
    page: str = ""
    revision: str = ""
    typist: int | None = None

    @property
    def origin(self) -> Origin:
        return Origin(self.number or 0, self.page, self.revision)


def find_quiz(slug: str, quiz_id: str) -> Quiz | None:
    found = (quiz for quiz in catalogue.list_quizzes(get_db(), slug) if quiz.id == quiz_id)
    return next(found, None)


def quiz_or_404(slug: str, quiz_id: str) -> Quiz:
    course_or_404(slug)
    return or_404(find_quiz(slug, quiz_id))


def read_form(quiz: Quiz) -> SentForm:
    """Reads the form of this request. An attempt's number that is not one becomes None."""
    sent = request.form
    number = sent.get("number", "")
    valid = number.isascii() and number.isdigit() and len(number) <= ATTEMPT_NUMBER_DIGITS_MAX
    typist, page = _read_token(sent.get("form", ""))
    return SentForm(
        answers={
            at: [text for text in sent.getlist(f"q{at}") if text.strip()]
            for at in range(len(quiz.questions))
        },
        number=int(number) if valid and int(number) else None,
        page=page,
        revision=sent.get("revision", "")[:64],
        typist=typist,
    )


def form_page(
    slug: str,
    quiz: Quiz,
    sent: SentForm | None = None,
    result: SaveResult | None = None,
    *,
    errors: dict[int, str] | None = None,
    notice: str | None = None,
    may_replace: bool = False,
) -> str:
    """Renders the form with the answers sent, by default with those of the draft.

    If the answers sent could not be saved beside another page's, handing them in keeps the others;
    with `may_replace` saving them again replaces the others.
    """
    db, user = get_db(), current_account()
    draft = drafts.find_draft(db, user, quiz) if result is None else result.draft
    conflict = result is not None and result.conflict
    own = conflict and not may_replace and sent is not None
    revision = sent.revision if own and sent else draft.revision if draft else ""
    return render_template(
        "quiz.html",
        course=course_or_404(slug),
        quiz=quiz,
        answers=sent.answers if sent else draft.answers if draft else {},
        errors=errors or {},
        number=work.attempts_made(db, user, quiz.id) + 1,
        attempts=work.attempts_of(db, user, quiz.id),
        draft=None if conflict else draft,
        others=draft if conflict else None,
        is_draft=sent is None,
        revision=revision,
        token=_make_token(user.id) if user.role is Role.STUDENT else "",
        notice=notice,
    )


def new_token() -> str:
    """Returns the token of a page that is made for this request's account."""
    return _make_token(current_account().id)


def _make_token(user_id: int) -> str:
    return str(_signer().dumps([user_id, secrets.token_hex(8)]))


def _read_token(text: str) -> tuple[int | None, str]:
    """Returns a token's account and page; None and an empty text if the token is not valid."""
    if len(text) > _TOKEN_CHARS_MAX:
        return None, ""
    try:
        user_id, page = _signer().loads(text, max_age=TOKEN_AGE_MAX_S)
    except (BadData, ValueError, TypeError):
        return None, ""
    return int(user_id), str(page)


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt="page of a quiz")
