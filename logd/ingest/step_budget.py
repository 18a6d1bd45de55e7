"""Limits what one user's input may cost in a step, and how often the user may force a commit. Pure.

Datagrams come from one kernel queue in order, and most of the work that they cause stores nothing
(duplicates, farewells, garbage): so the budget counts what was decoded, not what was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

# Limits for the datagrams of one step; one user may use 1/USER_PART of each.
STEP_RECORDS_MAX = 4000
STEP_BYTES_MAX = 4 * 1024 * 1024
STEP_S_MAX = 0.010
USER_PART = 2


class StepBudget:
    """Records, bytes and seconds that the datagrams of a step have cost, in all and by user."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._charged_s = 0.0
        self._in_all = _Spent()
        self._by_user: dict[int, _Spent] = {}
        self.exhausted = False
        self.over: set[int] = set()  # users who have used up their share of the step

    def begin(self) -> None:
        """Starts a new step with the whole budget."""
        self._charged_s = self._monotonic_s()
        self._in_all = _Spent()
        self._by_user.clear()
        self.over.clear()
        self.exhausted = False

    def charge(self, uid: int, records: int, size: int) -> None:
        """Charges a user for records and bytes, and for the time passed since the last charge."""
        now_s = self._monotonic_s()
        spent_s, self._charged_s = now_s - self._charged_s, now_s
        own = self._by_user.get(uid)
        if own is None:
            own = self._by_user[uid] = _Spent()
        if own.add(records, size, spent_s) * USER_PART >= 1:
            self.over.add(uid)
        self.exhausted = self._in_all.add(records, size, spent_s) >= 1


class _Spent:
    __slots__ = ("_bytes", "_records", "_s")

    def __init__(self) -> None:
        self._records = self._bytes = 0
        self._s = 0.0

    def add(self, records: int, size: int, seconds: float) -> float:
        """Adds a cost; returns the fraction of the step's budget that is spent."""
        self._records += records
        self._bytes += size
        self._s += seconds
        return max(
            self._records / STEP_RECORDS_MAX, self._bytes / STEP_BYTES_MAX, self._s / STEP_S_MAX
        )


class ForcedCommits:
    """Limits each user to half of the time for commits that its awaited events force.

    After such a commit the user's next awaited event waits as long as the commit took, or until the
    commit interval is over. Without the limit, one user could decide how often the disk flushes.
    """

    def __init__(self) -> None:
        self._rest_until_s: dict[int, float] = {}

    def due_s(self, uids: Iterable[int]) -> float:
        """Returns the earliest monotonic time at which one of these users may force a commit."""
        return min((self._rest_until_s.get(uid, 0.0) for uid in uids), default=float("inf"))

    def committed(self, uids: Iterable[int], began_s: float, ended_s: float) -> None:
        """Records a commit that these users have forced."""
        # Only users who have to wait are kept, so that any number of user ids takes bounded memory.
        resting = self._rest_until_s.items()
        self._rest_until_s = {uid: until_s for uid, until_s in resting if until_s > ended_s}
        rest_until_s = ended_s + (ended_s - began_s)
        self._rest_until_s.update(dict.fromkeys(uids, rest_until_s))
