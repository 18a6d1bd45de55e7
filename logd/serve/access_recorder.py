"""The daemon's end of the report process's lifeline: stores the access events requested over it.

The report process is not trusted. The daemon never waits for it, keeps a bounded number of its
requests, and ends it, by closing the lifeline, after an invalid request.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from selectors import EVENT_READ, BaseSelector
from typing import Protocol

from logd.batch import Batch
from logd.errors import StorageBusy
from logd.serve.access_messages import ANSWER, REQUEST_BYTES_MAX, unpack_request
from logd.storage.database import Connection
from logd_wire.schema import Malformed
from logd_wire.wire import Event

REQUESTS_MAX = 64  # the most requests stored in one commit; others wait in the socket


class Trail(Protocol):
    """The methods of `logd.storage.store.Store` that the recorder uses."""

    def transact(self, work: Callable[[Connection, Batch], None], now_ns: int) -> None: ...
    def append_internal(self, batch: Batch, event: Event) -> None: ...


class AccessRecorder:
    """Stores the access events requested since its last commit in one transaction, then answers."""

    def __init__(
        self,
        trail: Trail,
        selectors: Iterable[BaseSelector],
        clock_ns: Callable[[], int],
        monotonic_s: Callable[[], float],
        warn: Callable[[str, object], None],
    ) -> None:
        self._trail = trail
        self._selectors = tuple(selectors)
        self._clock_ns = clock_ns
        self._monotonic_s = monotonic_s
        self._warn = warn
        self._lifeline: socket.socket | None = None
        self._requests: list[tuple[int, Event]] = []
        self._due_s = 0.0

    def open(self) -> socket.socket:
        """Creates a lifeline, and returns the end of it for the new report process."""
        self.close()
        self._lifeline, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lifeline.setblocking(False)
        for selector in self._selectors:
            selector.register(self._lifeline, EVENT_READ)
        return theirs

    def close(self) -> None:
        """Closes the lifeline, which ends the report process."""
        self._requests = []
        if self._lifeline is not None:
            for selector in self._selectors:
                selector.unregister(self._lifeline)
            self._lifeline.close()
            self._lifeline = None

    @property
    def due_s(self) -> float:
        """Monotonic time at which waiting requests are to be stored; infinity if there are none."""
        return self._due_s if self._requests else float("inf")

    def step(self) -> None:
        """Stores the requested access events and answers the requests, if they are due.

        After a commit it rests for as long as the commit took, so that readers take half of the
        disk's time at most, as users with durable events do.
        """
        self._receive()
        began_s = self._monotonic_s()
        if len(self._requests) >= REQUESTS_MAX or began_s >= self.due_s:
            self._answer(self._store())
            ended_s = self._monotonic_s()
            self._due_s = ended_s + (ended_s - began_s)

    def refuse(self) -> bool:
        """Refuses all requests while nothing can be stored; returns whether there were any."""
        self._receive()
        refused = bool(self._requests)
        self._answer(False)
        return refused

    def _receive(self) -> None:
        while self._lifeline is not None and len(self._requests) < REQUESTS_MAX:
            try:
                request = self._lifeline.recv(REQUEST_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:
                request = b""
            try:
                if request:
                    self._requests.append(unpack_request(request))
                else:
                    self.close()  # the report process has ended
            except Malformed as error:
                self._warn("the report process is ended: it has sent no request: %s", error)
                self.close()

    def _store(self) -> bool:
        def work(_connection: Connection, batch: Batch) -> None:
            for _, event in self._requests:
                self._trail.append_internal(batch, event)

        try:
            self._trail.transact(work, self._clock_ns())
        except StorageBusy as problem:
            self._warn("reports about persons are refused: %s", problem)
            return False
        return True

    def _answer(self, stored: bool) -> None:
        requests, self._requests = self._requests, []
        for number, _ in requests:
            if self._lifeline is not None:
                with contextlib.suppress(OSError):  # the report process does not read, or has ended
                    self._lifeline.send(ANSWER.pack(number, stored))
