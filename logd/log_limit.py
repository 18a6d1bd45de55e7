"""Throttles log lines that input can cause (pure: the clock is passed in).

Senders of events decide how often such a line is due. So one line per message and user is logged in
an interval, and the next one has the number of lines left out. Only a few users per message have an
interval of their own; all others share one. That bounds the lines and the memory for any number of
users. Without it the journal would drop lines, important ones too, of a unit that writes too many.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

INTERVAL_S = 30.0
USERS_MAX = 8
KINDS_MAX = 64
_OTHERS = -1  # stands for all users without an interval of their own; no user id is negative


@dataclass(slots=True)
class _Line:
    logged_s: float
    left_out: int = 0


class ThrottledLog:
    """Logs at a bounded rate, from any thread. `clock_s` is monotonic."""

    def __init__(
        self,
        log: logging.Logger,
        clock_s: Callable[[], float] = time.monotonic,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._log = log
        self._clock_s = clock_s
        self._interval_s = interval_s
        self._kinds: dict[str, dict[int | None, _Line]] = {}
        self._lock = threading.Lock()

    def warning(self, message: str, *args: object, user: int | None = None) -> None:
        """Logs a warning, or counts it. Messages that differ in `args` only are of one kind.

        `user` is the id of the user who caused it, if there is one.
        """
        self._throttle(logging.WARNING, message, args, user)

    def exception(self, message: str, *args: object) -> None:
        """Logs an error with the traceback of the exception being handled, or counts it."""
        self._throttle(logging.ERROR, message, args, None, exc_info=True)

    def _throttle(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        user: int | None,
        *,
        exc_info: bool = False,
    ) -> None:
        with self._lock:
            left_out = self._take(message, user, self._clock_s())
        if left_out == 0:
            self._log.log(level, message, *args, exc_info=exc_info)
        elif left_out is not None:
            text = f"{message} (%d more like this were not logged)"
            self._log.log(level, text, *args, left_out, exc_info=exc_info)

    def _take(self, kind: str, user: int | None, now_s: float) -> int | None:
        """Returns how many lines were left out before this one; None to leave this one out."""
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            kind = ""
        lines = self._kinds.setdefault(kind, {})
        line = lines.get(user)
        if line is None:
            user = self._place(lines, user, now_s)
            line = lines.get(user)
        if line is None:
            lines[user] = _Line(now_s)
            return 0
        if now_s - line.logged_s < self._interval_s:
            line.left_out += 1
            return None
        left_out, line.logged_s, line.left_out = line.left_out, now_s, 0
        return left_out

    def _place(self, lines: dict[int | None, _Line], user: int | None, now_s: float) -> int | None:
        """Returns the key for a new user's line: the user, in place of an idle one, or _OTHERS."""
        if len(lines) - (_OTHERS in lines) < USERS_MAX:
            return user
        for other, line in lines.items():
            if other != _OTHERS and now_s - line.logged_s >= self._interval_s:
                del lines[other]
                if line.left_out:
                    # The idle user's number of lines left out
                    # is reported with the next shared line.
                    shared = lines.setdefault(_OTHERS, _Line(line.logged_s))
                    shared.left_out += line.left_out
                return user
        return _OTHERS
