"""Reports and pages of the loss ledger and of quarantine. Each reads one bounded page."""

from __future__ import annotations

from collections.abc import Iterator

from logd.batch import (
    LOST_BEGINNING_UNKNOWN,
    LOST_CLAIMED,
    LOST_DAMAGED,
    LOST_NOT_RECEIVED,
    LOST_OUTBOX_GONE,
    LOST_RESTORED,
    LOST_TAIL_UNKNOWN,
)
from logd.reports import sql
from logd.reports.parameters import PAGE_ROWS_MAX, Parameters, page_bounds, rows_to_skip
from logd.storage.database import Connection
from logd_wire.query import ROWS_MAX, Answer, Row

CAUSES = (
    LOST_NOT_RECEIVED,
    LOST_DAMAGED,
    LOST_RESTORED,
    LOST_TAIL_UNKNOWN,
    LOST_OUTBOX_GONE,
    LOST_BEGINNING_UNKNOWN,
    LOST_CLAIMED,
)


def losses(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the loss ledger, newest first."""
    before, limit = page_bounds(parameters)
    parameters.done()
    return loss_page(connection, before, limit)


def loss_page(
    connection: Connection, before: int | None, limit: int, *, claimed: bool = True
) -> Answer:
    """Returns a page of the loss ledger, newest first, from below the entry `before`.

    The answer's `next` continues it. Without `claimed`, losses that only an outbox reports are left
    out.
    """
    rows = sql.fetch_rows(
        connection,
        "SELECT l.id, p.uid || '-' || p.key AS producer, l.first, l.last,"
        " l.last - l.first + 1 AS events, l.cause, l.detected_ns"
        " FROM loss l JOIN producer p ON p.id = l.producer"
        " WHERE (? IS NULL OR l.id < ?) AND (? OR l.cause <> ?) ORDER BY l.id DESC LIMIT ?",
        [before, before, claimed, LOST_CLAIMED, limit + 1],
    )
    more = len(rows) > limit
    return Answer(rows[:limit], rows[limit - 1]["id"] if more else None)


def all_losses(connection: Connection) -> Iterator[Row]:
    """Yields every entry of the loss ledger, newest first."""
    before: int | None = None
    while True:
        page = loss_page(connection, before, PAGE_ROWS_MAX)
        yield from page.rows
        before = page.next
        if before is None:
            return


def losses_by_user(connection: Connection, limit: int) -> list[Row]:
    """Returns the losses by user, the largest first; claimed losses are counted separately."""
    return sql.fetch_rows(
        connection,
        "SELECT p.uid, count(*) AS entries,"
        " coalesce(sum((l.last - l.first + 1) * (l.cause <> ?1)), 0) AS events,"
        " sum(l.last IS NULL AND l.cause <> ?1) AS unknown_extent,"
        " coalesce(sum((l.last - l.first + 1) * (l.cause = ?1)), 0) AS claimed,"
        " sum(l.last IS NULL AND l.cause = ?1) AS claimed_unknown_extent"
        " FROM loss l JOIN producer p ON p.id = l.producer GROUP BY p.uid"
        " ORDER BY events DESC, unknown_extent DESC, entries DESC LIMIT ?2",
        [LOST_CLAIMED, limit],
    )


def losses_by_cause(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the totals of the loss ledger for each cause, including causes without losses."""
    after = rows_to_skip(parameters)
    parameters.done()
    rows = totals_by_cause(connection)
    end = after + ROWS_MAX
    return Answer(rows[after:end], end if end < len(rows) else None)


def totals_by_cause(connection: Connection) -> list[Row]:
    """Returns the totals of the loss ledger by cause, as the report `losses_by_cause` has them."""
    rows = sql.fetch_rows(
        connection,
        "SELECT cause, count(*) AS entries, coalesce(sum(last - first + 1), 0) AS events,"
        " sum(last IS NULL) AS unknown_extent, max(detected_ns) AS last_detected_ns"
        " FROM loss GROUP BY cause ORDER BY cause",
        [],
    )
    there = {row["cause"]: row for row in rows}
    zeros = {"entries": 0, "events": 0, "unknown_extent": 0, "last_detected_ns": None}
    known = [there.pop(cause, {"cause": cause, **zeros}) for cause in CAUSES]
    return [*known, *there.values()]


def quarantine(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the entries in quarantine, newest first; excerpts are hexadecimal."""
    before, limit = page_bounds(parameters)
    parameters.done()
    return quarantine_page(connection, before, limit)


def quarantine_page(connection: Connection, before: int | None, limit: int) -> Answer:
    """Returns a page of quarantine, newest first, from below the row `before`."""
    rows = sql.fetch_rows(
        connection,
        "SELECT q.id, q.detected_ns, q.uid, q.pid, q.reason, p.uid || '-' || p.key AS producer,"
        " q.sequence, q.bytes, lower(hex(q.excerpt)) AS excerpt"
        " FROM quarantine q LEFT JOIN producer p ON p.id = q.producer"
        " WHERE ? IS NULL OR q.id < ? ORDER BY q.id DESC LIMIT ?",
        [before, before, limit + 1],
    )
    more = len(rows) > limit
    return Answer(rows[:limit], rows[limit - 1]["id"] if more else None)
