"""How it goes: events a second, what waits, what was lost, counted where it happens. Pure.

The daemon's loop counts commits as they come and takes a sample at most once a second.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SAMPLE_INTERVAL_S = 1.0
MINUTE_S = 60.0
FIVE_MINUTES_S = 300.0


@dataclass(frozen=True)
class Figures:
    """One moment of a daemon. Rates are of events stored, or since its start if that is later."""

    at_ns: int = 0
    started_ns: int = 0
    events: int = 0
    lost: int = 0  # events, since the start
    events_per_s_1m: float = 0.0
    events_per_s_5m: float = 0.0
    backlog: int = 0  # events accepted and not stored, in the outboxes that are open


class Meter:
    """Counts from the start of a daemon on. `now_s` is of the monotonic clock."""

    def __init__(self) -> None:
        self._events = 0
        self._lost = 0
        # One more than the seconds of the longest rate, each with the events stored until then.
        self._samples: deque[tuple[float, int]] = deque(maxlen=int(FIVE_MINUTES_S) + 1)

    def committed(self, events: int, lost: int) -> None:
        """A batch is on the disk."""
        self._events += events
        self._lost += lost

    def due(self, now_s: float) -> bool:
        """Whether the last sample is a second old."""
        return not self._samples or now_s - self._samples[-1][0] >= SAMPLE_INTERVAL_S

    def sample(self, now_s: float, *, at_ns: int, started_ns: int, backlog: int) -> Figures:
        """How it stands now; to be called when `due`."""
        self._samples.append((now_s, self._events))
        return Figures(
            at_ns=at_ns,
            started_ns=started_ns,
            events=self._events,
            lost=self._lost,
            events_per_s_1m=self._rate(now_s, MINUTE_S),
            events_per_s_5m=self._rate(now_s, FIVE_MINUTES_S),
            backlog=backlog,
        )

    def _rate(self, now_s: float, window_s: float) -> float:
        """Events a second since the sample that is the window ago, or the oldest behind it."""
        then_s, events = next(
            (sample for sample in self._samples if now_s - sample[0] <= window_s), (now_s, 0)
        )
        return (self._events - events) / (now_s - then_s) if now_s > then_s else 0.0
