"""Makes a trail of an earlier schema, without the store of today."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from logd.storage import rollups, tree
from logd.storage.database import connect
from logd.storage.migrations import MIGRATIONS, split
from logd_wire.wire import Event
from tests.logd.rebuilding import rebuild

EVENTS_PER_BATCH = 5000


def older(
    path: Path,
    key: bytes,
    schema: int,
    events: Iterable[Event],
    per_batch: int = EVENTS_PER_BATCH,
) -> None:
    """Makes a database of that schema with these events, of one producer that has ended."""
    connection = connect(path, key)
    rollups.add_functions(connection)
    tree.add_functions(connection)
    connection.execute("BEGIN")
    connection.execute(
        "CREATE TABLE migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
        " applied_ns INTEGER NOT NULL)"
    )
    for version, (name, script) in enumerate(MIGRATIONS[:schema], start=1):
        for statement in split(script):
            connection.execute(statement)
        connection.execute("INSERT INTO migration VALUES (?, ?, 1)", (version, name))
    types: dict[str, int] = {}
    stored, batch, remaining = 0, 0, iter(events)
    connection.execute(
        "INSERT INTO producer VALUES (1, 1000, '00000000000000aa', 0, 0, 1, 'earlier', 1, 1, 1)"
    )
    while part := list(islice(remaining, per_batch)):
        batch += 1
        for event in part:
            if event.type not in types:
                types[event.type] = len(types) + 1
                connection.execute(
                    "INSERT INTO event_type (id, name) VALUES (?, ?)",
                    (types[event.type], event.type),
                )
        connection.executemany(
            "INSERT INTO event VALUES (?, 1, ?, ?, ?, ?, ?, ?)",
            [
                (number, number, event.ts_ns, types[event.type], event.user)
                + (bytearray(event.props), bytearray(os.urandom(16)))
                for number, event in enumerate(part, start=stored + 1)
            ],
        )
        connection.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, x'', x'')", (batch, batch, stored + 1, len(part))
        )
        stored += len(part)
    connection.execute("UPDATE producer SET watermark = ?", (stored,))
    connection.execute("COMMIT")
    rebuild(connection)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
