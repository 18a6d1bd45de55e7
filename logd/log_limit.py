"""Log lines that input can cause, at a bounded rate (pure: the clock is passed in).

Whoever sends events decides how often such a line is due. So there is one for each kind and user in
an interval, and the next one says how many were left out. Only so many users of a kind have a place
of their own; all others share one. That bounds the lines and the memory, however many users there
are: the journal drops lines of a unit that writes too many, whichever they are.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

INTERVAL_S = 30.0
USERS_MAX = 8
KINDS_MAX = 64
_OTHERS = -1  # no user id


@dataclass(slots=True)
class _Line:
    logged_s: float
    left_out: int = 0


class LimitedLog:
    """Logs warnings at a bounded rate. Not for several threads at once."""

    def __init__(self, log: logging.Logger, interval_s: float = INTERVAL_S) -> None:
        self._log = log
        self._interval_s = interval_s
        self._kinds: dict[str, dict[int | None, _Line]] = {}

    def warning(self, now_s: float, message: str, *args: object, user: int | None = None) -> None:
        """Logs the message, or counts it. Its text without `args` is its kind.

        `user` is the user id that caused it, as far as there is one; `now_s` is monotonic.
        """
        left_out = self._take(message, user, now_s)
        if left_out == 0:
            self._log.warning(message, *args)
        elif left_out is not None:
            self._log.warning(f"{message} (%d more like this were not logged)", *args, left_out)

    def _take(self, kind: str, user: int | None, now_s: float) -> int | None:
        """How many were left out before this one; None if this one is left out too."""
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
        """The place of a user who has none: a new one, one of who was quiet, or the shared one."""
        if len(lines) - (_OTHERS in lines) < USERS_MAX:
            return user
        for other, line in lines.items():
            if other != _OTHERS and now_s - line.logged_s >= self._interval_s:
                del lines[other]
                if line.left_out:
                    # Still to be reported: with the next line of the shared place.
                    shared = lines.setdefault(_OTHERS, _Line(line.logged_s))
                    shared.left_out += line.left_out
                return user
        return _OTHERS
