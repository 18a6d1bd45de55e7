"""The site's own SQLCipher database: connections, migrations, transactions.

The key is raw, so that opening needs no key derivation (256,000 rounds of PBKDF2 for a passphrase).
Connections are kept open nevertheless: closing the last one checkpoints the WAL, which its request
would wait for.
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

# sqlcipher3 has the interface of the standard module, but no types of its own.
Connection = sqlite3.Connection

BUSY_TIMEOUT_MS = 5000

_EXTENSION = "classroom_database"


class Database:
    """The site's database: one connection per thread and process, none used after a fork."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._key = instance.read_database_key()
        self._local = threading.local()
        self._inherited: list[Connection] = []

    def init_app(self, app: Flask) -> None:
        app.extensions[_EXTENSION] = self

    def connection(self) -> Connection:
        """Returns this thread's connection, opened on first use."""
        held: Connection | None = getattr(self._local, "connection", None)
        if held is not None and self._local.pid == os.getpid():
            return held
        if held is not None:
            # The connection is the parent's. Closing it in this process could delete the
            # WAL that the parent uses, so it is kept, unused, until this process ends.
            self._inherited.append(held)
        self._local.connection = self._open()
        self._local.pid = os.getpid()
        return cast(Connection, self._local.connection)

    def close(self) -> None:
        """Closes this thread's connection, unless it was inherited by a fork."""
        held: Connection | None = getattr(self._local, "connection", None)
        if held is not None and self._local.pid == os.getpid():
            held.close()
            self._local.connection = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Runs the block in a write transaction: commits at its end, rolls back on any exception.

        IMMEDIATE takes the write lock at once. A transaction that reads first and writes later may
        fail with SQLITE_BUSY at once, whatever the busy timeout.
        """
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # On a full disk SQLite has rolled back already;
            # another ROLLBACK would raise an error that hides the first.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def migrate(self) -> None:
        """Applies the missing migrations. Raises InstanceError for a newer schema."""
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
                f"{len(MIGRATIONS)} that this version of the site supports. Run the newer version."
            )
        for number, (name, script) in enumerate(MIGRATIONS[done:], start=done + 1):
            with operator_errors(self.instance), self.transaction() as connection:
                # Another worker may have applied the migration while this one waited for the lock.
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
                    isolation_level=None,  # no implicit transactions: `transaction` begins them
                    cached_statements=256,
                ),
            )
            try:
                # The key has to be set before any other pragma; the form x'...' marks it as raw.
                connection.execute(f"PRAGMA key = \"x'{self._key}'\"")
                # SQLCipher's errors are raised as exceptions; a log on stderr would repeat them.
                connection.execute("PRAGMA cipher_log_level = NONE")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA temp_store = MEMORY")
                connection.row_factory = cast(Any, sqlcipher.Row)
                # A wrong key fails at the first read.
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except BaseException:
                connection.close()
                raise
            return connection


def get_db() -> Database:
    """Returns the database of the current app."""
    return cast(Database, current_app.extensions[_EXTENSION])


@contextmanager
def operator_errors(instance: Instance) -> Iterator[None]:
    """Raises SQLCipher's errors as InstanceErrors that name the operator's remedy."""
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
            f"{instance.database_key}: the key is wrong, or the file is damaged. "
            "Restore both files from the same backup."
        ) from error


def _statements(script: str) -> Iterator[str]:
    """Yields the statements of a script; executescript() would commit the transaction first."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
