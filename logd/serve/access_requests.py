"""The report process's end of its lifeline: has the daemon store an event for each reading."""

from __future__ import annotations

import itertools
import queue
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from logd.serve.access_messages import ANSWER, pack_request
from logd_wire.schema import Malformed

# Seconds to wait for the daemon: with the report's own time,
# less than the 2 s for which pages wait.
ACCESS_TIMEOUT_S = 1.5


class AccessRequests:
    """Requests access events. `record` may be called by any thread, `take_answers` by one.

    There is at most one open reading for each running report.
    """

    def __init__(self, lifeline: socket.socket) -> None:
        lifeline.setblocking(False)
        self._lifeline = lifeline
        self._numbers = itertools.count(1)
        self._open: dict[int, queue.SimpleQueue[bool]] = {}

    def fileno(self) -> int:
        """Returns the descriptor, which is readable after an answer or the daemon's end."""
        return self._lifeline.fileno()

    def record(self, user: str | None, /, *events: Mapping[str, Any]) -> bool:
        """Returns whether the daemon has stored the events of a reading, within ACCESS_TIMEOUT_S.

        If the daemon has stored only some of them, the trail has a reading that was refused.
        """
        deadline_s = time.monotonic() + ACCESS_TIMEOUT_S
        answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        numbers = [next(self._numbers) for _ in events]
        self._open.update(dict.fromkeys(numbers, answers))
        try:
            for number, props in zip(numbers, events, strict=True):
                self._send(pack_request(number, time.time_ns(), user, props), deadline_s)
            return all(answers.get(timeout=_left(deadline_s)) for _ in numbers)
        # The event is too large, the daemon does not read, or it does not answer in time.
        except (Malformed, OSError, queue.Empty):
            return False
        finally:
            for number in numbers:
                del self._open[number]

    def _send(self, request: bytes, deadline_s: float) -> None:
        """Sends a request once the socket has room, which holds a few of the largest requests."""
        while True:
            try:
                self._lifeline.send(request)
                return
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._lifeline, select.POLLOUT)
                if not poll.poll(_left(deadline_s) * 1000):
                    raise

    def take_answers(self) -> bool:
        """Passes on the answers that have arrived; returns False when the daemon has ended."""
        while True:
            try:
                data = self._lifeline.recv(ANSWER.size)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            number, stored = ANSWER.unpack(data)
            answer = self._open.get(number)
            if answer is not None:  # without an open request, the answer came too late
                answer.put(stored)


def _left(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())
