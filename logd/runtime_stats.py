"""Runtime statistics: event rates, commits and their durations, and backlog. Pure.

The daemon's loop counts commits, and takes a sample at most once a second, which it publishes for
`logd status` and the metrics (`logd.instance_lock`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SAMPLE_INTERVAL_S = 1.0
MINUTE_S = 60.0
FIVE_MINUTES_S = 300.0
# Upper bounds of the buckets of the commits' histogram; a last bucket counts longer ones.
COMMIT_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# The shortest time over which a write rate is measured to predict when an outbox is full.
PACE_MIN_S = 10.0
# The most rows in `ignored`: the page in the lock file must hold them and all other fields.
IGNORED_SENDERS_MAX = 10


@dataclass(frozen=True)
class RuntimeStats:
    """A sample of a daemon's statistics. Rates are of stored events."""

    at_ns: int = 0
    started_ns: int = 0
    events: int = 0  # events stored since the daemon's start
    lost: int = 0  # events lost since the daemon's start
    events_per_s_1m: float = 0.0
    events_per_s_5m: float = 0.0
    commits: int = 0
    commit_s: float = 0.0  # seconds of all commits together
    commit_last_s: float = 0.0
    commit_longest_s: float = 0.0
    # Numbers of commits by COMMIT_BOUNDS_S.
    commit_counts: tuple[int, ...] = (0,) * (len(COMMIT_BOUNDS_S) + 1)
    backlog: int = 0  # events accepted and not stored, in open outboxes
    room_s: float | None = None  # seconds until an outbox is full; see OutboxTotals
    outboxes: int = 0
    outboxes_bytes: int = 0
    wal_bytes: int = 0
    queue_datagrams: int | None = None  # length of the socket's queue; None if inherited
    ignored: tuple[dict[str, Any], ...] = ()  # rows of logd.ingest.ignored.Ignored.senders
    heads_signed: bool = False  # whether the daemon signs the heads that it logs
    # The last anchor: when it was logged, its head's batches and root (hexadecimal), and whether
    # the file of anchors has it too. None and empty before the first one.
    anchored_ns: int | None = None
    anchored_batch: int = 0
    anchored_root: str = ""
    anchored_in_file: bool = False
    backlog_since_ns: int | None = None  # all of the backlog was accepted after this time


class WriteRate:
    """Measures the rate at which a producer writes, over the last one to two minutes."""

    __slots__ = ("_newer", "_older")

    def __init__(self, now_s: float, written: int) -> None:
        self._older = self._newer = (now_s, written)

    def per_s(self, now_s: float, written: int) -> float:
        """Returns events per second, given the number written so far; 0 in the first minute."""
        if now_s - self._newer[0] >= MINUTE_S:
            self._older, self._newer = self._newer, (now_s, written)
        then_s, before = self._older
        return max(0, written - before) / (now_s - then_s) if now_s - then_s >= PACE_MIN_S else 0.0


class WaitingSince:
    """Tells after which time a producer's waiting events were accepted, as samples show it."""

    __slots__ = ("_mark_ns", "_since_ns", "_written")

    def __init__(self, created_ns: int) -> None:
        self._since_ns = self._mark_ns = created_ns
        self._written = 0  # at the time of the mark

    def since_ns(self, now_ns: int, written: int, stored: int) -> int:
        """Returns the time after which the events that are not stored yet were accepted."""
        if stored >= self._written:
            self._since_ns = self._mark_ns
            self._mark_ns, self._written = now_ns, written
        return min(self._since_ns, now_ns)


@dataclass
class OutboxTotals:
    """The backlog of all open outboxes, and when the first of them will be full.

    `room_s` is the time until then at present rates, if nothing more were stored; None if no outbox
    is being filled.
    """

    backlog: int = 0
    room_s: float | None = None
    since_ns: int | None = None  # the earliest time after which a waiting event was accepted

    def add_since(self, since_ns: int) -> None:
        """Adds the time after which an outbox's waiting events were accepted."""
        self.since_ns = since_ns if self.since_ns is None else min(self.since_ns, since_ns)

    def add(self, waiting: int, room_bytes: int, event_bytes: float, per_s: float) -> None:
        """Adds an outbox: waiting events, free bytes, mean event size and events per second."""
        self.backlog += waiting
        if event_bytes > 0 and per_s > 0:
            left_s = max(0.0, room_bytes - waiting * event_bytes) / (event_bytes * per_s)
            self.room_s = left_s if self.room_s is None else min(self.room_s, left_s)


def within_s(counts: Sequence[int], part: float) -> float | None:
    """Returns the bound that a fraction of the commits kept; infinite past the last bucket.

    Returns None if there was no commit.
    """
    total, seen = sum(counts), 0
    for bound_s, count in zip((*COMMIT_BOUNDS_S, float("inf")), counts, strict=True):
        seen += count
        if total and seen >= part * total:
            return bound_s
    return None


class StatsRecorder:
    """Counts commits since the start of a daemon. Times are monotonic."""

    def __init__(self) -> None:
        self._events = 0
        self._lost = 0
        self._commit_s = self._commit_last_s = self._commit_longest_s = 0.0
        self._commit_counts = [0] * (len(COMMIT_BOUNDS_S) + 1)
        # One sample a second for the period of the longest rate,
        # and one more: (time, events stored).
        self._samples: deque[tuple[float, int]] = deque(maxlen=int(FIVE_MINUTES_S) + 1)

    def record_commit(self, events: int, lost: int, duration_s: float) -> None:
        """Counts a commit that has succeeded."""
        self._events += events
        self._lost += lost
        self._commit_s += duration_s
        self._commit_last_s = duration_s
        self._commit_longest_s = max(self._commit_longest_s, duration_s)
        self._commit_counts[bisect_left(COMMIT_BOUNDS_S, duration_s)] += 1

    def is_due(self, now_s: float) -> bool:
        """Returns whether the last sample is at least a second old."""
        return not self._samples or now_s - self._samples[-1][0] >= SAMPLE_INTERVAL_S

    def sample(self, now_s: float, at_ns: int) -> RuntimeStats:
        """Returns a sample of the counts. Called when `is_due`."""
        self._samples.append((now_s, self._events))
        return RuntimeStats(
            at_ns=at_ns,
            events=self._events,
            lost=self._lost,
            events_per_s_1m=self._rate(now_s, MINUTE_S),
            events_per_s_5m=self._rate(now_s, FIVE_MINUTES_S),
            commits=sum(self._commit_counts),
            commit_s=self._commit_s,
            commit_last_s=self._commit_last_s,
            commit_longest_s=self._commit_longest_s,
            commit_counts=tuple(self._commit_counts),
        )

    def _rate(self, now_s: float, window_s: float) -> float:
        """Returns events per second since the oldest sample within the window."""
        then_s, events = next(
            (sample for sample in self._samples if now_s - sample[0] <= window_s), (now_s, 0)
        )
        return (self._events - events) / (now_s - then_s) if now_s > then_s else 0.0
