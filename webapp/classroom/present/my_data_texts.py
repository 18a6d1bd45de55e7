"""Words for "My data": what is recorded, who read it, what the site holds, in plain language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from webapp.classroom.model.accounts import User
from webapp.classroom.model.my_data import Reading
from webapp.classroom.present.filters import minute, readable
from webapp.classroom.present.reading_texts import describe_report

DAY_NS = 86_400_000_000_000
MINUTES_SHOWN = 10

# The kinds of entries of a person, each as what the person did.
_KINDS = {
    "page_view": "Pages you opened",
    "request_redirected": "Requests that led you to another page, and forms you sent",
    "request_refused": "Pages or forms that were not shown or not accepted",
    "request_failed": "Errors of the site that you met",
    "request_answered": "Other requests of your browser",
    "login": "Times you logged in",
    "logout": "Times you logged out",
    "login_failed": "Times someone typed a wrong password for your account",
    "login_throttled": "Times logging in was blocked after too many wrong passwords",
    "task_completed": "Tasks you completed",
    "quiz_submitted": "Quizzes you handed in",
    "report_read": "Times you looked at reports of the log, this page included",
    "durable_unknown": "Entries that were not confirmed in time",
    "durable_settled": "Later news of such entries",
    "data_request_made": "Requests about your data that you made",
    "data_request_answered": "Requests about data that you answered",
}
# The tables of the site, each with the words for one row and for several.
_TABLES = {
    "users": ("Your account: login name, name and role", "Your account"),
    "completions": ("completed task", "completed tasks"),
    "attempts": ("quiz attempt with its answers", "quiz attempts with their answers"),
    "quiz_drafts": ("quiz that you have begun, with your answers", "quizzes that you have begun"),
    "trail_entries": ("note that work of yours is in the log", "notes that work is in the log"),
    "saved_searches": ("saved search", "saved searches"),
    "data_requests": ("request about your data", "requests about your data"),
}


def kind_of_entry(event_type: str) -> str:
    """Returns the words for a type of entry."""
    text = _KINDS.get(event_type)
    return text or f"Other entries: {readable(event_type).replace('_', ' ')}"


def kept_for(kept_ns: int | None) -> str:
    """Says how long entries are kept."""
    if kept_ns is None:
        return "kept for ever"
    days = max(1, round(kept_ns / DAY_NS))
    if days % 365 == 0:
        return f"kept for {days // 365} year{'' if days == 365 else 's'}"
    return f"kept for {days} day{'' if days == 1 else 's'}"


def rows_of_table(table: str, count: int) -> str | None:
    """Describes the rows that the site's database has about a person; None for none."""
    if count == 0:
        return None
    if table == "users":
        return _TABLES[table][0]
    one, several = _TABLES.get(table, (f"row of “{table}”", f"rows of “{table}”"))
    return f"{count:,} {one if count == 1 else several}"


@dataclass(frozen=True)
class ReadingLine:
    """Readings of the same kind by the same reader on one day, at the latest of their times.

    `before` has the other minutes of that day, `more` how many of them are left out.
    """

    ts_ns: int
    who: str
    what: str
    named: bool
    before: list[str]
    more: int


def reading_lines(readings: Iterable[Reading], people: Mapping[str, User]) -> list[ReadingLine]:
    """Describes readings, the latest first; those of one kind and day are one line."""
    groups: dict[object, list[Reading]] = {}
    for reading in readings:
        groups.setdefault(_same(reading), []).append(reading)
    lines = []
    for some in groups.values():
        first = some[0]
        what = describe_report(first.type, first.report, about_you=first.named)
        minutes = list(dict.fromkeys(minute(reading.ts_ns) for reading in some))[1:]
        shown = minutes[:MINUTES_SHOWN]
        who, more = _reader(first, people), len(minutes) - len(shown)
        lines.append(ReadingLine(first.ts_ns, who, what, first.named, shown, more))
    return lines


def _same(reading: Reading) -> tuple[object, ...]:
    day = reading.ts_ns // DAY_NS
    return day, reading.reader, reading.type, reading.report, reading.named, reading.own


def _reader(reading: Reading, people: Mapping[str, User]) -> str:
    if reading.own:
        return "You"
    if reading.reader is None:
        return "The server's administrator, or a program on the server"
    found = people.get(reading.reader)
    if found is None:
        return f"An account that is not there any more (#{readable(reading.reader)})"
    return f"{found.name} ({found.role})"
