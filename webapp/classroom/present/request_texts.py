"""Describes requests in timelines and lists of events, each by its method and its answer.

Only a GET that showed a page says that someone opened or read something. A list in which a refused
page looks like an opened one makes an innocent person look guilty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logd_wire.requests import (
    OTHER_REQUESTS,
    PAGE_VIEW,
    REQUEST_ANSWERED,
    REQUEST_REDIRECTED,
    request_type,
)
from webapp.classroom.model.analytics import Event
from webapp.classroom.present.filters import readable

# For each endpoint, the page's name, and its name with the arguments of the address if known.
_PAGES = {
    "home": ("the start page", None),
    "auth.login": ("the login page", None),
    "auth.logout": ("the logout", None),
    "courses.index": ("the list of courses", None),
    "courses.course": ("a course", "the course {course}"),
    "courses.lesson": ("a lesson", "the lesson {lesson}"),
    "courses.task": ("a task", "the task {task}"),
    "courses.complete": ("a task", "the task {task}"),
    "quizzes.quiz": ("a quiz", "the quiz {quiz}"),
    "quizzes.submit": ("a quiz", "the quiz {quiz}"),
    "drafts.save": ("a quiz's draft", "the draft of the quiz {quiz}"),
    "drafts.autosave": ("a quiz's draft", "the draft of the quiz {quiz}"),
    "quizzes.result": ("a quiz result", "the result of the quiz {quiz}, attempt {number}"),
    "quizzes.history": ("their own results", None),
    "teacher.dashboard": ("the teacher's page of the class", None),
    "teacher.course": (
        "the teacher's page of a course",
        "the teacher's page of the course {course}",
    ),
    "teacher.timeline": (
        "the teacher's page about a student",
        "the teacher's page about student #{user_id}",
    ),
    "auditor.overview": ("the auditor's overview", None),
    "auditor.events": ("the auditor's list of events", None),
    "auditor.losses": ("the auditor's loss ledger", None),
    "trail.quarantine": ("the auditor's page of refused input", None),
    "trail.readings": ("the auditor's page of who read whose data", None),
    "trail.exports": ("the auditor's page of exports", None),
    "live.page": ("the auditor's live view", None),
    "live.stream": ("the auditor's live view", None),
    "my_data.overview": ("the page “My data”", None),
    "my_data.entries": ("the list of entries about themselves", None),
    "my_data.mentions": ("the list of entries that name them", None),
    "my_data.readings": ("the list of who looked at their data", None),
    "my_data.download": ("the download of their data", None),
    "my_data.ask": ("the page “My data”", None),
    "data_requests.index": ("the requests about data", None),
    "data_requests.answer": ("the requests about data", None),
    "explorer.counts": ("the auditor's counts of events", None),
    "explorer.event": ("the auditor's page of an event", "the auditor's page of event {event_id}"),
    "explorer.export": ("an export of events", None),
    "explorer.searches": ("the auditor's saved searches", None),
    "explorer.save": ("the auditor's saved searches", None),
    "explorer.rename": ("the auditor's saved searches", None),
    "explorer.delete": ("the auditor's saved searches", None),
    "evidence.sheet": ("an evidence sheet", None),
    "evidence.download": ("the download of an evidence sheet", None),
}
_PAGE_NAMES = {endpoint: name for endpoint, (name, _known) in _PAGES.items()}
NAME_CHARS_MAX = 60
_QUOTES = str.maketrans(dict.fromkeys('“”„"', "'"))
_NOT_FOUND = (404, 410)
_NOT_ALLOWED = (401, 403, 429, 451)


def page_names() -> Mapping[str, str]:
    """Returns the name of each endpoint's page, without arguments."""
    return _PAGE_NAMES


def type_of(event: Event) -> str | None:
    """Returns the type of a request's event; None for other events.

    Earlier versions stored every request as a page view: the method and the status determine its
    type.
    """
    if event.type != PAGE_VIEW:
        return event.type if event.type in OTHER_REQUESTS else None
    method, status = event.props.get("method"), event.props.get("status")
    return request_type(
        method if isinstance(method, str) else "GET", status if isinstance(status, int) else 200
    )


def is_echo(event: Event) -> bool:
    """Whether the event is an accepted request of a form, whose effect is another event."""
    took = type_of(event)
    return event.props.get("method") == "POST" and took in (REQUEST_ANSWERED, REQUEST_REDIRECTED)


def describe_request(event: Event, titles: Mapping[str, str]) -> str | None:
    """Describes a request in one phrase; returns None for other events. Accepts any properties."""
    page = _page(event.props, titles)
    is_get = event.props.get("method") in ("GET", None)
    match type_of(event):
        case "page_view":
            is_lesson = event.props.get("endpoint") == "courses.lesson"
            return f"{'Read' if is_lesson else 'Opened'} {page}"
        case "request_redirected":
            if is_get:
                return f"Asked for {page} and was sent to another page"
            return f"Sent a form to {page}"
        case "request_refused":
            return _refusal(event.props.get("status"), page, is_get)
        case "request_failed":
            return f"Got an error of the site instead of {page}"
        case "request_answered":
            return f"Sent a request to {page}"
    return None


def _refusal(status: object, page: str, is_get: bool) -> str:
    if status in _NOT_ALLOWED:
        return f"Was refused {page}"
    if status in _NOT_FOUND:
        return f"Asked for {page}, which was not found"
    if is_get:
        return f"Asked for {page}, which was not shown"
    return f"Sent a form to {page}, which was not accepted"


def _page(props: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    unknown, known = _PAGES.get(readable(props.get("endpoint")), (None, None))
    args = props.get("view_args")
    if unknown is None:
        route = props.get("route")
        return "an unknown page" if route is None else readable(route)
    if known is None or not isinstance(args, Mapping):
        return unknown
    try:
        return known.format_map(_names(args, titles))
    except KeyError:
        return unknown


def _quotable(text: str) -> str:
    """Shortens a part of an address, and removes its quotes.

    With quotes the part could read as words of the site itself. The person whose activity is shown
    chooses the addresses.
    """
    text = text.translate(_QUOTES)
    return text if len(text) <= NAME_CHARS_MAX else text[: NAME_CHARS_MAX - 1] + "…"


def _names(args: Mapping[Any, Any], titles: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of the arguments of an address: titles where known, else the values."""
    given = {str(name): readable(value) for name, value in args.items()}
    names = {name: _quotable(value) for name, value in given.items()}
    course = given.get("slug")
    for name, arg, key in (
        ("course", "slug", f"course:{course}"),
        ("lesson", "lesson_slug", f"lesson:{course}/{given.get('lesson_slug')}"),
        ("task", "task_id", given.get("task_id", "")),
        ("quiz", "quiz_id", given.get("quiz_id", "")),
    ):
        if arg in given:
            names[name] = f"“{titles.get(key, names[arg])}”"
    return names
