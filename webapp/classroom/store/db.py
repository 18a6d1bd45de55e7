"""The one opener of the site's own SQLCipher file: key, pragmas, migrations, transactions.

The key is raw: SQLCipher then derives nothing at open, where a passphrase would cost 256,000 rounds
of PBKDF2. Connections are kept all the same, because the last one to close checkpoints the
write-ahead log, which a request should not pay for.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from flask import Flask, current_app
from sqlcipher3 import dbapi2 as sqlcipher

from webapp.classroom.store.instance import Instance, InstanceError
from webapp.classroom.store.schema import MIGRATIONS

# sqlcipher3 is the standard module compiled against another library, without types of its own.
Connection = sqlite3.Connection

BUSY_TIMEOUT_MS = 5000

_EXTENSION = "classroom_database"


class Database:
    """Hands out one connection per thread of a process, never one that came over a fork."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._key = instance.read_database_key()
        self._local = threading.local()
        self._inherited: list[Connection] = []

    def init_app(self, app: Flask) -> None:
        app.extensions[_EXTENSION] = self

    def connection(self) -> Connection:
        """This thread's connection, opened on first use."""
        held: Connection | None = getattr(self._local, "connection", None)
        if held is not None and self._local.pid == os.getpid():
            return held
        if held is not None:
            # It is the parent's. Closing it here could delete the log file under the parent's feet,
            # so it is kept, unused, until this process ends.
            self._inherited.append(held)
        self._local.connection = self._open()
        self._local.pid = os.getpid()
        return cast(Connection, self._local.connection)

    def close(self) -> None:
        """Closes this thread's connection, if it is this process's own."""
        held: Connection | None = getattr(self._local, "connection", None)
        if held is not None and self._local.pid == os.getpid():
            held.close()
            self._local.connection = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One write transaction: committed at the end of the block, rolled back on any exception.

        IMMEDIATE takes the write lock at once. A transaction that starts by reading and then wants
        to write may be refused without waiting, whatever the busy timeout.
        """
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # On a full disk SQLite has rolled back by itself, and a second time is an error that
            # would hide the first.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def migrate(self) -> None:
        """Brings the file to the newest schema. Refuses one that is newer than this code."""
        with operator_errors(self.instance), self.transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations"
                " (number INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT"
            )
            (done,) = connection.execute(
                "SELECT coalesce(max(number), 0) FROM migrations"
            ).fetchone()
        if done > len(MIGRATIONS):
            raise InstanceError(
                f"The database {self.instance.database} has schema {done}, newer than the "
                f"{len(MIGRATIONS)} this version of the site knows. Run the newer version."
            )
        for number, (name, script) in enumerate(MIGRATIONS[done:], start=done + 1):
            with operator_errors(self.instance), self.transaction() as connection:
                # Another worker may have come first while this one waited for the lock.
                row = connection.execute(
                    "SELECT 1 FROM migrations WHERE number = ?", (number,)
                ).fetchone()
                if row is None:
                    for statement in _statements(script):
                        connection.execute(statement)
                    connection.execute("INSERT INTO migrations VALUES (?, ?)", (number, name))

    def _open(self) -> Connection:
        with operator_errors(self.instance):
            connection = cast(
                Connection,
                sqlcipher.connect(
                    str(self.instance.database),
                    timeout=BUSY_TIMEOUT_MS / 1000,
                    isolation_level=None,  # transactions are begun by hand, in transaction()
                    cached_statements=256,
                ),
            )
            try:
                # The key comes before any other pragma; the quotes-in-quotes form says "raw".
                connection.execute(f"PRAGMA key = \"x'{self._key}'\"")
                # Its errors come to us as exceptions; on stderr it would say them a second time.
                connection.execute("PRAGMA cipher_log_level = NONE")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA temp_store = MEMORY")
                connection.row_factory = cast(Any, sqlcipher.Row)
                # The first read is where a wrong key shows.
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except BaseException:
                connection.close()
                raise
            return connection


def get_db() -> Database:
    """The database of the app that serves the current request."""
    return cast(Database, current_app.extensions[_EXTENSION])


@contextmanager
def operator_errors(instance: Instance) -> Iterator[None]:
    """Turns SQLCipher's words for a file it cannot use into what the operator can do about it."""
    try:
        yield
    except sqlcipher.OperationalError as error:
        raise InstanceError(
            f"The database {instance.database} cannot be used: {error}. "
            "Check the free space, the owner of the file and of its directory."
        ) from error
    except sqlcipher.DatabaseError as error:
        raise InstanceError(
            f"The database {instance.database} cannot be read with the key in "
            f"{instance.database_key}: the key is another one, or the file is damaged. "
            "Restore both files from the same backup."
        ) from error


def _statements(script: str) -> Iterator[str]:
    """Single statements of a script: executescript() would commit the open transaction first."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
