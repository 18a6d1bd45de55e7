"""Failures of the extension itself: counted and logged, but not raised in a request."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flask import Flask

_LOG_INTERVAL_S = 60.0


@dataclass
class Failures:
    """Counts the extension's own failures, and logs them at most once a minute."""

    clock: Callable[[], float] = time.monotonic
    count: int = 0
    _logged: int = 0
    _next_s: float = field(default=float("-inf"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def suppress(self, app: Flask, reraise: bool | None = None) -> Iterator[None]:
        """Counts an exception of the block instead of raising it.

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
        with self._lock:
            self.count += 1
            now_s = self.clock()
            if now_s < self._next_s:
                return
            self._next_s = now_s + _LOG_INTERVAL_S
            new, self._logged = self.count - self._logged, self.count
        # The exception's type and place, never its text: that may quote the event, and this log
        # may be a file.
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


def is_developing(app: Flask) -> bool:
    """Returns whether the app is testing or debugging, so that failures should be raised."""
    return app.testing or app.debug
