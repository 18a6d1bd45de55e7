"""How times, scores and events read on a page: the template filters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Flask

from webapp.classroom.model.analytics import Event, Unavailable
from webapp.classroom.present import markdown

VALUE_CHARS_MAX = 200

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


def init_app(app: Flask) -> None:
    app.add_template_filter(moment)
    app.add_template_filter(iso)
    app.add_template_filter(percent)
    app.add_template_filter(readable)
    app.add_template_filter(duration)
    app.add_template_filter(own_first)
    app.add_template_filter(markdown.render, "markdown")
    app.add_template_filter(markdown.render_inline, "markdown_inline")
    app.add_template_test(lambda value: isinstance(value, Unavailable), "unavailable")
    app.add_template_global(describe_event)


def moment(ts_ns: int) -> str:
    """A time for people. In UTC, like the days of the charts, and pages say so."""
    return f"{_datetime(ts_ns):%a %-d %b %Y, %H:%M}"


def iso(ts_ns: int) -> str:
    """A time for a <time> element and for the trail, to the millisecond."""
    return _datetime(ts_ns).isoformat(sep="T", timespec="milliseconds").replace("+00:00", "Z")


def percent(score: float) -> str:
    return f"{score * 100:.0f}\N{NO-BREAK SPACE}%"


def duration(seconds: int) -> str:
    """A waiting time, rounded up: "40 seconds", "5 minutes"."""
    if seconds < 60:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    minutes = -(-seconds // 60)
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def readable(value: Any) -> str:
    """A property's value in a table: short, and never a surprise whatever is stored."""
    if isinstance(value, float):
        text = f"{value:.4g}" if abs(value) < 1e6 else f"{value:g}"
    elif isinstance(value, str):
        text = value
    elif isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "none"}[value]
    else:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def own_first(props: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Properties as stored, but what every event of a request has comes after what is its own."""
    return sorted(props.items(), key=lambda item: item[0] == "request_id")


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


def _datetime(ts_ns: int) -> datetime:
    return datetime.fromtimestamp(ts_ns // 1_000_000 / 1000, UTC)
