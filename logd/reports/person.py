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
from logd.reports.event_queries import event_page
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.readings import may_concern_anyone
from logd.reports.selection import Selection, newest_id, pages
from logd.storage import copy_registry, stored_users
from logd.storage.database import Connection, in_parts
from logd.storage.mentions import ANOTHER, PersonKeys
from logd.storage.rollups import DAY_NS
from logd.storage.senders import Person
from logd_wire.query import Row
from logd_wire.schema import REPORT_READ

Progress = Callable[[int], None]

TITLES = {
    "person": "Stored about",
    "event": "Events",
    "mention": "Events of others that name this person",
    "reading": "Readings of totals or of quarantine, which may be about this person",
    "day": "Roll-ups: events per day, by type",
    "subject": "Roll-ups: the latest state by task or quiz",
    "copy": "Copies of this trail that may hold the same",
    "note": "Notes",
    "end": "Total",
}
# The kinds of items that the last item, "end", counts.
TOTALS = ("event", "mention", "reading", "day", "subject", "copy")


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
    spellings = stored_users.spellings(connection, person.user) or {person.user: 0}
    yield {
        "kind": "person",
        "user": person.user,
        "spellings": list(spellings),
        "senders": person.uids,
        "read_ns": now_ns,
        "up_to_event": top,
    }
    counts: Counter[str] = Counter()
    search = _Search(connection, person, keys, top)
    for item in search.items(list(spellings), pending, progress):
        counts[item["kind"]] += 1
        yield item
    yield {"kind": "end", **{name: counts[name] for name in TOTALS}}


@dataclass(frozen=True)
class _Search:
    """Searches the events up to the id `top` for what is stored about one person."""

    connection: Connection
    person: Person
    keys: PersonKeys
    top: int

    def items(self, users: list[str], pending: int, progress: Progress) -> Iterator[Row]:
        connection = self.connection
        for row in self._own(users):
            yield {"kind": "event", **row, "props": self._shown(row)}
        for row in self._mentions(progress):
            yield {"kind": "mention", **self._handed_over(row)}
        for row in self._readings():
            yield {"kind": "reading", **self._handed_over(row)}
        if self.person.uids is None:
            for user in users:
                yield from _rollups(connection, user)
        yield from _copies(connection)
        yield from _notes(connection, pending, of_all=self.person.uids is None)

    def _shown(self, row: Row) -> Row:
        return self.keys.without_others(row["props"], self.person.is_named)

    def _handed_over(self, row: Row) -> Row:
        """Returns another user's event, with the names of other persons replaced."""
        props = self._shown(row)
        if row["type"] == REPORT_READ:
            props = {name: _others_once(value) for name, value in props.items()}
        return {**row, "user": row["user"] and ANOTHER, "props": props}

    def _own(self, users: list[str]) -> Iterator[Row]:
        for some in in_parts(users):
            chosen = Selection(users=tuple(some))
            for _position, rows in pages(
                self.connection, chosen, up_to_id=self.top, rows_max=PAGE_ROWS_MAX
            ):
                for row in rows:
                    if self.person.is_of(_sender(row)):
                        yield row

    def _mentions(self, progress: Progress) -> Iterator[Row]:
        """Yields events of other users, or of none, that name the person."""
        connection, keys, is_named = self.connection, self.keys, self.person.is_named
        after = 0
        while rows := connection.execute(
            "SELECT id, user, props FROM event WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
            (after, self.top, PAGE_ROWS_MAX),
        ).fetchall():
            found = [
                number
                for number, user, props in rows
                if keys.may_name(props)
                and not (user is not None and is_named(user))
                and keys.mentions(props, is_named)
            ]
            for number in found:
                page = event_page(connection, after_id=number - 1, before_id=number + 1, limit=1)
                for row in page.rows:
                    if self.person.is_of(_sender(row)):
                        yield row
            progress(rows[-1][0] - after)
            after = rows[-1][0]
        progress(self.top - after)

    def _readings(self) -> Iterator[Row]:
        """Yields readings by others that may be about the person without naming the person."""
        is_named, chosen = self.person.is_named, Selection(types=(REPORT_READ,))
        for _position, rows in pages(
            self.connection, chosen, up_to_id=self.top, rows_max=PAGE_ROWS_MAX
        ):
            for row in rows:
                others = row["user"] is None or not is_named(row["user"])
                about_anyone = others and may_concern_anyone(row["props"])
                listed = any(map(is_named, self.keys.persons(row["props"])))
                if about_anyone and not listed and self.person.is_of(_sender(row)):
                    yield row


def _sender(row: Row) -> int:
    """Returns the uid of an event's sender, determined as in `logd.storage.senders`."""
    asker = row["props"].get("peer_uid") if row["type"] == REPORT_READ else None
    return asker if type(asker) is int else int(row["producer"].split("-")[0])


def _others_once(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _others_once(item) for name, item in value.items()}
    if isinstance(value, list):
        kept = [item for item in value if item != ANOTHER]
        return kept if len(kept) == len(value) else [*kept, ANOTHER]
    return value


def _rollups(connection: Connection, user: str) -> Iterator[Row]:
    days = connection.execute(
        "SELECT t.name, r.day, r.events FROM rollup_day r JOIN event_type t ON t.id = r.type"
        " WHERE r.user = ? ORDER BY t.name, r.day",
        (user,),
    ).fetchall()
    for kind, day, events in days:
        yield {"kind": "day", "type": kind, "day": day, "events": events}
    subjects = connection.execute(
        "SELECT t.name, r.subject, r.events, r.first_ts_ns, r.last_ts_ns, r.last_value,"
        " r.best_value FROM rollup_subject r JOIN event_type t ON t.id = r.type"
        " WHERE r.user = ? ORDER BY t.name, r.subject",
        (user,),
    ).fetchall()
    names = ("type", "subject", "events", "first_ts_ns", "last_ts_ns", "last_value", "best_value")
    for row in subjects:
        yield {"kind": "subject", **dict(zip(names, row, strict=True))}


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
