"""Descriptions of events and of causes of losses, for readers who are not engineers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from webapp.classroom.model.analytics import Event
from webapp.classroom.present.filters import percent, readable
from webapp.classroom.present.reading_texts import describe_report
from webapp.classroom.present.request_texts import describe_request

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
    """Describes an event in one phrase; accepts properties of any type."""
    props = event.props
    request = describe_request(event, titles)
    if request is not None:
        return request

    def title(key: str) -> str:
        subject = readable(props.get(key))
        return titles.get(subject, subject)

    account = "this account" if event.user is not None else "an unknown account"
    match event.type:
        case "login":
            return "Logged in"
        case "login_failed":
            # The event does not name who tried: the account's owner must not seem to have done it.
            return f"Someone tried to log in to {account} with a wrong password"
        case "login_throttled":
            return f"Logging in to {account} was blocked after too many wrong passwords"
        case "logout":
            return "Logged out"
        case "task_completed":
            return f"Completed the task “{title('task')}”{_added_later(props)}"
        case "quiz_submitted":
            score = props.get("score")
            result = percent(score) if isinstance(score, int | float) else "an unknown score"
            return f"Handed in the quiz “{title('quiz')}”: {result}{_added_later(props)}"
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
        case "events_exported":
            events = props.get("events")
            number = f"{events:,}" if isinstance(events, int) else "an unknown number of"
            whole = "" if props.get("complete") is True else ", and the file is not complete"
            return f"Exported {number} events{whole}"
        case "report_read":
            report = props.get("report")
            what = describe_report(event.type, readable(report) if report else None)
            return f"Looked at {what}{_about(props)}"
        case "data_request_made":
            return f"Asked for a {readable(props.get('kind'))} of their own data"
        case "data_request_answered":
            return f"Answered a request for a {readable(props.get('kind'))} of data"
        case other:
            return _name_of_type(other)


def _added_later(props: Mapping[str, Any]) -> str:
    """Returns a note for an event that `reconcile` has added from the site's own records."""
    is_added = props.get("reconciled") is True
    return " (entered later, from the site's own records)" if is_added else ""


def _about(props: Mapping[str, Any]) -> str:
    """Names whom a reading was about: the one person, or how many."""
    params = props.get("params")
    named = [props.get("users")]
    if isinstance(params, Mapping):
        named += [params.get("users"), params.get("user")]
    found = {readable(user) for users in named for user in _as_list(users)}
    if len(found) == 1:
        return f" about #{found.pop()}"
    more = " or more" if props.get("everyone") is True or props.get("parts") else ""
    return f" about {len(found):,} persons{more}" if found else ""


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _name_of_type(event_type: Any) -> str:
    return re.sub("[_.-]", " ", readable(event_type)).capitalize()
