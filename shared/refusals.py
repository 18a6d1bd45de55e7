"""What a client refuses: counted by cause, told to the daemon, logged at a bounded rate."""

from __future__ import annotations

import builtins
import logging
import time

from shared.producer import Producer
from shared.schema import Malformed, type_name

LOG_INTERVAL_S = 10.0

_log = logging.getLogger("logd.client")


class Refusals:
    """The counts of one process; they go on when its producer is followed by another."""

    def __init__(self) -> None:
        self.by_cause: dict[str, int] = {}
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
        """Tells a new producer's outbox all that was counted before it."""
        for cause in self.by_cause:
            self._tell(cause, producer)

    def _tell(self, cause: str, producer: Producer | None) -> None:
        if producer is not None and producer.outbox is not None:
            producer.outbox.writer.refused(cause, self.by_cause[cause])

    def log(self, cause: str, detail: str) -> None:
        """At most one line in ten seconds for a cause. Not from inside an emit: a logging handler
        may itself emit.
        """
        now_s = time.monotonic()
        last_s = self._logged_at_s.get(cause)
        if last_s is None or now_s - last_s >= LOG_INTERVAL_S:
            self._logged_at_s[cause] = now_s
            count = self.by_cause.get(cause, 0)
            _log.warning("event refused (%s, %d so far): %s", cause, count, detail)


def described(detail: object) -> str:
    """The words of a refusal. Of an error those that are this package's or the system's, else its
    kind alone: another's `__str__` may do anything.
    """
    kind = type(detail)
    if isinstance(detail, str | Malformed):
        return str(detail)
    name = type_name(kind)
    if getattr(builtins, name, None) is kind and isinstance(detail, Exception):
        plain = all(type(argument) in (str, int) for argument in detail.args)
        return f"{name}: {detail}" if plain else name
    return name
