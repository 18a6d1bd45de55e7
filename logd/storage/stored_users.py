"""Reads the users of stored events a page at a time, since clients may have invented any number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from logd.storage.database import Connection
from logd.storage.mentions import NORMAL_OF_ANOTHER, canonical, is_person

PAGE_ROWS = 5000
_LAST = "\U0010ffff" * 64  # past every user id


def pages(connection: Connection, rows_max: int = PAGE_ROWS) -> Iterator[dict[str, int]]:
    """Yields pages of users with their number of events. A user may come again in a later page.

    No transaction stays open between two pages.
    """
    place: tuple[Any, ...] = (-1, 0, "")
    while rows := connection.execute(
        "SELECT type, day, user, events FROM rollup_day WHERE (type, day, user) > (?, ?, ?)"
        " ORDER BY type, day, user LIMIT ?",
        (*place, rows_max),
    ).fetchall():
        users: dict[str, int] = {}
        for _, _, user, events in rows:
            users[user] = users.get(user, 0) + events
        yield users
        place = rows[-1][:3]


def spellings(connection: Connection, user: str) -> dict[str, int]:
    """Returns all spellings of the user's id in the trail, with their number of events."""
    same = is_person(user)
    found = [other for other in _candidates(connection, canonical(user)) if same(other)]
    counts = "SELECT sum(events) FROM rollup_day WHERE user = ?"
    return {other: connection.execute(counts, (other,)).fetchone()[0] for other in sorted(found)}


def _candidates(connection: Connection, wanted: str) -> Iterator[str]:
    """Yields the users among which all spellings of a canonical id are."""
    if not wanted.isascii() or not NORMAL_OF_ANOTHER.isdisjoint(wanted):
        yield from _distinct(connection, "", _LAST)
        return
    # The other spellings of an ASCII id are those of a whole number: 7, 7.0, 7.00.
    yield from _distinct(connection, wanted, wanted + "\0")
    yield from _distinct(connection, wanted + ".", wanted + "/")


def _distinct(connection: Connection, first: str, end: str) -> Iterator[str]:
    """Yields the users from `first` to before `end`, with one look into the index for each."""
    while page := connection.execute(
        "WITH RECURSIVE one (user) AS (SELECT min(user) FROM rollup_day WHERE user >= ?1"
        " AND user < ?2 UNION ALL SELECT (SELECT min(user) FROM rollup_day WHERE user > one.user"
        " AND user < ?2) FROM one WHERE one.user IS NOT NULL LIMIT ?3)"
        " SELECT user FROM one WHERE user IS NOT NULL",
        (first, end, PAGE_ROWS),
    ).fetchall():
        yield from (user for (user,) in page)
        first = page[-1][0] + "\0"
