"""Decides how large an outbox's ring is: small at first, larger when that is full.

Most processes log little before they end, and an outbox is memory: a worker that logs one event
takes 64 KiB of it, not the whole room that its client may have. A ring never grows in place (an
outbox is allocated when it is made, and never sparse): another producer with a larger one follows,
and the daemon reads, confirms and removes the former one. All rings of a client together never take
more than its `outbox_bytes`.

A client never returns to a smaller ring: the load that made it grow recurs, each change costs an
allocation and a producer, and a process that has logged this much will end or log again.
"""

from __future__ import annotations

from logd_wire.outbox.layout import RING_BYTES_MAX, RING_BYTES_MIN

# The next ring is this many times as large, so that the room of small processes stays small and a
# busy one gets to its largest ring in two or three steps.
GROWTH_FACTOR = 8
# A client makes one ring only if there is room for fewer smallest
# rings than this, since a second ring would hold hardly more.
FIRST_WHOLE = 4
# Seconds between attempts to make a larger ring when there was no memory for one:
# each attempt allocates memory, and frees it when there is not enough.
RETRY_INTERVAL_S = 1.0


def first_ring_bytes(outbox_bytes: int) -> int:
    """Returns the size of a process's first ring, for a client limited to `outbox_bytes`."""
    most = _most(outbox_bytes)
    return RING_BYTES_MIN if most >= FIRST_WHOLE * RING_BYTES_MIN else most


def next_ring_bytes(ring_bytes: int, former_bytes: int, outbox_bytes: int) -> int:
    """Returns the size of the ring to follow a full one of `ring_bytes`; 0 if none is to follow.

    `former_bytes` is what earlier rings still take. Only a larger ring follows: two that are full
    in turn would follow each other for ever.
    """
    left = _most(outbox_bytes) - former_bytes - ring_bytes
    following = ring_bytes * GROWTH_FACTOR
    if left < 2 * following:
        following = left & -8  # take all that is left, since a further ring would be too small
    return following if following > ring_bytes else 0


def _most(outbox_bytes: int) -> int:
    return min(max(outbox_bytes, RING_BYTES_MIN), RING_BYTES_MAX) & -8


class Growth:
    """Keeps track of the size that further rings of a client may have, and of failed attempts."""

    def __init__(self, outbox_bytes: int) -> None:
        self._outbox_bytes = outbox_bytes
        self._retry_after_s = float("-inf")
        self.problem = ""  # why no larger ring could be made at the last attempt

    def ring_bytes(self, ring_bytes: int, former_bytes: int, now_s: float) -> int:
        """Returns the size of the ring to try now; 0 for none, also if one was tried just now."""
        if now_s < self._retry_after_s:
            return 0
        return next_ring_bytes(ring_bytes, former_bytes, self._outbox_bytes)

    def left_bytes(self, ring_bytes: int, former_bytes: int) -> int:
        """Returns the bytes that rings after this one may take together; 0 if none may follow."""
        if not next_ring_bytes(ring_bytes, former_bytes, self._outbox_bytes):
            return 0
        return _most(self._outbox_bytes) - former_bytes - ring_bytes

    def room_bytes(self, ring_bytes: int, former_bytes: int) -> int:
        """Returns `left_bytes`, but 0 if there was no memory for a ring at the last attempt."""
        return 0 if self.problem else self.left_bytes(ring_bytes, former_bytes)

    def failed(self, problem: str, now_s: float) -> None:
        """Records that no larger ring could be made, and postpones the next attempt."""
        self.problem, self._retry_after_s = problem, now_s + RETRY_INTERVAL_S

    def succeeded(self) -> None:
        """Records that a larger ring was made."""
        self.problem, self._retry_after_s = "", float("-inf")
