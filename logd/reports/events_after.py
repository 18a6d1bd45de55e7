"""Reports events in the order of storing, for programs that follow the trail by asking again.

The order of storing never changes, so whoever asks for the events after the last one that it has
seen misses none and gets none twice, across restarts of either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from logd.clock.event_age import is_plausible
from logd.reports import sql
from logd.reports.event_queries import event_page
from logd.reports.event_search import PROPS_BYTES_MAX
from logd.reports.parameters import Parameters, page_limit
from logd.reports.readings import Concerned, Mentioned, named_in_rows
from logd.reports.selection import newest_id
from logd.storage.database import Connection
from logd_wire.query import Answer, QueryError, Row
from logd_wire.schema import REPORT_READ

NAME = "events_after"


def events_after(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the events stored after `after_id`, oldest first; without it the newest ones.

    A reading of this report is an event, which the next request would return, which would be a
    reading again, and so on without an end. So these events are returned together with others: they
    wait until there are any, or a page is full of them.
    """
    after_id = parameters.maybe_whole("after_id")
    after_ns = parameters.maybe_whole("after_ns")
    event_type = parameters.maybe_text("type")
    limit = page_limit(parameters)
    parameters.done()
    if after_id is None:
        page = event_page(connection, event_type=event_type, limit=limit)
        rows = _fitting(page.rows)[::-1]
        return Answer(_marked(rows))
    _check_same_trail(connection, after_id, after_ns)
    page = event_page(connection, event_type=event_type, after_id=after_id, limit=limit)
    rows = _fitting(page.rows)
    if len(rows) < limit and all(map(_is_own_reading, rows)):
        return Answer()
    more = page.next is not None or len(rows) < len(page.rows)
    return Answer(_marked(rows), rows[-1]["id"] if more else None)


def named_if_any(
    connection: Connection, params: Mapping[str, Any], answer: Answer, mentioned: Mentioned
) -> Concerned | None:
    """Finds the persons in the rows. An answer without rows is about no one, and is no reading."""
    return named_in_rows(connection, params, answer, mentioned) if answer.rows else None


def _check_same_trail(connection: Connection, after_id: int, after_ns: int | None) -> None:
    """Raises QueryError if the trail was replaced since by one without that event.

    A removed event is no sign of that: its removal is an event with a higher id.
    """
    newest = newest_id(connection)
    found = connection.execute("SELECT ts_ns FROM event WHERE id = ?", (after_id,)).fetchone()
    if after_id > newest or (found is not None and after_ns not in (None, found[0])):
        raise QueryError(
            "replaced",
            f"after_id: event {after_id} is another one now, or none (the newest is {newest}): the"
            " trail was restored from a backup, or replaced. Start again without after_id",
        )


def _fitting(rows: list[Row]) -> list[Row]:
    """Returns the first rows, so few that one reading can list their events' persons."""
    sizes = (len(msgpack.packb(row["props"])) for row in rows)
    return rows[: sql.fitting(sizes, PROPS_BYTES_MAX)]


def _marked(rows: list[Row]) -> list[Row]:
    return [
        {**row, "time_in_doubt": not is_plausible(row["ts_ns"], row["stored_ns"])} for row in rows
    ]


def _is_own_reading(row: Row) -> bool:
    return bool(row["type"] == REPORT_READ and row["props"].get("report") == NAME)
