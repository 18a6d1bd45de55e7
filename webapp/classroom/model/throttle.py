"""Slows down guessing of passwords: moving-window limits, kept in the site's own database.

In the database, because every worker must count the same attempts and a restart must not forget
them. Two limits: failures of one account from one address, which stops guessing one password, and
failures of one address, which stops trying one password on every account.
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
    """The two limits of the login form."""

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
