"""The earlier design's database: one event, one transaction, inside the request.

Rebuilt from notes, not copied: one table, two indexes. The notes do not say which key it used and
whether connections were kept, so every combination is here.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlcipher3

EVENT_TYPE = "page_view"
USER = "17"
PROPS: dict[str, Any] = {
    "route": "/lesson/<int:lesson>",
    "method": "GET",
    "status": 200,
    "lesson": 12,
}

FILE = "earlier.db"
BUSY_TIMEOUT_S = 5.0  # seconds, the default of the standard library
_KEYS = {
    "plain": None,
    "passphrase": "'a passphrase is turned into a key at every open'",
    "raw": f"\"x'{'5eed' * 16}'\"",
}
_JOURNALS = {
    "delete": ("DELETE", "FULL"),
    "wal": ("WAL", "NORMAL"),
    "walfull": ("WAL", "FULL"),
}
CIPHERS = tuple(_KEYS)
JOURNALS = tuple(_JOURNALS)
CIPHER_LABELS = {"plain": "plain", "passphrase": "passphrase", "raw": "raw key"}
JOURNAL_LABELS = {name: " + ".join(modes) for name, modes in _JOURNALS.items()}

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, ts_ns INTEGER NOT NULL,"
    " type TEXT NOT NULL, user TEXT, props TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS event_user ON event (user, id)",
    "CREATE INDEX IF NOT EXISTS event_type ON event (type, id)",
)
_INSERT = "INSERT INTO event (ts_ns, type, user, props) VALUES (?, ?, ?, ?)"

Row = tuple[int, str, str, str]


def make_row(event: str) -> Row:
    """Return an event as a row; `event` is its name in the ledger."""
    return (time.time_ns(), EVENT_TYPE, USER, json.dumps({**PROPS, "event": event}))


@dataclass(frozen=True)
class Database:
    """The database file in `directory`, with one kind of key and one journal mode."""

    directory: Path
    cipher: str = "passphrase"
    journal: str = "wal"

    def open(self) -> Any:
        """Open a connection as the earlier design did. Raises sqlcipher3.DatabaseError."""
        connection = sqlcipher3.connect(
            str(self.directory / FILE),
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        journal_mode, synchronous = _JOURNALS[self.journal]
        if key := _KEYS[self.cipher]:
            connection.execute(f"PRAGMA key = {key}")
        # With a passphrase, SQLCipher derives the key here, at the first access to the file.
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    def prepare(self) -> None:
        """Create the table, before any request is measured."""
        with contextlib.closing(self.open()) as connection:
            for statement in _SCHEMA:
                connection.execute(statement)

    def stored(self) -> list[str]:
        """Return the names of the stored events."""
        with contextlib.closing(self.open()) as connection:
            rows = connection.execute("SELECT props FROM event").fetchall()
        return [json.loads(props)["event"] for (props,) in rows]


def insert(connection: Any, rows: Sequence[Row]) -> None:
    """Insert rows in the caller's transaction. Raises sqlcipher3.DatabaseError."""
    connection.executemany(_INSERT, rows)


def store(connection: Any, rows: Sequence[Row]) -> None:
    """Store rows in one transaction; roll back on an error. Raises sqlcipher3.DatabaseError."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        insert(connection, rows)
        connection.execute("COMMIT")
    except sqlcipher3.DatabaseError:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class Synchronous:
    """Writes in the request, with a new connection for each event or with one kept per thread."""

    def __init__(self, database: Database, *, keep_connection: bool) -> None:
        self._database = database
        self._connection = self._kept if keep_connection else self._new
        self._local = threading.local()

    def log(self, event: str, _quiz: bool) -> bool:
        try:
            with self._connection() as connection:
                store(connection, [make_row(event)])
        except sqlcipher3.DatabaseError:
            return False
        return True

    @contextlib.contextmanager
    def _new(self) -> Iterator[Any]:
        connection = self._database.open()
        try:
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[Any]:
        if not hasattr(self._local, "connection"):
            self._local.connection = self._database.open()
        yield self._local.connection
