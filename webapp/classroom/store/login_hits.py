"""Counted login attempts in the site's database, as a storage of the `limits` library."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from limits.storage import MovingWindowSupport, Storage
from sqlcipher3 import dbapi2 as sqlcipher

from webapp.classroom.store.db import Database

Clock = Callable[[], float]

# A hit with a time further ahead was stored while the clock was wrong.
# It is ignored, since it would lock its account, or a whole school's address, until that time.
_IN_WINDOW = "FROM login_hits WHERE key = ? AND at_s > ? AND at_s <= ?"


def _window(key: str, now: float, expiry: int) -> tuple[str, float, float]:
    return key, now - expiry, now + expiry


class LoginHits(Storage, MovingWindowSupport):
    """Storage of `limits` with one row per hit; expired rows are deleted at the next hit."""

    STORAGE_SCHEME = None

    def __init__(self, db: Database, clock: Clock = time.time) -> None:
        super().__init__()
        self._db = db
        self._clock = clock

    @property
    def base_exceptions(self) -> type[Exception]:
        return cast(type[Exception], sqlcipher.Error)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = self._clock()
        with self._db.transaction() as connection:
            connection.executemany(
                "INSERT INTO login_hits VALUES (?, ?, ?)", [(key, now, now + expiry)] * amount
            )
        return self.get(key)

    def get(self, key: str) -> int:
        (hits,) = (
            self._db.connection()
            .execute(
                "SELECT count(*) FROM login_hits WHERE key = ? AND expires_s > ?",
                (key, self._clock()),
            )
            .fetchone()
        )
        return int(hits)

    def get_expiry(self, key: str) -> float:
        (expires,) = (
            self._db.connection()
            .execute("SELECT max(expires_s) FROM login_hits WHERE key = ?", (key,))
            .fetchone()
        )
        return self._clock() if expires is None else float(expires)

    def check(self) -> bool:
        return self._db.connection().execute("SELECT 1").fetchone() is not None

    def reset(self) -> int:
        with self._db.transaction() as connection:
            return connection.execute("DELETE FROM login_hits").rowcount

    def clear(self, key: str) -> None:
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM login_hits WHERE key = ?", (key,))

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self._clock()
        # Hits are counted and inserted in one write transaction,
        # so that two workers cannot both take the last free place.
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM login_hits WHERE expires_s <= ?", (now,))
            (hits,) = connection.execute(
                f"SELECT count(*) {_IN_WINDOW}", _window(key, now, expiry)
            ).fetchone()
            if hits + amount > limit:
                return False
            connection.executemany(
                "INSERT INTO login_hits VALUES (?, ?, ?)", [(key, now, now + expiry)] * amount
            )
            return True

    def get_moving_window(
        self,
        key: str,
        limit: int,  # noqa: ARG002 - the library's signature
        expiry: int,
    ) -> tuple[float, int]:
        now = self._clock()
        oldest, hits = (
            self._db.connection()
            .execute(f"SELECT min(at_s), count(*) {_IN_WINDOW}", _window(key, now, expiry))
            .fetchone()
        )
        return (now if oldest is None else float(oldest)), int(hits)
