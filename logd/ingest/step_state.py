"""The state of one step, shared by the parts of the delivery core. No I/O except log lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from logd.batch import Batch
from logd.config.settings import Config
from logd.ingest.interfaces import Outbox
from logd.log_limit import ThrottledLog

AnyOutbox = TypeVar("AnyOutbox", bound=Outbox)

_log = logging.getLogger("logd")


class StepState:
    """The batch at hand, the time of the step, and when polls and commits are due.

    A part sets `work_left` if it has left work unfinished: then the next step follows at once.
    """

    def __init__(self, config: Config, monotonic_s: Callable[[], float]) -> None:
        self.config = config
        self.monotonic_s = monotonic_s
        self.now_s = 0.0
        self.poll_due_s = 0.0
        self.commit_due_s = 0.0
        self.work_left = False
        self.batch = self.new_batch()
        self._throttled = ThrottledLog(_log, lambda: self.now_s)

    def new_batch(self) -> Batch:
        config = self.config
        return Batch(config.batch_events_max, config.batch_bytes_max, config.gap_events_max)

    def warn_throttled(self, message: str, *args: object, user: int | None = None) -> None:
        """Logs a warning at a bounded rate per message, and per user who can cause it."""
        self._throttled.warning(message, *args, user=user)

    def attempt(self, act: Callable[[AnyOutbox], None], outbox: AnyOutbox) -> None:
        """Calls `act` to close, refuse or remove an outbox; an OSError is only logged."""
        try:
            act(outbox)
        except OSError as error:
            self.warn_throttled("%s: cannot be closed or removed: %s", outbox.name, error.strerror)
