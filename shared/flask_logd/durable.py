"""Events that are worth waiting for: which they are, and what a page does when nobody knows yet."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from flask import flash

from logd_client import Outcome

CARRY_ON = "carry_on"
TELL_USER = "tell_user"

MESSAGE = "This is done, but its entry in the activity log is not confirmed yet."
MESSAGE_CATEGORY = "warning"


@dataclass(frozen=True)
class DurablePolicy:
    """The settings: types that wait for the disk, how long, and whether the user hears of it."""

    types: frozenset[str]
    timeout_s: float
    tell_user: bool
    message: str

    def tell(self) -> None:
        """Flashes it: the app's next page shows it as it shows every other message."""
        flash(self.message, MESSAGE_CATEGORY)


class OutcomeCounts:
    """How durable events of this process went."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Outcome, 0)
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        """One more."""
        with self._lock:
            self._counts[outcome] += 1

    def by_name(self) -> dict[str, int]:
        """For `stats()`."""
        return {outcome.value: count for outcome, count in self._counts.items()}
