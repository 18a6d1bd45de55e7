"""Descriptions of events and of causes of losses, for readers who are not engineers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from webapp.classroom.model.analytics import Event
from webapp.classroom.present.filters import percent, readable

# Page views in a student's timeline, by endpoint.
_PAGES = {
    "courses.index": "Opened the list of courses",
    "courses.course": "Opened a course",
    "courses.lesson": "Read a lesson",
    "courses.task": "Opened a task",
    "quizzes.quiz": "Opened a quiz",
    "quizzes.result": "Opened a quiz result",
    "quizzes.history": "Opened their own results",
}


# The causes in the loss ledger, explained to an auditor.
LOSS_CAUSES = {
    "not received": "Sent by a program that keeps no copy, and not received.",
    "outbox damaged": "The program's copy in memory was overwritten before it was read.",
    "restored": "Was stored; the log was then restored from an older backup.",
    "claimed": "Only the program's own file claims that it was stored; nothing else shows it.",
    "tail unknown": "The machine went down while the program ran; its last events may be missing.",
    "outbox gone": "The program's copy was removed before all of it was read.",
    "beginning unknown": "The first event received was not the program's first: some are missing.",
}


def describe_event(event: Event, titles: Mapping[str, str]) -> str:
    """Describes an event of a student's timeline in one phrase; accepts properties of any type."""
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
                return f"Was shown that an entry is not confirmed yet: {what}"
            return f"An entry was not confirmed in time: {what}"
        case "durable_settled":
            what = _name_of_type(props.get("type"))
            if props.get("outcome") == "stored":
                return f"The entry is confirmed: {what}"
            return f"The entry can no longer be confirmed: {what}"
        case other:
            return _name_of_type(other)


def _name_of_type(event_type: Any) -> str:
    return re.sub("[_.-]", " ", readable(event_type)).capitalize()
