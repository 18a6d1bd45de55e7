"""Events and losses in words, for people who do not know the log's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from webapp.classroom.model.analytics import Event
from webapp.classroom.present.filters import percent, readable

# What opening a page means to a teacher who reads a student's timeline.
_PAGES = {
    "courses.index": "Looked at the list of courses",
    "courses.course": "Opened a course",
    "courses.lesson": "Read a lesson",
    "courses.task": "Looked at a task",
    "quizzes.quiz": "Opened a quiz",
    "quizzes.result": "Read the result of a quiz",
    "quizzes.history": "Looked at their own results",
}


# What a cause in the ledger means, for an auditor.
LOSS_CAUSES = {
    "not received": "Sent by a program that keeps no copy, and never arrived here.",
    "outbox damaged": "Kept by its program in memory, where it was overwritten before it was read.",
    "restored": "Stored once; the log was then restored from a backup made earlier.",
    "claimed": "Said to be stored once by its program's own file; nothing else shows that it was.",
    "tail unknown": "The machine went down while the program ran: how much came last is unknown.",
    "outbox gone": "A program's kept copy was removed before all of it was read.",
    "beginning unknown": "First heard of in the middle: what came before, if anything, is unknown.",
}


def describe_event(event: Event, titles: Mapping[str, str]) -> str:
    """An event of a student's timeline as a sentence. Properties may be anything: they are data."""
    props = event.props

    def title(key: str) -> str:
        subject = readable(props.get(key))
        return titles.get(subject, subject)

    match event.type:
        case "page_view":
            page = _PAGES.get(readable(props.get("endpoint")))
            return page or f"Opened {readable(props.get('route') or 'an unknown page')}"
        case "login":
            return "Logged in"
        case "login_failed":
            return "Tried to log in with a wrong password"
        case "logout":
            return "Logged out"
        case "task_completed":
            return f"Completed the task “{title('task')}”"
        case "quiz_submitted":
            score = props.get("score")
            result = percent(score) if isinstance(score, int | float) else "an unknown score"
            return f"Handed in the quiz “{title('quiz')}”: {result}"
        case "durable_unknown":
            what = _name_of_type(props.get("type"))
            if props.get("user_told"):
                return f"Was told that an entry is not confirmed yet: {what}"
            return f"An entry was not confirmed in time: {what}"
        case "durable_settled":
            what = _name_of_type(props.get("type"))
            if props.get("outcome") == "stored":
                return f"The entry is confirmed: {what}"
            return f"Whether the entry is stored will not be confirmed any more: {what}"
        case other:
            return _name_of_type(other)


def _name_of_type(event_type: Any) -> str:
    return re.sub("[_.-]", " ", readable(event_type)).capitalize()
