"""Reads the users of stored events a page at a time, since clients may have invented any number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from logd.storage.database import Connection
from logd.storage.mentions import is_person

PAGE_ROWS = 5000


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
    found: dict[str, int] = {}
    for page in pages(connection):
        for other, events in page.items():
            if same(other):
                found[other] = found.get(other, 0) + events
    return dict(sorted(found.items()))
