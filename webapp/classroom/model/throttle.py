"""Slows down guessing of passwords: moving-window limits, kept in the site's own database.

In the database, because every worker must count the same attempts and a restart must not forget
them. Two limits: failures of one account from one address, which stops guessing one password, and
failures of one address, which stops trying one password on every account.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from limits import RateLimitItem, parse
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter
from sqlcipher3 import dbapi2 as sqlcipher

from webapp.classroom.store.db import Database

Clock = Callable[[], float]

# A hit from further ahead was booked while the clock was wrong: it would lock its account, or a
# whole school's address, until that time.
_IN_WINDOW = "FROM login_hits WHERE key = ? AND at_s > ? AND at_s <= ?"


def _window(key: str, now: float, expiry: int) -> tuple[str, float, float]:
    return key, now - expiry, now + expiry


class DatabaseStorage(Storage, MovingWindowSupport):
    """What `limits` counts with, as rows: one per hit, dropped once it has expired."""

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
        # Counting and adding in one write transaction: two workers cannot both take the last hit.
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


@dataclass(frozen=True)
class LoginThrottle:
    """The two limits of the login form."""

    storage: DatabaseStorage
    per_account: RateLimitItem
    per_address: RateLimitItem
    clock: Clock = time.time

    @classmethod
    def build(
        cls, db: Database, per_account: str, per_address: str, clock: Clock = time.time
    ) -> LoginThrottle:
        return cls(DatabaseStorage(db, clock), parse(per_account), parse(per_address), clock)

    def take(self, login: str, address: str) -> int:
        """Books one attempt before the password is looked at. Returns seconds to wait, 0 for none.

        The account's hit is taken beforehand, so that parallel guesses cannot slip through between
        looking and booking. The address only pays for failures (see `failed`): a whole school may
        log in from one address on a Monday morning.
        """
        limiter = MovingWindowRateLimiter(self.storage)
        if not limiter.test(self.per_address, address):
            return self._wait_s(limiter, self.per_address, address)
        account = _account_key(login)
        if not limiter.hit(self.per_account, account, address):
            return self._wait_s(limiter, self.per_account, account, address)
        return 0

    def failed(self, address: str) -> None:
        MovingWindowRateLimiter(self.storage).hit(self.per_address, address)

    def succeeded(self, login: str, address: str) -> None:
        """A right password shows it is the owner: earlier slips of the finger are forgotten."""
        MovingWindowRateLimiter(self.storage).clear(self.per_account, _account_key(login), address)

    def _wait_s(self, limiter: MovingWindowRateLimiter, item: RateLimitItem, *key: str) -> int:
        reset_s = limiter.get_window_stats(item, *key).reset_time
        return max(1, math.ceil(reset_s - self.clock()))


def _account_key(login: str) -> str:
    """A digest of what was typed: people type passwords into the wrong field."""
    return hashlib.sha256(login.casefold().encode("utf-8", "replace")).hexdigest()[:32]
