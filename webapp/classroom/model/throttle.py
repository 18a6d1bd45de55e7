"""Limits on failed logins, counted in a moving window in the site's own database.

They are in the database, because all workers must count the same attempts and a restart must not
reset them. One limit is per account and address, against guessing one account's password; the other
per address, against trying one password on every account.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.strategies import MovingWindowRateLimiter

from webapp.classroom.store.db import Database
from webapp.classroom.store.login_hits import Clock, LoginHits


@dataclass(frozen=True)
class LoginThrottle:
    """Limits login attempts per account and address, and failed logins per address."""

    storage: LoginHits
    per_account: RateLimitItem
    per_address: RateLimitItem
    clock: Clock = time.time

    @classmethod
    def build(
        cls, db: Database, per_account: str, per_address: str, clock: Clock = time.time
    ) -> LoginThrottle:
        return cls(LoginHits(db, clock), parse(per_account), parse(per_address), clock)

    def take(self, login: str, address: str) -> int:
        """Counts an attempt before its password is checked; returns the seconds to wait, or 0.

        The account's hit is counted beforehand, so that parallel guesses cannot all pass the check
        first. The address is charged for failures only (see `failed`): a whole school may log in
        from one address within minutes.
        """
        limiter = MovingWindowRateLimiter(self.storage)
        if not limiter.test(self.per_address, address):
            return self._wait_s(limiter, self.per_address, address)
        account = _account_key(login)
        if not limiter.hit(self.per_account, account, address):
            return self._wait_s(limiter, self.per_account, account, address)
        return 0

    def is_news(self, login: str, address: str) -> bool:
        """Counts a refusal; returns whether it is the first one in its window of time.

        A stranger may go on guessing after a refusal, and must not be able to fill the trail with
        events.
        """
        limiter = MovingWindowRateLimiter(self.storage)
        if not limiter.test(self.per_address, address):
            return limiter.hit(_once_in(self.per_address), address)
        return limiter.hit(_once_in(self.per_account), _account_key(login), address)

    def failed(self, address: str) -> None:
        """Counts a failed login of this address."""
        MovingWindowRateLimiter(self.storage).hit(self.per_address, address)

    def succeeded(self, login: str, address: str) -> None:
        """Resets the account's limit, since its owner made the failed attempts."""
        limiter, account = MovingWindowRateLimiter(self.storage), _account_key(login)
        limiter.clear(self.per_account, account, address)
        limiter.clear(_once_in(self.per_account), account, address)

    def _wait_s(self, limiter: MovingWindowRateLimiter, item: RateLimitItem, *key: str) -> int:
        reset_s = limiter.get_window_stats(item, *key).reset_time
        return max(1, math.ceil(reset_s - self.clock()))


def _once_in(item: RateLimitItem) -> RateLimitItem:
    """Returns a limit of one hit in the window of `item`, which is counted separately."""
    return type(item)(1, item.multiples, "FIRST_REFUSAL")


def _account_key(login: str) -> str:
    """Returns a digest of the login name, which may be a password in the wrong field."""
    return hashlib.sha256(login.casefold().encode("utf-8", "replace")).hexdigest()[:32]
