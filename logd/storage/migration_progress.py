"""Reports the progress of a migration, during which the daemon's start waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from logd import systemd
from logd.storage.database import Connection

PROGRESS_INTERVAL_S = 10.0
EXTEND_INTERVAL_S = 5.0
PROGRESS_STEPS = 1_000_000

_log = logging.getLogger("logd")


class MigrationProgress:
    """Logs at intervals that a statement over all events still runs, and since when.

    It also extends the service manager's timeout, so that a long start is not considered a hang.
    """

    def __init__(self) -> None:
        self._started_s = self._logged_s = self._extended_s = time.monotonic()

    @contextmanager
    def of(self, connection: Connection, what: str) -> Iterator[None]:
        """Reports progress while the statement `what` runs on the connection."""

        def report() -> int:
            self._report(what, time.monotonic())
            return 0  # returning 0 lets SQLite continue

        connection.set_progress_handler(report, PROGRESS_STEPS)
        try:
            yield
        finally:
            connection.set_progress_handler(None, 0)

    def _report(self, what: str, now_s: float) -> None:
        if now_s - self._extended_s >= EXTEND_INTERVAL_S:
            self._extended_s = now_s
            systemd.extend_timeout()
            systemd.send(f"STATUS=bringing the database up to date: {what}")
        if now_s - self._logged_s >= PROGRESS_INTERVAL_S:
            self._logged_s = now_s
            _log.info(
                "%s, %.0f s so far; events wait in their outboxes", what, now_s - self._started_s
            )
