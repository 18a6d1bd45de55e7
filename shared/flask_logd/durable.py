"""Durable events: the settings for them, and the counts of their outcomes."""

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
    """The settings of durable events: their types, the timeout in seconds, the message if any."""

    types: frozenset[str]
    timeout_s: float
    tell_user: bool
    message: str

    def flash_message(self) -> None:
        """Flashes the message, so that the app's next page shows it."""
        flash(self.message, MESSAGE_CATEGORY)


class OutcomeCounts:
    """Counts the outcomes of this process's durable events."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Outcome, 0)
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome."""
        with self._lock:
            self._counts[outcome] += 1

    def by_name(self) -> dict[str, int]:
        """Returns the number of each outcome by name, for `stats()`."""
        return {outcome.value: count for outcome, count in self._counts.items()}
