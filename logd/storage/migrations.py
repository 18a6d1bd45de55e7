"""The schema, as an ordered list of migrations to which new ones are only appended.

Each migration and its record are one transaction; all of them are one for an empty database, in
which none takes long. A database with a migration that this program
does not know is newer than the program, and is refused.
"""

from __future__ import annotations

import logging

from logd.errors import EXIT_TEMPORARY, LogdError
from logd.storage import rollups, tree
from logd.storage.database import Connection
from logd.storage.migration_progress import MigrationProgress
from logd.storage.migration_scripts import MIGRATIONS as MIGRATIONS

_log = logging.getLogger("logd")


class NewerSchema(LogdError):
    """The database was written by a newer program."""

    exit_code = 65


class OlderSchema(LogdError):
    """The database is of an older schema than this reader needs; `logd run` migrates it."""

    exit_code = EXIT_TEMPORARY


def schema_version(connection: Connection) -> int:
    """Returns the number of migrations applied to the database; 0 for an empty database."""
    exists = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migration'"
    ).fetchone()
    if not exists:
        return 0
    return int(connection.execute("SELECT coalesce(max(version), 0) FROM migration").fetchone()[0])


def check_not_newer(connection: Connection) -> int:
    """Returns the version of the schema. Raises NewerSchema if this program does not know it."""
    version = schema_version(connection)
    if version > len(MIGRATIONS):
        raise NewerSchema(
            f"the database has schema {version}, this program knows up to {len(MIGRATIONS)}. "
            "Nothing was changed. Install the newer logd again, or restore an older backup."
        )
    return version


def check_not_older(connection: Connection) -> None:
    """Raises OlderSchema if this program's daemon has not migrated the database yet."""
    version = schema_version(connection)
    if version < len(MIGRATIONS):
        raise OlderSchema(
            f"the database has schema {version}, this program reads events of {len(MIGRATIONS)}. "
            "Nothing was changed. `logd run` brings it up to date at its start."
        )


def migrate(connection: Connection, now_ns: int) -> int:
    """Applies the missing migrations; returns the schema's version. Raises NewerSchema."""
    version = check_not_newer(connection)
    if 0 < version < len(MIGRATIONS):
        _log.info("bringing the database from schema %d to %d", version, len(MIGRATIONS))
    progress = MigrationProgress()
    if version < len(MIGRATIONS):
        rollups.add_functions(connection)
        tree.add_functions(connection)
    for number, (name, script) in enumerate(MIGRATIONS[version:], start=version + 1):
        if version > 0 or number == 1:
            connection.execute("BEGIN IMMEDIATE")
        try:
            if number == 1:
                connection.execute(
                    "CREATE TABLE migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
                    " applied_ns INTEGER NOT NULL)"
                )
            statements = split(script)
            for position, statement in enumerate(statements, start=1):
                with progress.of(connection, f"schema {number}: {position} of {len(statements)}"):
                    connection.execute(statement)
            connection.execute("INSERT INTO migration VALUES (?, ?, ?)", (number, name, now_ns))
            if version > 0 or number == len(MIGRATIONS):
                connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return len(MIGRATIONS)


def split(script: str) -> list[str]:
    """Splits a script without string literals into statements, since executescript would commit."""
    lines = (line.split("--", 1)[0] for line in script.splitlines())
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
