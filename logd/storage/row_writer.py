"""Writes the rows of a batch, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logd.batch import Batch
from logd.storage import removal_log
from logd.storage.batch_rows import BatchRows
from logd.storage.database import Connection

# Numbers of rows in a statement, largest first: it binds all of them
# and runs without the GIL. With few sizes, all statements stay prepared.
ROWS_PER_STATEMENT = (2000, 200, 20, 1)


def insert_producers(connection: Connection, rows: BatchRows) -> None:
    """Inserts and updates the batch's producers, and the counts of what their clients refused."""
    write = connection.executemany
    write("INSERT INTO producer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows.new_producers)
    write(
        "UPDATE producer SET watermark = max(watermark, ?), ended = ?, has_outbox = ?,"
        " boot_id = ?, pid = ?, last_seen_ns = ? WHERE id = ?",
        rows.known_producers,
    )
    write(
        "INSERT INTO refusal VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET events = max(events, excluded.events)",
        rows.refusals,
    )


def insert_rows(connection: Connection, rows: BatchRows) -> None:
    """Inserts the events, the batch with its losses, and the quarantine's rows."""
    _insert(connection, "event", rows.events, columns=8)
    if rows.batch is not None:
        connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)", rows.batch)
        connection.executemany("INSERT INTO node VALUES (?, ?, ?)", rows.nodes)
        connection.executemany(
            "INSERT INTO loss (batch, producer, first, last, cause, detected_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows.losses,
        )
    if rows.quarantine_first > 1:  # only the newest rows stay; the counters include all
        connection.execute("DELETE FROM quarantine WHERE id < ?", (rows.quarantine_first,))
    _insert(connection, "quarantine", rows.quarantine, columns=9)


def _insert(connection: Connection, table: str, values: list[Any], columns: int) -> None:
    """Inserts the rows in a flat list of values, many with each statement.

    `executemany` would take the GIL again for each row.
    """
    row_marks = f"({', '.join('?' * columns)})"
    start = 0
    for size in ROWS_PER_STATEMENT:
        statement = f"INSERT INTO {table} VALUES {', '.join([row_marks] * size)}"  # noqa: S608 - no data in it
        length = size * columns
        while len(values) - start >= length:
            connection.execute(statement, values[start : start + length])
            start += length


def count_batch(
    connection: Connection, batch: Batch, rows: BatchRows, *, erased: int, internal: int
) -> None:
    """Adds the batch's numbers to the counters; `internal` is how many of its events logd wrote."""
    changes = {
        "stored": len(batch.events),
        "own": internal,
        removal_log.ERASED: erased,
        "lost": batch.lost(claimed=False),
        "lost_claimed": batch.lost(claimed=True),
        "quarantined": len(batch.quarantine_entries),
        "quarantined_events": sum(r.sequence is not None for r in batch.quarantine_entries),
        "duplicates_ignored": batch.duplicates,
        "commits": 0 if rows.batch is None else 1,
    }
    add_to_counters(connection, {name: change for name, change in changes.items() if change})


def add_to_counters(connection: Connection, changes: Mapping[str, int]) -> None:
    """Adds each number to the counter with that name."""
    connection.executemany(
        "INSERT INTO counter VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET value = value + excluded.value",
        list(changes.items()),
    )
