"""Which events are asked for, and the way through them in pages: nothing is held between two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from logd.render import to_json
from logd.reports.event_queries import event_page
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.storage.database import Connection
from logd_wire.query import Row


@dataclass(frozen=True)
class Selection:
    """Events of any of the types, of any of the users, from `since_ns` to before `until_ns`
    (nanoseconds since 1970, the clients' clocks), whose properties are all as `where` has them.

    What is empty or None asks for nothing.
    """

    types: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    where: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> dict[str, Any]:
        """What the database looks for, as `event_page` takes it; `matches` is looked for here."""
        return {
            "event_type": self.types,
            "user": self.users,
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
        }

    def matches(self, props: Mapping[str, Any]) -> bool:
        """Whether the properties are as asked: equal as text, or as the JSON of what is no text."""
        return all(key in props and _is(props[key], text) for key, text in self.where)

    @property
    def filters(self) -> dict[str, Any]:
        """What was asked for, for the trail: that it was about users, never about whom."""
        said: dict[str, Any] = {
            "types": list(self.types),
            "by_user": bool(self.users),
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
            "by_property": [key for key, _ in self.where],
        }
        return {name: value for name, value in said.items() if value}


def _is(value: object, text: str) -> bool:
    return value == text if isinstance(value, str) else to_json(value) == text


def newest_id(connection: Connection) -> int:
    """The id of the newest event, 0 without any."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])


def chosen_events(
    connection: Connection, selection: Selection, limit: int | None = None
) -> Iterable[Row]:
    """Returns the selected events, oldest first: all of them, or the newest `limit`."""
    if limit is not None:
        top = newest_id(connection)
        return newest(connection, selection, limit, up_to_id=top, rows_max=PAGE_ROWS_MAX)
    found = pages(connection, selection, rows_max=PAGE_ROWS_MAX)
    return (row for _position, rows in found for row in rows)


def pages(
    connection: Connection,
    selection: Selection,
    *,
    after_id: int = 0,
    up_to_id: int | None = None,
    rows_max: int,
) -> Iterator[tuple[int | None, list[Row]]]:
    """The events asked for, oldest first: up to which id all were looked at (None: all), and those.

    An event that is stored meanwhile may be among the last, unless it is past `up_to_id`.
    """
    before_id = None if up_to_id is None else up_to_id + 1
    position: int | None = after_id
    while position is not None:
        page = event_page(
            connection, after_id=position, before_id=before_id, limit=rows_max, **selection.asked
        )
        position = page.next
        yield position, _matching(selection, page.rows)


def newest(
    connection: Connection, selection: Selection, limit: int, *, up_to_id: int, rows_max: int
) -> list[Row]:
    """At most so many of the newest events asked for, oldest first."""
    rows: list[Row] = []
    before_id: int | None = up_to_id + 1
    while before_id is not None and len(rows) < limit:
        size = rows_max if selection.where else min(rows_max, limit - len(rows))
        page = event_page(connection, before_id=before_id, limit=size, **selection.asked)
        rows += _matching(selection, page.rows)
        before_id = page.next
    return rows[:limit][::-1]


def _matching(selection: Selection, rows: list[Row]) -> list[Row]:
    if not selection.where:
        return rows
    return [row for row in rows if selection.matches(row["props"])]
