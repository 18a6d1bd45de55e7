"""Finds the rows of the site's database that are about one account, whatever tables there are.

A table is about an account if it has the column `user_id` (or is `users`). So a new table is in
"My data", and is erased with its account, without a word here. A table that refers to accounts in
another way, or not at all, has to be named below: `unclassified` finds one that is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webapp.classroom.model.accounts import User
from webapp.classroom.store.db import Connection, Database

PAGE_ROWS = 50
# Columns that are left out of the rows handed over, with what stands there instead.
HIDDEN = {("users", "password_hash"): "(stored, not shown)"}
# Further references to accounts: the columns that are about the account referred to. The others of
# the row are about someone else.
REFERENCES = {("data_requests", "answered_by"): ("id", "outcome", "answered_ns")}
NOT_PERSONAL = {
    "courses": "what is taught",
    "lessons": "what is taught",
    "tasks": "what is taught",
    "quizzes": "what is taught",
    "login_hits": "digests of login names and addresses, kept for minutes",
    "erased_accounts": "numbers of erased accounts, so that no other account gets them",
    "migrations": "the versions of this database",
    "trail_erasures": "how many erasures the log has had, of nobody by name",
}


def personal_tables(connection: Connection) -> dict[str, str]:
    """Returns the tables about accounts, each with the column that has the account's id."""
    columns = {table: _columns(connection, table) for table in _tables(connection)}
    found = {table: "user_id" for table, names in columns.items() if "user_id" in names}
    return {"users": "id", **dict(sorted(found.items()))}


def unclassified(connection: Connection) -> list[str]:
    """Returns tables, and references to accounts, of which nobody has said what they are about."""
    about = personal_tables(connection)
    unknown = []
    for table in _tables(connection):
        if table not in about and table not in NOT_PERSONAL:
            unknown.append(table)
        for reference in connection.execute(f"PRAGMA foreign_key_list ({table})"):
            column = reference["from"]
            is_named = about.get(table) == column or (table, column) in REFERENCES
            if reference["table"] == "users" and not is_named:
                unknown.append(f"{table}.{column}")
    return unknown


def rows_about(db: Database, user: User) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every row about an account with its table's name; no transaction stays open."""
    for table, column in personal_tables(db.connection()).items():
        for row in _rows(db, table, column, user.id, "*"):
            yield table, {name: HIDDEN.get((table, name), row[name]) for name in row}
    for (table, column), shown in REFERENCES.items():
        for row in _rows(db, table, column, user.id, ", ".join(shown)):
            yield f"{table}.{column}", row


def counts_about(db: Database, user: User) -> dict[str, int]:
    """Returns how many rows each table has about an account."""
    connection = db.connection()
    return {
        table: connection.execute(
            f"SELECT count(*) FROM {table} WHERE {column} = ?",  # noqa: S608 - names of the schema
            (user.id,),
        ).fetchone()[0]
        for table, column in personal_tables(connection).items()
    }


def erase_account(connection: Connection, user_id: int, now_ns: int) -> dict[str, int]:
    """Erases all rows about an account in the caller's transaction; returns how many, by table.

    The account's number is kept, so that no later account gets it: what the activity log or a
    backup still holds under it would be taken for the new one's.
    """
    # Tables may refer to one another, in any order.
    connection.execute("PRAGMA defer_foreign_keys = ON")
    erased = {}
    for table, column in REFERENCES:
        connection.execute(
            f"UPDATE {table} SET {column} = NULL WHERE {column} = ?",  # noqa: S608 - names of the schema
            (user_id,),
        )
    for table, column in reversed(personal_tables(connection).items()):  # users last
        erased[table] = connection.execute(
            f"DELETE FROM {table} WHERE {column} = ?",  # noqa: S608 - names of the schema
            (user_id,),
        ).rowcount
    connection.execute("INSERT OR IGNORE INTO erased_accounts VALUES (?, ?)", (user_id, now_ns))
    return erased


def _rows(
    db: Database, table: str, column: str, user_id: int, shown: str
) -> Iterator[dict[str, Any]]:
    """Yields rows in the order of the table's key, a page at a time."""
    keys = _key(db.connection(), table)
    key = ", ".join(keys)
    # The key again under other names, since `shown` may have its columns or not.
    named = ", ".join(f"{name} AS key_{at}" for at, name in enumerate(keys))
    past, values = "1", list[Any]()
    while (
        found := db.connection()
        .execute(
            f"SELECT {named}, {shown} FROM {table}"  # noqa: S608 - names of the schema
            f" WHERE {column} = ? AND {past} ORDER BY {key} LIMIT ?",
            (user_id, *values, PAGE_ROWS),
        )
        .fetchall()
    ):
        for row in found:
            yield {name: row[name] for name in row.keys()[len(keys) :]}
        values = list(found[-1])[: len(keys)]
        past = f"({key}) > ({', '.join('?' * len(keys))})"


def _key(connection: Connection, table: str) -> list[str]:
    """Returns the columns of a table's primary key, or its rowid."""
    columns = connection.execute(f"PRAGMA table_info ({table})").fetchall()
    keys = sorted((row["pk"], row["name"]) for row in columns if row["pk"])
    return [name for _, name in keys] or ["rowid"]


def _tables(connection: Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        " ORDER BY name"
    )
    return [name for (name,) in rows]


def _columns(connection: Connection, table: str) -> list[str]:
    return [row["name"] for row in connection.execute(f"PRAGMA table_info ({table})")]
