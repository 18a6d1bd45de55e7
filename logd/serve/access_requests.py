"""The report process's end of its lifeline: has the daemon store an event for each reading."""

from __future__ import annotations

import itertools
import queue
import socket
import time
from collections.abc import Mapping
from typing import Any

from logd.serve.access_messages import ANSWER, pack_request
from logd_wire.schema import Malformed

# With the report itself, less than the 2 s for which the site's pages wait.
ACCESS_TIMEOUT_S = 1.5


class AccessRequests:
    """Requests access events from any thread; `take_answers` is called by one of them.

    As many requests are open as reports run at a time.
    """

    def __init__(self, lifeline: socket.socket) -> None:
        lifeline.setblocking(False)
        self._lifeline = lifeline
        self._numbers = itertools.count(1)
        self._open: dict[int, queue.SimpleQueue[bool]] = {}

    def fileno(self) -> int:
        """Returns the descriptor that is readable when an answer or the end has come."""
        return self._lifeline.fileno()

    def record(self, user: str | None, props: Mapping[str, Any]) -> bool:
        """Returns whether the daemon has stored the event of a reading; never waits for long."""
        number = next(self._numbers)
        answer = self._open[number] = queue.SimpleQueue()
        try:
            self._lifeline.send(pack_request(number, time.time_ns(), user, props))
            return answer.get(timeout=ACCESS_TIMEOUT_S)
        except (Malformed, OSError, queue.Empty):  # too large; a daemon that does not read
            return False
        finally:
            del self._open[number]

    def take_answers(self) -> bool:
        """Passes on the answers that have come; returns False when the daemon has ended."""
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
            if answer is not None:  # else it came too late
                answer.put(stored)
