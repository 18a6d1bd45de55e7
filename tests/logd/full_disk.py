"""A store some of whose statements fail, as on a full or a broken disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import sqlcipher3

from logd.storage.store import Store


@contextmanager
def failing(store: Store, statement: str, code: int) -> Iterator[None]:
    """Statements of the store that begin so fail with SQLite's `code`.

    SQLite offers no hook for that, so this takes the place of the store's connection.
    """
    healthy = store.connection

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(healthy, name)

        def execute(self, sql: str, *arguments: object) -> object:
            if sql.startswith(statement):
                error = sqlcipher3.OperationalError("injected")
                error.sqlite_errorcode = code
                raise error
            return healthy.execute(sql, *arguments)

    store._connection = Failing()
    try:
        yield
    finally:
        store._connection = healthy


def full_disk(store: Store) -> AbstractContextManager[None]:
    """The disk is full whenever the store commits."""
    return failing(store, "COMMIT", sqlcipher3.SQLITE_FULL)
