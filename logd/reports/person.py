"""Collects everything that the trail holds about one person, for an access request.

Each item has a kind: the person's events; mentions, which are events of others that name the
person; readings of reports that do not list whom they are about; the roll-ups of the person's
events; copies of the trail; and notes on other places and on data that cannot be attributed. The
result can be handed over: other persons are "(another)". No transaction stays open between two
pages; events stored meanwhile are not included.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from logd.render import event_line, format_time, printable
from logd.reports.event_queries import event_page
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.reports.readings import may_concern_anyone
from logd.reports.selection import Selection, newest_id, pages
from logd.storage import copy_registry
from logd.storage.database import Connection
from logd.storage.mentions import ANOTHER, MARKS, mentions, without_others
from logd.storage.rollups import DAY_NS
from logd.storage.time_blocks import BLOCK_EVENTS
from logd_wire.query import Row
from logd_wire.schema import REPORT_READ
from logd_wire.wire import unpack_props

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
# The kinds that the last item counts.
TOTALS = ("event", "mention", "reading", "day", "subject", "copy")


def person_items(
    connection: Connection,
    user: str,
    now_ns: int,
    pending: int,
    progress: Progress = lambda _ids: None,
) -> Iterator[Row]:
    """Yields all items. `pending` is the number of events that wait in outboxes; `progress` is
    called with the number of further ids that were searched for mentions."""
    top = newest_id(connection)
    yield {"kind": "person", "user": user, "read_ns": now_ns, "up_to_event": top}
    counts: Counter[str] = Counter()
    for item in _items(connection, user, top, pending, progress):
        counts[item["kind"]] += 1
        yield item
    yield {"kind": "end", **{name: counts[name] for name in TOTALS}}


def other_spellings(connection: Connection, user: str) -> list[tuple[str, int]]:
    """Returns users whose id is the same text in another Unicode normalisation (NFC, NFD), as typed
    on another system, with their number of events. They may be other accounts, so they are only
    listed.
    """
    forms = {unicodedata.normalize(form, user) for form in ("NFC", "NFD")} - {user}
    found = []
    for form in sorted(forms):
        (events,) = connection.execute(
            "SELECT coalesce(sum(events), 0) FROM rollup_day WHERE user = ?", (form,)
        ).fetchone()
        if events:
            found.append((form, events))
    return found


def _items(
    connection: Connection, user: str, top: int, pending: int, progress: Progress
) -> Iterator[Row]:
    chosen = pages(connection, Selection(users=(user,)), up_to_id=top, rows_max=PAGE_ROWS_MAX)
    for _position, rows in chosen:
        for row in rows:
            yield {"kind": "event", **row, "props": without_others(row["props"], user)}
    for row in _mentions(connection, user, top, progress):
        yield {"kind": "mention", **_handed_over(row, user)}
    for row in _readings(connection, user, top):
        yield {"kind": "reading", **_handed_over(row, user)}
    yield from _rollups(connection, user)
    yield from _copies(connection)
    yield from _notes(connection, pending)


def _mentions(connection: Connection, user: str, top: int, progress: Progress) -> Iterator[Row]:
    """Yields events of other users, or without a user, that name the person."""
    may_name = " OR ".join(["instr(props, ?)"] * len(MARKS))  # a byte search, over most events
    for after in range(0, top, BLOCK_EVENTS):
        up_to = min(after + BLOCK_EVENTS, top)
        candidates = connection.execute(
            "SELECT id, props FROM event WHERE id > ? AND id <= ?"  # noqa: S608 - question marks only
            f" AND user IS NOT ? AND ({may_name}) ORDER BY id",
            (after, up_to, user, *MARKS),
        ).fetchall()
        found = [number for number, props in candidates if mentions(unpack_props(props), user)]
        for number in found:
            yield from event_page(
                connection, after_id=number - 1, before_id=number + 1, limit=1
            ).rows
        progress(up_to - after)


def _readings(connection: Connection, user: str, top: int) -> Iterator[Row]:
    """Yields readings by other users that may be about persons whom they do not list."""
    chosen = Selection(types=(REPORT_READ,))
    for _position, rows in pages(connection, chosen, up_to_id=top, rows_max=PAGE_ROWS_MAX):
        for row in rows:
            about_anyone = row["user"] != user and may_concern_anyone(row["props"])
            if about_anyone and not mentions(row["props"], user):
                yield row


def _handed_over(row: Row, user: str) -> Row:
    """Returns another user's event without the names of others; a reading lists many of them."""
    props = without_others(row["props"], user)
    if row["type"] == REPORT_READ:
        props = {name: _others_once(value) for name, value in props.items()}
    return {**row, "user": row["user"] and ANOTHER, "props": props}


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


def _notes(connection: Connection, pending: int) -> Iterator[Row]:
    (kept,) = connection.execute("SELECT count(*) FROM quarantine").fetchone()
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
        "person": lambda i: f"user {printable(i['user'])}, up to event {i['up_to_event']:,}",
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


def _subject_line(item: Row) -> str:
    return (
        f"{item['type']:20}  {printable(item['subject']):16}  {item['events']:,} times,"
        f" {format_time(item['first_ts_ns'])} to {format_time(item['last_ts_ns'])},"
        f" last {item['last_value']}, best {item['best_value']}"
    )
