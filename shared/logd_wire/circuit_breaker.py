"""A circuit breaker: keeps callers from waiting for a peer that has stopped answering.

A web server has few threads. If each of them waits for a peer that hangs, no page is served any
more. So once the peer has been silent for a caller's *patience*, only the oldest few callers keep
waiting, and new ones are not admitted; once one of these few has timed out, the circuit is *open*
and no caller waits, except one at a time, at growing intervals, as a *probe*. Any sign of the peer
(an answer, a higher confirmed sequence) ends the silence and closes the circuit.

Pure: times are passed in, in seconds on a monotonic clock. It has no lock, only single assignments
and operations on one dict: a signal handler may use it in the middle of a call of the same thread,
and a race of two threads costs at most one early or late end of a wait.
"""

from __future__ import annotations

# A wait that was not removed at its deadline is dropped after so many seconds:
# a signal handler that raises may keep `end` from being called.
_ABANDONED_S = 1.0


class Wait:
    """One caller's wait, until `until_s` at the latest.

    `patience_s`: how long it may last while the peer is silent and others have waited for longer.
    `probe_s`: how long it may last as a probe. `skipped`: it was not admitted, or ended early.
    """

    __slots__ = ("patience_s", "probe_s", "probe_until_s", "skipped", "until_s")

    def __init__(self, until_s: float, patience_s: float, probe_s: float) -> None:
        self.until_s = until_s
        self.patience_s = patience_s
        self.probe_s = probe_s
        self.probe_until_s: float | None = None
        self.skipped = False


class CircuitBreaker:
    """Decides which callers of one process wait for one peer.

    `waiters_max` is how many wait on while the peer is silent. The first probe is due `retry_s`
    after the circuit has opened, later ones at intervals that double, up to `retry_max_s`.
    """

    def __init__(self, waiters_max: int, retry_s: float, retry_max_s: float) -> None:
        self.waiters_max = max(1, waiters_max)
        self._retry_s = retry_s
        self._retry_max_s = retry_max_s
        self.is_open = False
        self._interval_s = retry_s
        self._probe_due_s = 0.0
        # Since when callers have waited without any sign of the peer; None if there was one since.
        self._silent_since_s: float | None = None
        self._waiting: dict[Wait, None] = {}  # in the order of their arrival

    def begin(self, wait: Wait, now_s: float) -> bool:
        """Admits a wait; returns False if the caller must not wait. `end` is to follow."""
        if self._silence_s(now_s) >= wait.patience_s and not self._admits(wait, now_s):
            wait.skipped = True
            return False
        self._waiting[wait] = None
        return True

    def must_end(self, wait: Wait, now_s: float) -> bool:
        """Whether an admitted wait must end now, before its timeout."""
        if self._silence_s(now_s) < wait.patience_s:
            return False
        if wait.probe_until_s is not None:
            wait.skipped = now_s >= wait.probe_until_s
        else:
            wait.skipped = wait not in self._oldest(now_s)
        return wait.skipped

    def end(self, wait: Wait) -> None:
        """Removes a wait, however it has ended. May be called twice."""
        self._waiting.pop(wait, None)

    def timed_out(self, wait: Wait, now_s: float) -> None:
        """Opens the circuit if the peer was silent; called at a wait's timeout."""
        if self._silence_s(now_s) >= wait.patience_s and not self.is_open:
            self._interval_s = self._retry_s
            self._probe_due_s = now_s + self._retry_s
            self.is_open = True

    def moved(self) -> None:
        """Ends the silence and closes the circuit: there was a sign of the peer."""
        self._silent_since_s = None
        self.is_open = False

    def _silence_s(self, now_s: float) -> float:
        since_s = self._silent_since_s
        if since_s is None:
            self._silent_since_s = since_s = now_s
        return now_s - since_s

    def _admits(self, wait: Wait, now_s: float) -> bool:
        if not self.is_open:
            return len(self._oldest(now_s)) < self.waiters_max
        if now_s < self._probe_due_s:
            return False
        # One statement without a call reads and moves the time, so that one thread gets the probe.
        until_s = now_s + wait.probe_s
        next_s = until_s + self._interval_s
        due_s, self._probe_due_s = self._probe_due_s, next_s
        if now_s < due_s:
            return False
        self._interval_s = min(2 * self._interval_s, self._retry_max_s)
        wait.probe_until_s = until_s
        return True

    def _oldest(self, now_s: float) -> list[Wait]:
        """Returns the waits that last while the peer is silent."""
        for wait in list(self._waiting):
            if wait.until_s + _ABANDONED_S <= now_s:
                self._waiting.pop(wait, None)
        return list(self._waiting)[: self.waiters_max]
