"""Reports events that a filter selects: pages of them, their numbers, and a single event."""

from __future__ import annotations

from itertools import islice

from logd.clock.event_age import is_plausible
from logd.reports import sql, time_order
from logd.reports.event_filter import EventFilter
from logd.reports.event_queries import event_rows
from logd.reports.parameters import Parameters, page_limit
from logd.reports.time_order import Position, Search
from logd.storage.database import Connection, question_marks
from logd_wire.query import Answer, Row

# The most bytes of properties in a page:
# each property may name persons, and the reading has to list all of these.
PROPS_BYTES_MAX = 512 * 1024
EXPORT_ROWS_MAX = 1000
# Seconds that a page, an export's page, and counting may search.
PAGE_S, EXPORT_PAGE_S, COUNT_S = 0.06, 0.5, 0.06
# The parameters with which a page always had all of its rows.
_ALWAYS_WHOLE = ("types", "users", "about", "props", "text")


def timeline(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the events of one user in order of time, the latest first."""
    wanted = EventFilter(users=(parameters.text("user"),))
    return _page(connection, parameters, wanted, page_limit(parameters), None)


def events(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the events that a filter selects in order of their time, the latest first."""
    narrowed = parameters.has_any(_ALWAYS_WHOLE)
    wanted = EventFilter.of(parameters)
    limit = page_limit(parameters)
    return _page(connection, parameters, wanted, limit, PAGE_S if narrowed else None)


def events_export(connection: Connection, parameters: Parameters) -> Answer:
    """Reports what `events` does, in larger pages."""
    wanted = EventFilter.of(parameters)
    limit = page_limit(parameters, EXPORT_ROWS_MAX, EXPORT_ROWS_MAX)
    return _page(connection, parameters, wanted, limit, EXPORT_PAGE_S)


def _page(
    connection: Connection,
    parameters: Parameters,
    wanted: EventFilter,
    limit: int,
    time_s: float | None,
) -> Answer:
    """Returns a page, and where the next one begins: up to there it was searched."""
    before = time_order.position(connection, parameters)
    parameters.done()
    keys = parameters.context.person_keys
    search = Search(connection, wanted, keys, before=before, time_s=time_s)
    found = [Position(event.ts_ns, event.id) for event in islice(search, limit + 1)]
    page = _fitting(connection, found[:limit])
    ids = [event.id for event in page]
    of = {row["id"]: row for row in _rows(connection, ids)}
    end = page[-1] if len(page) < len(found) else search.reached
    rows = [of[one] for one in ids]
    return Answer(rows) if end is None else Answer(rows, end.id, searched_to_ns=end.ts_ns)


def _rows(connection: Connection, ids: list[int]) -> list[Row]:
    """Returns events, each with whether its own time is implausible given its time of storing."""
    rows = event_rows(connection, question_marks(ids), ids)
    for row in rows:
        row["time_in_doubt"] = not is_plausible(row["ts_ns"], row["stored_ns"])
    return rows


def _fitting(connection: Connection, page: list[Position]) -> list[Position]:
    """Returns the first events of the page, so few that one reading can list their persons."""
    ids = [event.id for event in page]
    sizes = dict(
        connection.execute(
            f"SELECT id, length(props) FROM event WHERE id IN ({question_marks(ids)})",  # noqa: S608 - question marks only
            ids,
        ).fetchall()
    )
    return page[: sql.fitting((sizes[event_id] for event_id in ids), PROPS_BYTES_MAX)]


def event(connection: Connection, parameters: Parameters) -> Answer:
    """Reports one event; if it was removed, the answer says how."""
    event_id = parameters.whole("id", high=2**63 - 1)
    parameters.done()
    rows = _rows(connection, [event_id])
    if rows:
        return Answer(rows)
    # Runs of removed events do not overlap.
    run = connection.execute(
        "SELECT r.last, m.kind FROM removed r JOIN removal m ON m.id = r.removal"
        " WHERE r.first <= ? ORDER BY r.first DESC LIMIT 1",
        (event_id,),
    ).fetchone()
    return Answer(removed=run[1] if run is not None and event_id <= run[0] else None)
