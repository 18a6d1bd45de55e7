"""The failures of the extension itself: kept from the request, counted, told at a bounded rate."""

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
    """Counts failures of the extension's own; says so at most once a minute."""

    clock: Callable[[], float] = time.monotonic
    count: int = 0
    _told: int = 0
    _next_s: float = field(default=float("-inf"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def harmless(self, app: Flask, outspoken: bool | None = None) -> Iterator[None]:
        """Keeps what is raised from the request: counted, or shown to a developer at work."""
        try:
            yield
        except Exception as error:
            if is_developing(app) if outspoken is None else outspoken:
                raise
            self.note(app, error)

    def note(self, app: Flask, error: Exception) -> None:
        with self._lock:
            self.count += 1
            now_s = self.clock()
            if now_s < self._next_s:
                return
            self._next_s = now_s + _LOG_INTERVAL_S
            new, self._told = self.count - self._told, self.count
        # The kind and the place, never the text: an error's text may quote the event, and this log
        # may be a file.
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else "?"
        app.logger.error(
            "activity log: %d failure(s) since last told, %d in all; the latest: %s at %s",
            new,
            self.count,
            type(error).__name__,
            place,
        )


def is_developing(app: Flask) -> bool:
    return app.testing or app.debug
