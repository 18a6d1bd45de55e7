"""Admission control: which connections are kept, and whose request is answered next. Pure.

A connection that is kept has a seat; a request that is being answered has a running place. Both are
shared by user, as open outboxes are (`scheduling.OpenFileQuota`): a user may have half of what the
others leave, so that some are left for a user who comes later. A connection without a complete
request is idle: it loses its seat to the next connection of its user, so that idle connections keep
no user out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from logd.ingest.scheduling import OpenFileQuota


class HasUser(Protocol):
    """A connection, and the user who made it."""

    @property
    def uid(self) -> int: ...


T = TypeVar("T", bound=HasUser)


class Admission(Generic[T]):
    """The connections that are kept: idle, waiting for an answer, or being answered."""

    def __init__(self, seats_max: int, running_max: int) -> None:
        self._seats = OpenFileQuota(seats_max, seats_max, shared=True)
        self._running = OpenFileQuota(running_max, running_max, shared=True)
        # Connections by user, oldest first.
        # Of the waiting ones, the user to be served next is first.
        self._idle: dict[int, OrderedDict[T, None]] = {}
        self._waiting: OrderedDict[int, OrderedDict[T, None]] = OrderedDict()

    def make_room(self, uid: int) -> T | None:
        """Returns the idle connection to close for a new one of this user; None if none is needed.

        It also returns None if there is none to close. Call `seat` only if `has_room` is true
        afterwards.
        """
        if self.has_room(uid):
            return None
        if self._seats.held(uid):
            idle = self._idle.get(uid)
        else:  # all seats are taken, and the user has none
            idle = max(self._idle.values(), key=len, default=None)
        return next(iter(idle)) if idle else None

    def has_room(self, uid: int) -> bool:
        """Returns whether one more connection of this user can be kept."""
        return self._seats.has_room(uid)

    def seat(self, peer: T) -> None:
        """Adds a new connection, which is idle."""
        self._seats.add(peer.uid)
        self._idle.setdefault(peer.uid, OrderedDict())[peer] = None

    def leave(self, peer: T) -> None:
        """Removes a connection that is not being answered."""
        _remove(self._idle, peer)
        _remove(self._waiting, peer)
        self._seats.drop(peer.uid)

    def ask(self, peer: T) -> None:
        """Queues an idle connection whose request is complete, to be answered."""
        _remove(self._idle, peer)
        self._waiting.setdefault(peer.uid, OrderedDict())[peer] = None

    def start_next(self) -> T | None:
        """Returns the connection to answer now; None if no waiting user may have a running place.

        Users take turns; one user's requests are answered in the order of arrival.
        """
        for uid, waiting in self._waiting.items():
            if self._running.has_room(uid):
                peer = next(iter(waiting))
                _remove(self._waiting, peer)
                if uid in self._waiting:
                    self._waiting.move_to_end(uid)
                self._running.add(uid)
                return peer
        return None

    def finish(self, peer: T) -> None:
        """Frees a running place, after its answer was sent or failed; the peer is idle again."""
        self._running.drop(peer.uid)
        self._idle.setdefault(peer.uid, OrderedDict())[peer] = None


def _remove(groups: dict[int, OrderedDict[T, None]], peer: T) -> None:
    group = groups.get(peer.uid)
    if group is not None:
        group.pop(peer, None)
        if not group:
            del groups[peer.uid]
