"""Selects events, and reads them in pages; no transaction stays open between two pages."""

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
    """Selects events by type, user, time and properties.

    An event has one of `types`, is of one of `users`, has a client's time from `since_ns` to before
    `until_ns` (nanoseconds since 1970), and has all properties in `where`. An empty or None field
    selects all.
    """

    types: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    where: tuple[tuple[str, str], ...] = ()

    @property
    def query(self) -> dict[str, Any]:
        """Returns the part of the selection that `event_page` takes; `matches` checks the rest."""
        return {
            "event_type": self.types,
            "user": self.users,
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
        }

    def matches(self, props: Mapping[str, Any]) -> bool:
        """Returns whether all properties match: text must be equal, other values equal as JSON."""
        return all(key in props and _is(props[key], text) for key, text in self.where)

    @property
    def filters(self) -> dict[str, Any]:
        """Returns the selection for the trail's record: whether it was by user, but no user."""
        filters: dict[str, Any] = {
            "types": list(self.types),
            "by_user": bool(self.users),
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
            "by_property": [key for key, _ in self.where],
        }
        return {name: value for name, value in filters.items() if value}


def _is(value: object, text: str) -> bool:
    return value == text if isinstance(value, str) else to_json(value) == text


def newest_id(connection: Connection) -> int:
    """Returns the id of the newest event; 0 if there is none."""
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
    """Yields pages of selected events, oldest first, each with the id of the last event scanned.

    That id is None in the last page. Events stored meanwhile are included up to `up_to_id`.
    """
    before_id = None if up_to_id is None else up_to_id + 1
    position: int | None = after_id
    while position is not None:
        page = event_page(
            connection, after_id=position, before_id=before_id, limit=rows_max, **selection.query
        )
        position = page.next
        yield position, _matching(selection, page.rows)


def newest(
    connection: Connection, selection: Selection, limit: int, *, up_to_id: int, rows_max: int
) -> Iterator[Row]:
    """Yields at most `limit` of the newest selected events, oldest first.

    Only the events of one page are kept in memory; if there are more, they are read again from the
    first on.
    """
    kept: list[Row] = []
    found, first = 0, up_to_id + 1
    before_id: int | None = first
    while before_id is not None and found < limit:
        size = rows_max if selection.where else min(rows_max, limit - found)
        page = event_page(connection, before_id=before_id, limit=size, **selection.query)
        rows = _matching(selection, page.rows)[: limit - found]
        if rows:
            found, first = found + len(rows), rows[-1]["id"]
        if limit <= rows_max:
            kept += rows
        before_id = page.next
    if limit <= rows_max:
        yield from reversed(kept)
        return
    again = pages(connection, selection, after_id=first - 1, up_to_id=up_to_id, rows_max=rows_max)
    for _position, rows in again:
        yield from rows


def _matching(selection: Selection, rows: list[Row]) -> list[Row]:
    if not selection.where:
        return rows
    return [row for row in rows if selection.matches(row["props"])]
