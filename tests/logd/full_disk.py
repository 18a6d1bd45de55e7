"""A store on a full disk: each of its commits fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlcipher3

from logd.storage.store import Store


@contextmanager
def full_disk(store: Store) -> Iterator[None]:
    """The disk is full whenever the store commits.

    SQLite offers no hook for that, so this takes the place of the store's connection.
    """
    healthy = store.connection

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(healthy, name)

        def execute(self, sql: str, *arguments: object) -> object:
            if sql == "COMMIT":
                error = sqlcipher3.OperationalError("injected")
                error.sqlite_errorcode = sqlcipher3.SQLITE_FULL
                raise error
            return healthy.execute(sql, *arguments)

    store._connection = Full()
    try:
        yield
    finally:
        store._connection = healthy
