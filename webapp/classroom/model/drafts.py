"""Drafts of quizzes: answers that a student has given and not yet handed in.

A student has one draft for each quiz, for the attempt that comes next. Its answers are kept by
their question's text and options, so that a quiz that is edited later does not attach them to other
questions.

Two pages may show the same quiz. Each has an id, and knows the revision of the draft that it began
with: it may replace a draft of its own, or the one that it began with, but not answers that another
page has saved since.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from webapp.classroom.model.accounts import User
from webapp.classroom.model.content import Quiz
from webapp.classroom.model.scoring import Answers, Kind, Question
from webapp.classroom.model.work import attempts_made, find_attempt
from webapp.classroom.store.db import Connection, Database

# The most characters that are kept of a typed answer; a valid one has fewer (scoring.py).
ANSWER_CHARS_MAX = 200
# The most attempts that answers for an attempt handed in before are compared with.
ATTEMPTS_COMPARED_MAX = 20


@dataclass(frozen=True)
class Origin:
    """Where a form's answers come from: the attempt, the page, and the draft that it began with.

    `page` and `revision` are empty if unknown.
    """

    number: int
    page: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Draft:
    """A saved draft. `left_out` counts its answers whose questions were changed since."""

    number: int
    answers: dict[int, list[str]]
    saved_ns: int
    revision: str
    page: str
    left_out: int = 0

    def may_be_replaced_by(self, origin: Origin) -> bool:
        """Whether the form knows these answers, because its page saved them or began with them."""
        return (self.page == origin.page != "") or (self.revision == origin.revision != "")


@dataclass(frozen=True)
class SaveResult:
    """What became of answers to be saved.

    `draft` is the quiz's draft now. With `conflict` it holds another page's answers, and the given
    ones are not saved. `handed_in` is the form's attempt if that was handed in before; the answers
    are then those of that attempt, or with `other` are different and saved for the next one.
    """

    draft: Draft | None = None
    conflict: bool = False
    handed_in: int | None = None
    other: bool = False


def keepable(questions: Sequence[Question], answers: Answers) -> dict[int, list[str]]:
    """Returns the answers as a draft keeps them: bounded, with options that exist, none empty."""
    kept = {}
    for at, question in enumerate(questions):
        given = answers.get(at, ())
        if question.kind is Kind.NUMBER:
            texts = [text.strip()[:ANSWER_CHARS_MAX] for text in given[:1] if text.strip()]
        else:
            texts = [str(i) for i in range(len(question.options)) if str(i) in given]
        if texts:
            kept[at] = texts
    return kept


def find_draft(db: Database, user: User, quiz: Quiz) -> Draft | None:
    """Returns the user's draft of the quiz, or None."""
    return _find(db.connection(), user.id, quiz.id, quiz.questions)


def save_draft(
    db: Database, user: User, quiz: Quiz, origin: Origin, answers: Answers, now_ns: int
) -> SaveResult:
    """Saves the answers as the draft of the next attempt, or says why not."""
    kept = keepable(quiz.questions, answers)
    with db.transaction() as connection:
        made = attempts_made(db, user, quiz.id)
        handed_in = None
        if 1 <= origin.number <= made:
            handed_in = origin.number
            # Saved as a draft meanwhile, they may have been handed in as a later attempt.
            for number in range(handed_in, made + 1)[:ATTEMPTS_COMPARED_MAX]:
                attempt = find_attempt(db, user, quiz.id, number)
                if attempt is not None and keepable(quiz.questions, attempt.answers) == kept:
                    return SaveResult(handed_in=number)
        draft = _find(connection, user.id, quiz.id, quiz.questions)
        result = SaveResult(draft, handed_in=handed_in, other=handed_in is not None)
        if draft is not None and draft.answers == kept and not draft.left_out:
            return result
        if draft is not None and not draft.may_be_replaced_by(origin):
            return replace(result, conflict=True)
        if not kept:
            _delete(connection, user.id, quiz.id)
            return replace(result, draft=None, other=False)
        saved = Draft(made + 1, kept, now_ns, secrets.token_hex(8), origin.page)
        connection.execute(
            "INSERT OR REPLACE INTO quiz_drafts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(user.id, quiz.id, saved.number, _dump(quiz.questions, kept)),
                *(saved.saved_ns, saved.revision, saved.page),
            ),
        )
        return replace(result, draft=saved)


def end_draft(
    connection: Connection, user: User, quiz: Quiz, origin: Origin, answers: Answers
) -> None:
    """Ends the draft of an attempt, in the transaction that stores the attempt.

    Answers of another page that differ from those handed in become the draft of the next attempt.
    """
    draft = _find(connection, user.id, quiz.id, quiz.questions)
    if draft is None:
        return
    same = draft.answers == keepable(quiz.questions, answers)
    if same or draft.may_be_replaced_by(origin):
        _delete(connection, user.id, quiz.id)
        return
    connection.execute(
        "UPDATE quiz_drafts SET number = ? WHERE user_id = ? AND quiz = ?",
        (origin.number + 1, user.id, quiz.id),
    )


def _find(
    connection: Connection, user_id: int, quiz: str, questions: Sequence[Question]
) -> Draft | None:
    row = connection.execute(
        "SELECT number, answers, saved_ns, revision, page FROM quiz_drafts"
        " WHERE user_id = ? AND quiz = ?",
        (user_id, quiz),
    ).fetchone()
    if row is None:
        return None
    stored: Mapping[str, list[str]] = json.loads(row[1])
    answers = {at: stored[key] for at, key in enumerate(_keys(questions)) if key in stored}
    return Draft(row[0], answers, row[2], row[3], row[4], len(stored) - len(answers))


def _delete(connection: Connection, user_id: int, quiz: str) -> None:
    connection.execute("DELETE FROM quiz_drafts WHERE user_id = ? AND quiz = ?", (user_id, quiz))


def _dump(questions: Sequence[Question], answers: Answers) -> str:
    keys = _keys(questions)
    by_key = {keys[at]: list(answer) for at, answer in answers.items()}
    return json.dumps(by_key, ensure_ascii=False)


def _keys(questions: Sequence[Question]) -> list[str]:
    """Returns a key for each question: a digest of what it asks and offers."""
    seen: Counter[str] = Counter()
    keys = []
    for question in questions:
        asked = json.dumps([question.kind, question.text, question.options])
        digest = hashlib.sha256(asked.encode()).hexdigest()[:24]
        seen[digest] += 1
        keys.append(f"{digest}-{seen[digest]}")
    return keys
