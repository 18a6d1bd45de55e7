"""The ways of logging that are compared. Each is used inside a site, one event a request.

The earlier ways are rebuilt from their notes, not copied: one table, two indexes, a passphrase.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import sqlcipher3
from flask import Flask

from shared.client import Client
from webapp.activity import ActivityLog

EVENT_TYPE = "page_view"
USER = "17"
PROPS: dict[str, Any] = {
    "route": "/lesson/<int:lesson>",
    "method": "GET",
    "status": 200,
    "lesson": 12,
}

DATABASE = "earlier.db"
PASSPHRASE = "a passphrase is turned into a key at every open"
DELETE_FULL = ("DELETE", "FULL")
WAL_NORMAL = ("WAL", "NORMAL")

QUEUE_EVENTS_MAX = 1000
QUEUE_BATCH_MAX = 10
QUEUE_STOP_TIMEOUT_S = 30.0
FLUSH_TIMEOUT_S = 30.0

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, ts_ns INTEGER NOT NULL,"
    " type TEXT NOT NULL, user TEXT, props TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS event_user ON event (user, id)",
    "CREATE INDEX IF NOT EXISTS event_type ON event (type, id)",
)
_INSERT = "INSERT INTO event (ts_ns, type, user, props) VALUES (?, ?, ?, ?)"

Row = tuple[int, str, str, str]


class Mode(Protocol):
    """One way of logging."""

    def log(self) -> bool:
        """Logs one event: what is timed. False when it was refused."""

    def finish(self) -> dict[str, Any]:
        """Ends well, and says what it counted: attempted, accepted, refused, pending, lost."""


class _Counted:
    """Counts for the ways that do not count by themselves."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0

    def count(self, accepted: bool) -> bool:
        if accepted:
            self.accepted += 1
        else:
            self.refused += 1
        return accepted

    def counts(self, pending: int = 0, lost: int = 0) -> dict[str, Any]:
        return {
            "attempted": self.accepted + self.refused,
            "accepted": self.accepted,
            "refused": self.refused,
            "pending": pending,
            "lost": lost,
        }


class Nothing:
    """No logging: what a request costs by itself."""

    def log(self) -> bool:
        return True

    def finish(self) -> dict[str, Any]:
        return _Counted().counts()


def open_earlier(directory: Path, journal: tuple[str, str]) -> Any:
    """A connection as the earlier code made one: passphrase, journal mode, synchronous."""
    connection = sqlcipher3.connect(
        str(directory / DATABASE), isolation_level=None, check_same_thread=False
    )
    journal_mode, synchronous = journal
    connection.execute(f"PRAGMA key = '{PASSPHRASE}'")
    # The first access to the file, so it is here that the passphrase becomes a key.
    connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def prepare_earlier(directory: Path, journal: tuple[str, str]) -> None:
    """Makes the database with its table, before any request."""
    connection = open_earlier(directory, journal)
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.close()


def count_earlier(directory: Path) -> int:
    """How many events are in the earlier database."""
    connection = open_earlier(directory, WAL_NORMAL)
    try:
        return int(connection.execute("SELECT count(*) FROM event").fetchone()[0])
    finally:
        connection.close()


def _store(connection: Any, rows: Sequence[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, rows)
    connection.execute("COMMIT")


def _row() -> Row:
    return (time.time_ns(), EVENT_TYPE, USER, json.dumps(PROPS))


class Synchronous(_Counted):
    """The earlier way: in the request, a new connection for each event.

    The last connection of a WAL database that closes moves the log into the file and flushes both.
    With `open_elsewhere` another connection stays open all the time, and none is the last.
    """

    def __init__(
        self, directory: Path, journal: tuple[str, str], *, open_elsewhere: bool = False
    ) -> None:
        super().__init__()
        self._directory = directory
        self._journal = journal
        self._opening_ns = self._taken_ns = 0
        prepare_earlier(directory, journal)
        self._elsewhere = open_earlier(directory, journal) if open_elsewhere else None

    def log(self) -> bool:
        start_ns = opened_ns = time.perf_counter_ns()
        try:
            connection = open_earlier(self._directory, self._journal)
            opened_ns = time.perf_counter_ns()
            try:
                _store(connection, [_row()])
            finally:
                connection.close()
        except sqlcipher3.DatabaseError:
            return self.count(False)
        finally:
            self._opening_ns += opened_ns - start_ns
            self._taken_ns += time.perf_counter_ns() - start_ns
        return self.count(True)

    def finish(self) -> dict[str, Any]:
        if self._elsewhere is not None:
            self._elsewhere.close()
        return {**self.counts(), "opening_share": self._opening_ns / max(1, self._taken_ns)}


class InProcessQueue(_Counted):
    """The way after that: a bounded queue, and one thread with small transactions.

    Whether its thread kept its connection the notes do not tell, so there are both.
    """

    def __init__(self, directory: Path, *, keep_connection: bool) -> None:
        super().__init__()
        self._directory = directory
        self._keep_connection = keep_connection
        self._lost = 0
        self._stopping = threading.Event()
        self._queue: queue.Queue[Row | None] = queue.Queue(QUEUE_EVENTS_MAX)
        prepare_earlier(directory, WAL_NORMAL)
        self._thread = threading.Thread(target=self._work, name="earlier queue", daemon=True)
        self._thread.start()

    def log(self) -> bool:
        try:
            self._queue.put_nowait(_row())
        except queue.Full:
            return self.count(False)
        return self.count(True)

    def _work(self) -> None:
        connection = open_earlier(self._directory, WAL_NORMAL) if self._keep_connection else None
        while not self._stopping.is_set():
            rows = self._take()
            if rows:
                self._commit(connection, rows)
        if connection is not None:
            connection.close()

    def _take(self) -> list[Row]:
        """Up to ten events; waits for the first."""
        rows: list[Row] = []
        try:
            item = self._queue.get()
            while item is not None:
                rows.append(item)
                if len(rows) == QUEUE_BATCH_MAX:
                    return rows
                item = self._queue.get_nowait()
        except queue.Empty:
            return rows
        self._stopping.set()
        return rows

    def _commit(self, kept: Any, rows: list[Row]) -> None:
        try:
            connection = kept or open_earlier(self._directory, WAL_NORMAL)
            try:
                _store(connection, rows)
            finally:
                if connection is not kept:
                    connection.close()
        except sqlcipher3.DatabaseError:
            self._lost += len(rows)

    def finish(self) -> dict[str, Any]:
        deadline_s = time.monotonic() + QUEUE_STOP_TIMEOUT_S
        while self._queue.full() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self._stopping.set()
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        self._stopping.set()
        self._thread.join()  # the transaction in hand
        left = self._queue.qsize() - sum(item is None for item in list(self._queue.queue))
        return self.counts(pending=left, lost=self._lost)


class Logd:
    """This project: the extension in the site, the daemon beside it."""

    def __init__(self, app: Flask, socket: Path, *, durable: bool) -> None:
        app.config["ACTIVITY_LOG_SOCKET"] = str(socket)
        self._activity = ActivityLog(app)
        self._durable = durable

    def log(self) -> bool:
        return bool(self._activity.log(EVENT_TYPE, user=USER, durable=self._durable, **PROPS))

    def finish(self) -> dict[str, Any]:
        client = self._activity.client()
        assert isinstance(client, Client)
        client.flush(FLUSH_TIMEOUT_S)
        # What is pending, lost and stored is for the daemon to say.
        return {name: client.stats()[name] for name in ("attempted", "accepted", "refused")}
