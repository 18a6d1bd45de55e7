"""Whose outboxes the daemon looks at by itself, so that their producers need not wake it. Pure.

Waking a sleeping process is most of what a datagram costs its sender. A producer that has just
had events confirmed is therefore told, in the same write, until when the daemon is awake anyway
(`watched_until_ns`); before that moment it stores its events and sends nothing. The rule that
makes it safe: a promise ends by the clock, and the daemon looks at the outbox once more after its
end before it stops looking. An event is in the outbox before its producer reads the clock, so the
last look finds it. (virtio and io_uring keep their peers from needless wake-ups alike; a moment
in place of a flag needs no memory barrier, and runs out by itself when the daemon is killed.)
"""

from __future__ import annotations

from logd.batch import Producer
from logd_wire.outbox.layout import WATCHED_NS_MAX

_PROMISE_MAX_S = WATCHED_NS_MAX / 1e9
# For a store to be seen by another processor, and for seconds as floating-point numbers: both are
# off by nanoseconds.
_MARGIN_S = 0.001


class Wakeups:
    """The promises that are out. `interval_s` is from one look to the next; 0: promise nothing."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._until_s: dict[Producer, float] = {}

    def suppress(self, producer: Producer, now_s: float, turn_s: float) -> int:
        """For a producer that had events: until when it is watched, in monotonic nanoseconds.

        Long enough for the next look to come before it ends: `turn_s` is what this one took.
        """
        if not self._interval_s:
            return 0
        until_s = now_s + min(2 * (self._interval_s + turn_s), _PROMISE_MAX_S)
        self._until_s[producer] = until_s
        return int(until_s * 1e9)

    def inherit(self, producer: Producer, until_ns: int, now_s: float) -> None:
        """What a predecessor promised is kept."""
        until_s = until_ns / 1e9
        if now_s < until_s <= now_s + _PROMISE_MAX_S:
            self._until_s[producer] = until_s

    def record_idle_poll(self, producer: Producer, looked_s: float) -> None:
        """A look that began at `looked_s` found nothing; past the promise's end it was the last."""
        if self._until_s.get(producer, looked_s) + _MARGIN_S < looked_s:
            del self._until_s[producer]

    def end(self, producer: Producer) -> None:
        """Its outbox is no longer ours to look at."""
        self._until_s.pop(producer, None)

    def __contains__(self, producer: object) -> bool:
        return producer in self._until_s

    def __bool__(self) -> bool:
        return bool(self._until_s)
