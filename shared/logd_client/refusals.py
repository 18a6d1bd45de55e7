"""What a client refuses: counted by cause, told to the daemon, logged at a bounded rate."""

from __future__ import annotations

import builtins
import logging
import time
from collections.abc import Mapping

from logd_client.producer import Producer
from logd_wire.schema import Malformed, type_name

LOG_INTERVAL_S = 10.0

_log = logging.getLogger("logd.client")


class ClientRefusals:
    """The counts of one process; they go on when its producer is followed by another.

    The daemon adds up what all producers report: each refusal is reported by one of them.
    """

    def __init__(self) -> None:
        self.by_cause: dict[str, int] = {}
        self._reported: dict[str, int] = {}  # by any producer so far
        self._reported_before: dict[str, int] = {}  # by those before the present one
        self._logged_at_s: dict[str, float] = {}

    @property
    def total(self) -> int:
        """Events refused, for whatever cause."""
        return sum(self.by_cause.values())

    def unreported(self, counted: Mapping[str, int]) -> dict[str, int]:
        """What no former producer has reported of the counts, which are those of one moment."""
        before = self._reported_before
        left = {cause: count - before.get(cause, 0) for cause, count in counted.items()}
        return {cause: count for cause, count in left.items() if count}

    def end_report(self, counted: dict[str, int]) -> None:
        """A producer has ended, and reported these counts."""
        self._reported = dict(counted)
        self._reported_before = counted

    def count(self, cause: str, producer: Producer | None) -> None:
        """One more, told to the daemon in the producer's outbox, if it has one."""
        self.by_cause[cause] = self.by_cause.get(cause, 0) + 1
        self._tell(cause, producer)

    def tell_all(self, producer: Producer) -> None:
        """Begins with a new producer: its outbox reports what no former one has."""
        self._reported_before = dict(self._reported)
        for cause in self.unreported(dict(self.by_cause)):  # a signal handler may add to it
            self._tell(cause, producer)

    def _tell(self, cause: str, producer: Producer | None) -> None:
        if producer is not None and producer.outbox is not None:
            count = self._reported[cause] = self.by_cause[cause]
            producer.outbox.writer.refused(cause, count - self._reported_before.get(cause, 0))

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
