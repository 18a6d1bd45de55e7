"""Saved searches: addresses of the event list, by name, each auditor's own."""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass

from webapp.classroom.model.accounts import User, normal_text
from webapp.classroom.store.db import Connection, Database

SEARCHES_MAX = 50
NAME_CHARS_MAX = 60


@dataclass(frozen=True)
class SavedSearch:
    id: int
    name: str
    query: str


class NotSaved(ValueError):
    """A search cannot be saved, or not under this name. The message says why."""


def list_searches(db: Database, owner: User) -> list[SavedSearch]:
    """Returns the searches of an account, by name."""
    rows = db.connection().execute(
        "SELECT id, name, query FROM saved_searches WHERE user_id = ? ORDER BY name, id",
        (owner.id,),
    )
    return [SavedSearch(*row) for row in rows]


def save(db: Database, owner: User, name: str, query: str) -> str:
    """Saves a search; returns the name as it was saved. Raises NotSaved.

    The same search under the same name is saved once, so that a second click changes nothing.
    """
    name = _checked(name)
    with db.transaction() as connection:
        saved = {search.name: search.query for search in list_searches(db, owner)}
        if saved.get(name) == query:
            return name
        _check_free(name, saved)
        if len(saved) >= SEARCHES_MAX:
            raise NotSaved(f"You have {SEARCHES_MAX} saved searches, the most: delete one first.")
        connection.execute(
            "INSERT INTO saved_searches (user_id, name, query, saved_ns) VALUES (?, ?, ?, ?)",
            (owner.id, name, query, time.time_ns()),
        )
    return name


def rename(db: Database, owner: User, search_id: int, name: str) -> bool:
    """Renames a search; returns False if the account has no such search. Raises NotSaved."""
    name = _checked(name)
    with db.transaction() as connection:
        others = {s.name for s in list_searches(db, owner) if s.id != search_id}
        _check_free(name, others)
        return _changed(
            connection,
            "UPDATE saved_searches SET name = ? WHERE id = ? AND user_id = ?",
            (name, search_id, owner.id),
        )


def delete(db: Database, owner: User, search_id: int) -> bool:
    """Deletes a search; returns False if the account has no such search."""
    with db.transaction() as connection:
        return _changed(
            connection,
            "DELETE FROM saved_searches WHERE id = ? AND user_id = ?",
            (search_id, owner.id),
        )


def _changed(connection: Connection, statement: str, values: tuple[object, ...]) -> bool:
    return connection.execute(statement, values).rowcount > 0


def _checked(name: str) -> str:
    plain = " ".join(normal_text(name).split())
    if not plain:
        raise NotSaved("Enter a name.")
    if len(plain) > NAME_CHARS_MAX:
        raise NotSaved(f"A name cannot be longer than {NAME_CHARS_MAX} characters.")
    if not plain.isprintable():
        raise NotSaved("Use letters, digits and signs that can be seen.")
    return plain


def _check_free(name: str, taken: Container[str]) -> None:
    if name in taken:
        raise NotSaved("You have a search of this name already. Choose another name.")
