"""Fair scheduling: no user, and no producer of a user, keeps others from being read. Pure.

A batch's capacity is shared among the users that have something to read, and a user's share among
the user's producers. What one does not use goes to the others, and a producer for which there was
no capacity is served first in the next step. Open files are shared among users in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

from logd.batch import Batch, Capacity, Producer

# Outboxes may always add one part in this many of a batch, whatever datagrams have taken.
OUTBOXES_PART = 4
# The most events that a step reads from outboxes if several users have some.
# Reading and storing these takes about 4 ms; a full batch of 20,000 events takes 150 ms,
# for which other users' events wait. With nine attacks at once on two cores,
# another user's events waited 64 ms (p95) at 1,000 events a step, and 38 ms at 400.
# On a disk that takes 80 ms a flush, a backlog is stored at 400 events a flush.
SHARED_EVENTS_MAX = 400
SHARED_BYTES_MAX = 1024 * 1024
# The most outboxes that such a step reads: reading and confirming one takes as long as ten events.
SHARED_OUTBOXES_MAX = 40

T = TypeVar("T")


class ReadRequest(Generic[T]):
    """A request to read `events` from an outbox; its producer may be dead."""

    __slots__ = ("alive", "events", "outbox", "producer")

    def __init__(self, producer: Producer, outbox: T, alive: bool, events: int) -> None:
        self.producer = producer
        self.outbox = outbox
        self.alive = alive
        self.events = events


def schedule(
    waiting: list[ReadRequest[T]], batch: Batch, *, shared: bool = False
) -> Iterator[tuple[ReadRequest[T], Capacity | None]]:
    """Yields the requests in the order to serve them, each with its capacity; None for not now.

    The caller reads into `batch` before it takes the next request: capacity left by one goes to the
    others. With `shared` a step reads less than a batch takes, since other users wait for its end.
    """
    users: dict[int, list[ReadRequest[T]]] = {}
    for one in waiting:
        users.setdefault(one.producer.uid, []).append(one)
    in_all = batch.capacity(at_least=OUTBOXES_PART)
    if shared:
        in_all = Capacity(
            min(in_all.events, SHARED_EVENTS_MAX), min(in_all.bytes, SHARED_BYTES_MAX)
        )
    left = _Budget(batch, in_all)
    outboxes = SHARED_OUTBOXES_MAX if shared else len(waiting)
    for count, own in zip(range(len(users), 0, -1), _ordered(users), strict=True):
        share, own_outboxes = _Budget(batch, left.capacity.share(count)), max(1, outboxes // count)
        own.sort(key=lambda one: (-one.producer.skipped_steps, one.events))
        for producers, one in zip(range(len(own), 0, -1), own, strict=True):
            may = own_outboxes and share.capacity and left.capacity
            capacity = share.capacity.share(producers) if may else None
            one.producer.skipped_steps = 0 if capacity else one.producer.skipped_steps + 1
            yield one, capacity
            if capacity and (one.events or not one.alive):
                own_outboxes -= 1
                outboxes -= 1


def _ordered(users: dict[int, list[ReadRequest[T]]]) -> list[list[ReadRequest[T]]]:
    return sorted(
        users.values(),
        key=lambda own: (
            -max(one.producer.skipped_steps for one in own),
            sum(one.events for one in own),
        ),
    )


class _Budget:
    """The capacity that is left as the batch fills."""

    def __init__(self, batch: Batch, capacity: Capacity) -> None:
        self._batch = batch
        self._events_end = batch.entries + capacity.events
        self._bytes_end = batch.bytes + capacity.bytes

    @property
    def capacity(self) -> Capacity:
        batch = self._batch
        return Capacity(
            max(0, self._events_end - batch.entries), max(0, self._bytes_end - batch.bytes)
        )


class OpenFileQuota:
    """Limits how many outboxes are held open, in all and by user.

    With `shared`, a user may have half of the files that the others leave, so that a user who comes
    later gets some too.
    """

    def __init__(self, files_max: int, per_user_max: int, *, shared: bool) -> None:
        self.files_max = files_max
        self._per_user_max = per_user_max
        self._shared = shared
        self._held: Counter[int] = Counter()

    def has_room(self, uid: int) -> bool:
        """Returns whether one more outbox of this user may be opened."""
        own = self._held[uid]
        free = self.files_max - self._held.total() + own
        if self._shared:
            free = (free + 1) // 2
        return own < min(free, self._per_user_max)

    def others_than(self, uid: int) -> bool:
        """Returns whether users other than this one have an outbox open."""
        return len(self._held) > (uid in self._held)

    @property
    def several_users(self) -> bool:
        """Whether more than one user has an outbox open."""
        return len(self._held) > 1

    def held(self, uid: int) -> int:
        """Returns how many outboxes this user has open."""
        return self._held[uid]

    def add(self, uid: int) -> None:
        """Counts one more open outbox of this user."""
        self._held[uid] += 1

    def drop(self, uid: int) -> None:
        """Counts one less open outbox of this user."""
        self._held[uid] -= 1
        if not self._held[uid]:
            del self._held[uid]
