"""Tasks caused by users' files, run in turn by user within a time budget. Pure.

A user who creates a thousand files, or whose ring takes long to search, delays other users by one
task at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

# A task does a part of its work when called; it returns True when it is finished.
Task = Callable[[], bool]


class UserTasks:
    """Queued tasks, by user and key; a key that is queued already is not added again."""

    def __init__(self) -> None:
        # Users in the order in which they are served.
        self._users: dict[int, dict[Hashable, Task]] = {}

    def add(self, uid: int, key: Hashable, task: Task) -> None:
        """Queues a task after the user's other tasks."""
        self._users.setdefault(uid, {}).setdefault(key, task)

    def count(self, uid: int) -> int:
        """Returns how many tasks of this user are queued."""
        return len(self._users.get(uid, ()))

    def run(self, clock_s: Callable[[], float], seconds: float) -> None:
        """Runs one task of each user in turn until the time is up; at least one task runs."""
        end_s = clock_s() + seconds
        while self._users:
            uid = next(iter(self._users))
            own = self._users.pop(uid)
            key = next(iter(own))
            task = own.pop(key)
            if own:
                self._users[uid] = own
            if not task():
                self.add(uid, key, task)
            if clock_s() >= end_s:
                return

    def __bool__(self) -> bool:
        return bool(self._users)
