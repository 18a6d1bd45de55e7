"""What a client refuses: counted by cause, told to the daemon, logged at a bounded rate."""

from __future__ import annotations

import logging
import time

from shared.producer import Producer

LOG_INTERVAL_S = 10.0

_log = logging.getLogger("logd.client")


class Refusals:
    """The counts of one process; they go on when its producer is followed by another.

    The daemon adds up what all producers report: each refusal is reported by one of them.
    """

    def __init__(self) -> None:
        self.by_cause: dict[str, int] = {}
        self._reported: dict[str, int] = {}  # by any outbox so far
        self._reported_before: dict[str, int] = {}  # by those before the present one
        self._logged_at_s: dict[str, float] = {}

    @property
    def total(self) -> int:
        """Events refused, for whatever cause."""
        return sum(self.by_cause.values())

    def count(self, cause: str, producer: Producer | None) -> None:
        """One more, told to the daemon in the producer's outbox, if it has one."""
        self.by_cause[cause] = self.by_cause.get(cause, 0) + 1
        self._tell(cause, producer)

    def tell_all(self, producer: Producer) -> None:
        """Begins with a new producer: its outbox reports what no former one has."""
        self._reported_before = dict(self._reported)
        for cause, count in self.unreported.items():
            if count:
                self._tell(cause, producer)

    @property
    def unreported(self) -> dict[str, int]:
        """The counts that no former outbox has reported, by cause."""
        before = self._reported_before
        return {cause: count - before.get(cause, 0) for cause, count in self.by_cause.items()}

    def _tell(self, cause: str, producer: Producer | None) -> None:
        if producer is not None and producer.outbox is not None:
            count = self._reported[cause] = self.by_cause[cause]
            producer.outbox.writer.refused(cause, count - self._reported_before.get(cause, 0))

    def log(self, cause: str, detail: object) -> None:
        """At most one line in ten seconds for a cause. Not from inside an emit: a logging handler
        may itself emit.
        """
        now_s = time.monotonic()
        last_s = self._logged_at_s.get(cause)
        if last_s is None or now_s - last_s >= LOG_INTERVAL_S:
            self._logged_at_s[cause] = now_s
            count = self.by_cause.get(cause, 0)
            _log.warning("event refused (%s, %d so far): %s", cause, count, detail)
