"""Who asks for reports and what that takes, by user, in a bounded table. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

USERS_MAX = 16  # as many as a page of the lock file holds


@dataclass
class UserUsage:
    """Of one user since the report process started."""

    uid: int
    questions: int = 0  # answered, or given up by who asked
    running_s: float = 0.0  # that their reports ran
    let_go: int = 0  # connections that asked nothing in time, or did not take the answer
    put_off: int = 0  # questions that were told `busy`

    @property
    def weight(self) -> float:
        """What is shown first, and forgotten last."""
        return self.running_s + (self.questions + self.let_go + self.put_off) / 1000


class Usage:
    """The users who took most, at most USERS_MAX of them."""

    def __init__(self) -> None:
        self._users: dict[int, UserUsage] = {}

    def of(self, uid: int) -> UserUsage:
        """This user's, to be added to; a new one takes the place of whoever took least."""
        found = self._users.get(uid)
        if found is None:
            if len(self._users) >= USERS_MAX:
                least = min(self._users.values(), key=lambda user: user.weight)
                del self._users[least.uid]
            found = self._users[uid] = UserUsage(uid)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """All of it, whoever took most first."""
        users = sorted(self._users.values(), key=lambda user: -user.weight)
        return [{**asdict(user), "running_s": round(user.running_s, 3)} for user in users]
