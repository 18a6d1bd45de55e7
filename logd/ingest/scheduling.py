"""Whose turn it is: no user, and no producer of a user, keeps the others from being read. Pure.

What a batch takes is shared among the users that have something waiting, a user's part among the
user's producers: whoever wants less than its share leaves the rest to the others, and whom a turn
had no room for comes first in the next. OpenFileQuota held open are shared among users likewise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

from logd.batch import Batch, Capacity, Producer

# What outboxes may always add to a batch, whatever datagrams have taken of it.
OUTBOXES_PART = 4
# What a turn reads from outboxes where several users have some. To decode and store it takes some
# 4 ms; a batch of 20,000 events takes 150 ms, and an event that comes meanwhile waits for its end.
# Beside nine attacks at once on two cores, 1,000 events a turn made a neighbour wait 64 ms (p95),
# and 400 made it 38 ms. On a disk of 80 ms a flush several users catch up at 400 events a flush.
SHARED_EVENTS_MAX = 400
SHARED_BYTES_MAX = 1024 * 1024
# Reading one, and confirming to it or removing it, takes as long as ten events.
SHARED_OUTBOXES_MAX = 40

T = TypeVar("T")


class ReadRequest(Generic[T]):
    """An outbox with `events` to read, and its producer."""

    __slots__ = ("alive", "events", "outbox", "producer")

    def __init__(self, producer: Producer, outbox: T, alive: bool, events: int) -> None:
        self.producer = producer
        self.outbox = outbox
        self.alive = alive
        self.events = events


def schedule(
    waiting: list[ReadRequest[T]], batch: Batch, *, shared: bool = False
) -> Iterator[tuple[ReadRequest[T], Capacity | None]]:
    """The outboxes in the order to read them, each with the room it has; None: not this time.

    The caller reads into `batch` before it asks for the next: what one leaves is the others'.
    With `shared` a turn reads less than a batch takes: other users wait for its end.
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
        share, own_outboxes = _Budget(batch, left.room.share(count)), max(1, outboxes // count)
        own.sort(key=lambda one: (-one.producer.skipped_turns, one.events))
        for producers, one in zip(range(len(own), 0, -1), own, strict=True):
            may = own_outboxes and share.room and left.room
            room = share.room.share(producers) if may else None
            one.producer.skipped_turns = 0 if room else one.producer.skipped_turns + 1
            yield one, room
            if room and (one.events or not one.alive):
                own_outboxes -= 1
                outboxes -= 1


def _ordered(users: dict[int, list[ReadRequest[T]]]) -> list[list[ReadRequest[T]]]:
    return sorted(
        users.values(),
        key=lambda own: (
            -max(one.producer.skipped_turns for one in own),
            sum(one.events for one in own),
        ),
    )


class _Budget:
    """Capacity that shrinks as the batch gets more."""

    def __init__(self, batch: Batch, room: Capacity) -> None:
        self._batch = batch
        self._events_end = batch.entries + room.events
        self._bytes_end = batch.bytes + room.bytes

    @property
    def room(self) -> Capacity:
        batch = self._batch
        return Capacity(
            max(0, self._events_end - batch.entries), max(0, self._bytes_end - batch.bytes)
        )


class OpenFileQuota:
    """How many outboxes are held open, and whether a user may have one more.

    With `shared`, a user may have half of what the others leave: so there is always some left for
    a user who comes later.
    """

    def __init__(self, files_max: int, per_user_max: int, *, shared: bool) -> None:
        self.files_max = files_max
        self._per_user_max = per_user_max
        self._shared = shared
        self._held: Counter[int] = Counter()

    def has_room(self, uid: int) -> bool:
        """Whether one more of this user may be opened."""
        own = self._held[uid]
        free = self.files_max - self._held.total() + own
        if self._shared:
            free = (free + 1) // 2
        return own < min(free, self._per_user_max)

    def others_than(self, uid: int) -> bool:
        """Whether other users than this one have an outbox open."""
        return len(self._held) > (uid in self._held)

    @property
    def several_users(self) -> bool:
        """Whether more than one user has an outbox open."""
        return len(self._held) > 1

    def held(self, uid: int) -> int:
        """How many this user has."""
        return self._held[uid]

    def add(self, uid: int) -> None:
        """One more is open."""
        self._held[uid] += 1

    def drop(self, uid: int) -> None:
        """One less."""
        self._held[uid] -= 1
        if not self._held[uid]:
            del self._held[uid]
