"""A bare bulk insert of the rows that a daemon has stored: the upper bound for this schema.

`python -m benchmarks.ingest.bulk CONFIG FIRST LAST DATABASE` reads the batches FIRST to LAST from
an instance's trail, then inserts them into a new database with the same schema, key length, pragmas
and cache, in the same transactions and with the same statements, each transaction flushed before
the next. No ordering, hashing, roll-ups or counters.
"""

from __future__ import annotations

import contextlib
import gc
import json
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logd.config import settings as configuration
from logd.config.settings import Config
from logd.storage import keyfile
from logd.storage.database import Connection, connect
from logd.storage.migrations import migrate

MARK = "bulk: "
KEY_BYTES = 32
ROWS_PER_STATEMENT = (2000, 200, 20, 1)
CHECKPOINT_PAGES = 4000
# The tables to which events refer.
_REFERRED = ("producer", "event_type")
_COLUMNS = "id, producer, sequence, ts_ns, type, user, props, salt"

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Inserted:
    """The result of the insert; `stored` is counted in the database afterwards."""

    events: int
    stored: int
    commits: int
    checkpoints: int
    seconds: float
    cpu_s: float


@dataclass(frozen=True)
class Trail:
    """The rows of events by transaction, and the rows that they refer to by table."""

    referred: dict[str, list[Row]]
    transactions: list[list[Row]]


def read(config: Config, first: int, last: int) -> Trail:
    """Read batches of an instance whose daemon does not run."""
    key = keyfile.read(config.key_file)
    with contextlib.closing(connect(config.database, key, read_only=True)) as connection:
        query = connection.execute
        referred = {
            table: query(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in _REFERRED
        }
        batches = query(
            "SELECT first_event, first_event + events FROM batch"
            " WHERE id BETWEEN ? AND ? ORDER BY id",
            (first, last),
        ).fetchall()
        event = f"SELECT {_COLUMNS} FROM event WHERE id >= ? AND id < ? ORDER BY id"
        return Trail(referred, [query(event, batch).fetchall() for batch in batches])


def create(path: Path, cache_bytes_max: int) -> Connection:
    """Create a database as the daemon creates its own."""
    connection = connect(path, secrets.token_bytes(KEY_BYTES))
    connection.execute(f"PRAGMA cache_size = -{cache_bytes_max // 1024}")
    migrate(connection, time.time_ns())
    return connection


def insert(connection: Connection, table: str, rows: list[Row]) -> None:
    """Insert rows with multi-row statements, which stay prepared."""
    start = 0
    for size in ROWS_PER_STATEMENT:
        if len(rows) - start < size:
            continue
        marks = f"({', '.join('?' * len(rows[0]))})"
        statement = f"INSERT INTO {table} VALUES {', '.join([marks] * size)}"
        while len(rows) - start >= size:
            connection.execute(statement, _values(rows[start : start + size]))
            start += size


def _values(rows: list[Row]) -> list[Any]:
    if type(rows[0][-1]) is not bytes:
        return [value for row in rows for value in row]
    # A row of an event. sqlcipher3 binds a bytearray directly,
    # but searches an adapter for each `bytes`, which takes longer than the rest of the row.
    values: list[Any] = []
    add = values.extend
    for event_id, producer, sequence, ts_ns, kind, user, props, salt in rows:
        add((event_id, producer, sequence, ts_ns, kind, user, bytearray(props), bytearray(salt)))
    return values


def checkpoint(connection: Connection) -> bool:
    """Checkpoint a long WAL, as the daemon's store does; return whether it was long."""
    pages = connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()[1]
    if pages < CHECKPOINT_PAGES:
        return False
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return True


def measure(trail: Trail, connection: Connection) -> Inserted:
    """Insert the rows, transaction by transaction."""
    for table, rows in trail.referred.items():
        insert(connection, table, rows)
    checkpoints = 0
    # The rows exist before the clock starts; frozen, they are not scanned by the garbage collector.
    gc.collect()
    gc.freeze()
    started_s, cpu_s = time.monotonic(), time.process_time()
    for rows in trail.transactions:
        connection.execute("BEGIN IMMEDIATE")
        insert(connection, "event", rows)
        connection.execute("COMMIT")
        checkpoints += checkpoint(connection)
    seconds, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
    stored = connection.execute("SELECT count(*) FROM event").fetchone()[0]
    events = sum(map(len, trail.transactions))
    return Inserted(events, stored, len(trail.transactions), checkpoints, seconds, cpu_s)


def main(config_path: str, first: str, last: str, database: str) -> None:
    """Run one insert and print the result as one line."""
    config = configuration.load(config_path)
    trail = read(config, int(first), int(last))
    with contextlib.closing(create(Path(database), config.cache_bytes_max)) as connection:
        print(MARK + json.dumps(asdict(measure(trail, connection))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
