"""Collects everything that the trail holds about one person, for an access request.

Each item has a kind: the person's events; mentions, which are events of others that name the
person; readings of reports that do not list whom they are about; the roll-ups of the person's
events; copies of the trail; and notes on other places and on data that cannot be attributed. The
result can be handed over: other persons are "(another)". No transaction stays open between two
pages; events stored meanwhile are not included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from logd.render import event_line, format_time, printable
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.person_pages import Part, PersonPages, sender
from logd.reports.selection import newest_id
from logd.storage import copy_registry
from logd.storage.database import Connection, in_parts
from logd.storage.mentions import PersonKeys
from logd.storage.rollups import DAY_NS
from logd.storage.senders import Person
from logd_wire.query import Row
from logd_wire.schema import REPORT_READ

Progress = Callable[[int], None]

TITLES = {
    "person": "Stored about",
    "event": "Events",
    "mention": "Events of others that name this person",
    "reading": "Readings of totals, of quarantine or of exports, which may be about this person",
    "day": "Roll-ups: events per day, by type",
    "subject": "Roll-ups: the latest state by task or quiz",
    "copy": "Copies of this trail that may hold the same",
    "note": "Notes",
    "end": "Total",
}
# The kinds of items that the last item, "end", counts.
TOTALS = ("event", "mention", "reading", "day", "subject", "copy")
_ROLLUP_COLUMNS = {
    "day": ("type", "day", "events"),
    "subject": (
        "type",
        "subject",
        "events",
        "first_ts_ns",
        "last_ts_ns",
        "last_value",
        "best_value",
    ),
}


def person_items(
    connection: Connection,
    person: Person,
    keys: PersonKeys,
    now_ns: int,
    pending: int,
    progress: Progress = lambda _ids: None,
) -> Iterator[Row]:
    """Yields all items about the person.

    `pending` is the number of events that wait in outboxes; `progress` is called with the number of
    ids searched for mentions since its last call.
    """
    top = newest_id(connection)
    pages = PersonPages(connection, person, keys)
    spellings = pages.spellings()
    yield {
        "kind": "person",
        "user": person.user,
        "spellings": spellings,
        "senders": person.uids,
        "read_ns": now_ns,
        "up_to_event": top,
    }
    counts: Counter[str] = Counter()
    for item in _Search(pages, top).items(spellings, pending, progress):
        counts[item["kind"]] += 1
        yield item
    yield {"kind": "end", **{name: counts[name] for name in TOTALS}}


@dataclass(frozen=True)
class _Search:
    """Searches the events up to the id `top` for what is stored about one person."""

    pages: PersonPages
    top: int

    def items(self, users: list[str], pending: int, progress: Progress) -> Iterator[Row]:
        connection, of_all = self.pages.connection, self.pages.person.uids is None
        for row in self._own(users):
            yield {"kind": "event", **row}
        for row in self._mentions(progress):
            yield {"kind": "mention", **row}
        for row in self._readings():
            yield {"kind": "reading", **row}
        if of_all:
            yield from _rollups(self.pages, users)
        yield from _copies(connection)
        yield from _notes(connection, pending, of_all=of_all)

    def _own(self, users: list[str]) -> Iterator[Row]:
        for some in in_parts(users):
            part: Part | None = self._whole()
            while part is not None:
                page = self.pages.events(some, part, PAGE_ROWS_MAX)
                yield from page.rows
                part = None if page.next is None else part.rest(page.next)

    def _mentions(self, progress: Progress) -> Iterator[Row]:
        part: Part | None = self._whole()
        while part is not None:
            page = self.pages.mentions(part, PAGE_ROWS_MAX)
            yield from page.rows
            progress((self.top if page.next is None else page.next) - part.after_id)
            part = None if page.next is None else part.rest(page.next)

    def _readings(self) -> Iterator[Row]:
        """Yields readings by others that may be about the person without naming the person."""
        part: Part | None = self._whole()
        while part is not None:
            found, position = self.pages.readings(part, PAGE_ROWS_MAX, own=False)
            for reading in found:
                if not reading.is_named and self._is_of(reading.row):
                    yield self.pages.handed_over(reading)
            part = None if position is None else part.rest(position)

    def _is_of(self, row: Row) -> bool:
        return row["type"] != REPORT_READ or self.pages.person.is_of(sender(row))

    def _whole(self) -> Part:
        return Part(before_id=self.top + 1, newest_first=False)


def _rollups(pages: PersonPages, users: list[str]) -> Iterator[Row]:
    for row in pages.rollups(users):
        names = _ROLLUP_COLUMNS[row["kind"]]
        yield {"kind": row["kind"], **{name: row[name] for name in names}}


def _copies(connection: Connection) -> Iterator[Row]:
    for copy in copy_registry.list_copies(connection):
        row = asdict(copy)
        yield {"kind": "copy", "copy": row.pop("kind"), **row}


def _notes(connection: Connection, pending: int, *, of_all: bool) -> Iterator[Row]:
    (kept,) = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    if not of_all:
        yield {
            "kind": "note",
            "about": "roll-ups",
            "text": "They are kept for all applications together, and left out here. So are events"
            " that logd itself wrote, except readings of reports by this application.",
        }
    for subject, text in (
        (
            "quarantine",
            f"The first bytes of {kept:,} refused datagrams and files are kept. They may contain"
            " personal data, but cannot be attributed to a person.",
        ),
        (
            "outboxes",
            f"{pending:,} events of all users still wait in memory: run this again later.",
        ),
        (
            "texts",
            "An id inside another text (a message, an address) is not found, nor one under a key"
            " that person_keys in logd.toml does not name.",
        ),
        (
            "copies",
            "Backups and exports hold what was stored when they were made. logd knows only of those"
            " that are listed.",
        ),
        (
            "site",
            "The site has a database of its own (accounts, courses, answers): search it too.",
        ),
    ):
        yield {"kind": "note", "about": subject, "text": text}


def text_lines(items: Iterator[Row]) -> Iterator[str]:
    """Formats the items as lines, under a heading for each kind."""
    before = None
    for item in items:
        kind = item["kind"]
        if kind != before:
            yield f"{'' if before is None else chr(10)}{TITLES[kind]}"
        before = kind
        yield "  " + _line(item)


def _line(item: Row) -> str:
    lines: dict[str, Callable[[Any], str]] = {
        "person": _person_line,
        "event": event_line,
        "mention": event_line,
        "reading": event_line,
        "day": lambda i: f"{format_time(i['day'] * DAY_NS)[:10]}  {i['type']:20}  {i['events']:,}",
        "subject": _subject_line,
        "copy": lambda i: (
            f"{i['copy']}  {printable(i['place'])}  made {format_time(i['made_ns'])},"
            f" expires {format_time(i['expires_ns'])}"
        ),
        "note": lambda i: f"{i['about']}: {i['text']}",
        "end": lambda i: (
            f"{i['event']:,} events, {i['mention']:,} mentions,"
            f" {i['day'] + i['subject']:,} roll-ups, {i['copy']:,} copies known,"
            f" {i['reading']:,} readings that may be about this person"
        ),
    }
    return lines[item["kind"]](item)


def _person_line(item: Row) -> str:
    others = [printable(other) for other in item["spellings"] if other != item["user"]]
    also = f", also spelled {', '.join(others)}" if others else ""
    senders = "" if item["senders"] is None else f", of senders with uid {item['senders']}"
    return f"user {printable(item['user'])}{also}{senders}, up to event {item['up_to_event']:,}"


def _subject_line(item: Row) -> str:
    return (
        f"{item['type']:20}  {printable(item['subject']):16}  {item['events']:,} times,"
        f" {format_time(item['first_ts_ns'])} to {format_time(item['last_ts_ns'])},"
        f" last {item['last_value']}, best {item['best_value']}"
    )
