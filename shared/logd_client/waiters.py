"""Threads that wait for events to be on disk: one of them polls for all.

The confirmed sequence is a number in shared memory that the daemon raises, so it has to be polled.
If each of 200 threads polled it, up to 5,000 times a second, that would take a whole core. So one
waiting thread is the *poller*, on a lease that it renews with each poll; the others sleep until it
wakes them, and the next takes over when it leaves, or when its lease runs out.

There is no lock, only single assignments and operations on one dict: a signal handler that waits
in the middle of a wait of the same thread polls by itself, one that raises leaves nothing locked,
and a forked child, in which the other threads are gone, waits for none of them.

The callers of durable events wait only as long as the client's circuit breaker lets them.
"""

from __future__ import annotations

import contextlib
import threading
import time

from logd_client.producer import Producer
from logd_wire.circuit_breaker import CircuitBreaker, Wait

POLL_INTERVAL_MIN_S = 0.0002
POLL_INTERVAL_MAX_S = 0.005
# The pauses between polls grow with the time waited,
# so that a wait lasts at most a fifth longer than until its event is on disk.
_POLL_INTERVAL_GROWTH = 1.2
# Seconds for which a poller may be kept from polling. Every other thread polls
# itself after that time, in case the poller that should wake it has ended.
LEASE_S = 0.25
# While nothing is confirmed, a wait may last one such part of its timeout; the oldest ones, as
# many as the client's `durable_waiters`, may last as long as their timeout. It is a part and not a
# time, since a caller with a long timeout wants the outcome from a slow disk, too.
PATIENCE_PARTS = 8
# How many callers wait on, unless the client is given another number: half of four threads.
DURABLE_WAITERS = 2
# Seconds until the first probe after a timeout; later intervals double, up to the second one.
# A confirmation is seen without a probe, by the next durable event.
PROBE_FIRST_S = 1.0
PROBE_INTERVAL_MAX_S = 15.0


class _Waiter:
    """A waiting thread's place in the queue; opening its `gate` wakes the thread."""

    __slots__ = ("gate", "sequence", "thread")

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.thread = threading.get_ident()
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        # Release() raises this if the thread is awake already.
        with contextlib.suppress(RuntimeError):
            self.gate.release()


def deadline_after(timeout_s: float | None) -> float:
    """Returns the monotonic time at which a wait of `timeout_s` ends: now, if that is not a number.

    A value that is not a number raises nothing, since the event of the caller is accepted all the
    same.
    """
    now_s = time.monotonic()
    try:
        return now_s + float(timeout_s or 0.0)
    except Exception:  # noqa: BLE001 - a value of the caller's raises what it likes
        return now_s


def breaker_of_durable_waits(waiters_max: int = DURABLE_WAITERS) -> CircuitBreaker:
    """Returns a circuit breaker for the durable events of one client in one process."""
    return CircuitBreaker(waiters_max, PROBE_FIRST_S, PROBE_INTERVAL_MAX_S)


def durable_wait(deadline_s: float) -> Wait:
    """Returns the wait of a durable event's caller, from now until `deadline_s`."""
    patience_s = (deadline_s - time.monotonic()) / PATIENCE_PARTS
    return Wait(deadline_s, patience_s, probe_s=patience_s)


class ConfirmationWaiters:
    """The threads that wait for one producer's confirmations.

    `breaker` is the client's, for the waits of all its producers.
    """

    def __init__(self, producer: Producer, breaker: CircuitBreaker) -> None:
        self.producer = producer
        self._breaker = breaker
        self._seen = 0
        self.has_successor = False
        self._waiting: dict[_Waiter, None] = {}
        self._poller: _Waiter | None = None
        self._lease_until_s = 0.0
        self._woken_for = 0
        self._confirmed_at_end: int | None = None

    def confirmed(self) -> int:
        """Returns the last sequence known to be on disk, also when the producer is closed."""
        at_end = self._confirmed_at_end
        return self.producer.confirmed if at_end is None else at_end

    def poll(self) -> int:
        """Returns the last sequence known to be on disk, and tells the breaker if it has moved."""
        confirmed = self.confirmed()
        if confirmed != self._seen:
            self._seen = confirmed
            self._breaker.moved()
        return confirmed

    def wait(self, sequence: int, deadline_s: float, limit: Wait | None = None) -> bool:
        """Waits until `sequence` is on disk; returns False if it is not by `deadline_s`.

        `deadline_s` is monotonic. It returns False at once when the outcome can no longer be known,
        and with a `limit` as soon as the breaker ends it.
        """
        if self.poll() >= sequence:
            return True
        # The condition is written as "not ... >", so that nan counts as past.
        if self.producer.outbox is None or not deadline_s > time.monotonic():
            return False
        if limit is None:
            return self._queue(sequence, deadline_s, None)
        try:
            if not self._breaker.begin(limit, time.monotonic()):
                return False
            stored = self._queue(sequence, deadline_s, limit)
            if not (stored or limit.skipped):
                self._breaker.timed_out(limit, time.monotonic())
            return stored
        finally:
            self._breaker.end(limit)

    def _queue(self, sequence: int, deadline_s: float, limit: Wait | None) -> bool:
        me = _Waiter(sequence)
        # The thread is queued before its first poll,
        # so that a confirmation after that poll wakes it.
        self._waiting[me] = None
        try:
            return self._wait(me, deadline_s, limit)
        finally:
            self._waiting.pop(me, None)
            # If there is no poller, this thread was woken to become it, and is done instead.
            if self._poller is me or self._poller is None:
                self._promote_poller()

    def _wait(self, me: _Waiter, deadline_s: float, limit: Wait | None) -> bool:
        interval_s = POLL_INTERVAL_MIN_S
        while True:
            confirmed = self.poll()
            if confirmed >= me.sequence:
                return True
            now_s = time.monotonic()
            left_s = deadline_s - now_s
            if left_s <= 0 or self._confirmed_at_end is not None:
                return False
            if limit is not None and self._breaker.must_end(limit, now_s):
                return False
            poller = self._poller
            # A poller with the same thread id is this thread, interrupted by this signal handler.
            if poller is None or poller.thread == me.thread or now_s >= self._lease_until_s:
                self._poller = me
                self._lease_until_s = now_s + LEASE_S
                if confirmed > self._woken_for:
                    self._wake(confirmed)
                time.sleep(min(interval_s, left_s))
                interval_s = min(interval_s * _POLL_INTERVAL_GROWTH, POLL_INTERVAL_MAX_S)
            else:
                me.gate.acquire(timeout=min(LEASE_S, left_s))

    def _wake(self, confirmed: int) -> None:
        self._woken_for = confirmed
        for waiter in list(self._waiting):
            if waiter.sequence <= confirmed:
                waiter.wake()

    def _promote_poller(self) -> None:
        """Wakes the threads whose events are on disk, and the thread that polls from now on."""
        self._poller = None
        self._lease_until_s = 0.0
        confirmed = self.confirmed()
        if confirmed > self._woken_for:
            self._wake(confirmed)
        for waiter in list(self._waiting):
            if waiter.sequence > confirmed:
                waiter.wake()
                return

    def end(self, *, has_successor: bool = False) -> None:
        """Ends all waits before the producer is closed; later confirmations are not seen.

        With `has_successor` another producer can record the outcomes.
        """
        self._confirmed_at_end = self.confirmed()
        self.has_successor = has_successor
        for waiter in list(self._waiting):
            waiter.wake()
