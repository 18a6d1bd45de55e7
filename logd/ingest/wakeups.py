"""Wake-up suppression: no wake-up when the daemon is already polling. Pure.

Waking a sleeping process is most of what a datagram costs its sender. When the daemon confirms
events, the same write therefore tells the producer until when the daemon polls its outbox anyway
(`watched_until_ns`); before that moment the producer stores its events and sends nothing. It is
safe because the suppression ends by the clock, and the daemon polls the outbox once more after its
end. An event is in the outbox before its producer reads the clock, so the last poll finds it.
(virtio and io_uring suppress notifications alike; a moment in place of a flag needs no memory
barrier, and expires by itself when the daemon is killed.)
"""

from __future__ import annotations

from logd.batch import Producer
from logd_wire.outbox.layout import WATCHED_NS_MAX

_PROMISE_MAX_S = WATCHED_NS_MAX / 1e9
# Margin for a store to become visible to another processor,
# and for the rounding of seconds: both are of nanoseconds.
_MARGIN_S = 0.001


class Wakeups:
    """The producers that need not wake the daemon. `interval_s` is the poll interval (0: none)."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._until_s: dict[Producer, float] = {}

    def suppress(self, producer: Producer, now_s: float, step_s: float) -> int:
        """Suppresses the wake-ups of a producer that had events; returns until when (monotonic ns).

        It is long enough for the next poll to come before its end; `step_s` is how long this step
        took.
        """
        if not self._interval_s:
            return 0
        until_s = now_s + min(2 * (self._interval_s + step_s), _PROMISE_MAX_S)
        self._until_s[producer] = until_s
        return int(until_s * 1e9)

    def inherit(self, producer: Producer, until_ns: int, now_s: float) -> None:
        """Takes over a suppression that an earlier daemon has written."""
        until_s = until_ns / 1e9
        if now_s < until_s <= now_s + _PROMISE_MAX_S:
            self._until_s[producer] = until_s

    def record_idle_poll(self, producer: Producer, polled_s: float) -> None:
        """Records that a poll found nothing; a poll after the suppression's end is the last one."""
        if self._until_s.get(producer, polled_s) + _MARGIN_S < polled_s:
            del self._until_s[producer]

    def end(self, producer: Producer) -> None:
        """Forgets a producer whose outbox is no longer open."""
        self._until_s.pop(producer, None)

    def __contains__(self, producer: object) -> bool:
        return producer in self._until_s

    def __bool__(self) -> bool:
        return bool(self._until_s)
