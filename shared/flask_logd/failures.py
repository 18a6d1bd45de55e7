"""Counts and logs failures of the extension and of the app's own functions; none is raised."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from flask import Flask, current_app

P = ParamSpec("P")
R = TypeVar("R")

SLOW_S = 0.05
_LOG_INTERVAL_S = 60.0


@dataclass
class Occurrences:
    """Counts occurrences of one kind, and decides which are logged: at most one a minute."""

    clock: Callable[[], float] = time.monotonic
    count: int = 0
    _logged: int = 0
    _next_s: float = field(default=float("-inf"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self) -> int:
        """Counts an occurrence; returns how many to report in a message now, 0 for no message."""
        with self._lock:
            self.count += 1
            now_s = self.clock()
            if now_s < self._next_s:
                return 0
            self._next_s = now_s + _LOG_INTERVAL_S
            new, self._logged = self.count - self._logged, self.count
            return new


class Failures:
    """Counts failures, and calls of the app's functions that took long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed = Occurrences(clock)
        # The slow calls of each function, by the name of its setting.
        self._slow: dict[str, Occurrences] = {}

    @property
    def count(self) -> int:
        """The number of failures."""
        return self._failed.count

    @property
    def slow_calls(self) -> int:
        """The number of calls of the app's functions that took longer than SLOW_S seconds."""
        return sum(slow.count for slow in self._slow.values())

    @contextlib.contextmanager
    def suppress(self, app: Flask, reraise: bool | None = None) -> Iterator[None]:
        """Counts an exception of the `with` block instead of raising it.

        `reraise` raises it all the same; by default it does while the app is testing or debugging.
        """
        try:
            yield
        except Exception as error:
            if is_developing(app) if reraise is None else reraise:
                raise
            self.record(app, error)

    def record(self, app: Flask, error: Exception) -> None:
        """Counts one failure, and logs it unless another was logged within the last minute."""
        new = self._failed.add()
        if not new:
            return
        # The message has the exception's type and place, never its text,
        # which may quote the event: the application's log may be a file.
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else "?"
        app.logger.error(
            "activity log: %d failure(s) since the last message, %d in total; latest: %s at %s",
            new,
            self.count,
            type(error).__name__,
            place,
        )

    def timing(self, setting: str, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps the function of a setting, so that a call that takes long is counted and logged."""
        slow = self._slow[setting] = Occurrences(self._clock)

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            started_s = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took_s = time.perf_counter() - started_s
                if took_s > SLOW_S:
                    _record_slow(slow, setting, took_s)

        return timed


def _record_slow(slow: Occurrences, setting: str, took_s: float) -> None:
    new = slow.add()
    if new:
        current_app.logger.warning(
            "activity log: %s took %.0f ms, and the request waited for it;"
            " %d slow call(s) since the last message, %d in total",
            setting,
            took_s * 1e3,
            new,
            slow.count,
        )


def is_developing(app: Flask) -> bool:
    """Returns whether the app is testing or debugging, so that failures should be raised."""
    return app.testing or app.debug
