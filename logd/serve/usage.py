"""Counts report requests and their cost by user, in a bounded table. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

USERS_MAX = 16  # as many users as fit into a page of the lock file
PUBLISH_INTERVAL_S = 1.0

Publish = Callable[[list[dict[str, Any]]], None]


@dataclass
class UserUsage:
    """One user's usage since the report process started."""

    uid: int
    questions: int = 0  # requests answered, or abandoned by the peer
    running_s: float = 0.0  # seconds that the user's reports ran
    let_go: int = 0  # connections closed without a request in time, or with an unread answer
    put_off: int = 0  # requests answered with `busy`

    @property
    def weight(self) -> float:
        """The user's cost. Users with the most are shown first and dropped last."""
        return self.running_s + (self.questions + self.let_go + self.put_off) / 1000


class Usage:
    """The heaviest users, at most USERS_MAX of them."""

    def __init__(self) -> None:
        self._users: dict[int, UserUsage] = {}

    def of(self, uid: int) -> UserUsage:
        """Returns the user's entry, for adding to it; a new one replaces the lightest user's."""
        found = self._users.get(uid)
        if found is None:
            if len(self._users) >= USERS_MAX:
                least = min(self._users.values(), key=lambda user: user.weight)
                del self._users[least.uid]
            found = self._users[uid] = UserUsage(uid)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Returns all entries, heaviest user first."""
        users = sorted(self._users.values(), key=lambda user: -user.weight)
        return [{**asdict(user), "running_s": round(user.running_s, 3)} for user in users]


class PublishedUsage:
    """Usage that is published after a change, once a second at most; never without `publish`."""

    def __init__(self, publish: Publish | None, now_s: float) -> None:
        self._usage = Usage()
        self._publish = publish
        self._due_s = now_s
        self._changed = False

    def of(self, uid: int) -> UserUsage:
        """Returns the user's entry, for adding to it."""
        self._changed = True
        return self._usage.of(uid)

    @property
    def due_s(self) -> float | None:
        """Monotonic time at which the table is to be published; None if it has not changed."""
        return self._due_s if self._publish is not None and self._changed else None

    def publish_if_due(self, now_s: float) -> None:
        """Publishes the table if it has changed, at most once a second."""
        if self._publish is not None and self._changed and now_s >= self._due_s:
            self._due_s = now_s + PUBLISH_INTERVAL_S
            self._changed = False
            self._publish(self._usage.rows())
