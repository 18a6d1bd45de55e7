"""Counts by cause the events that a client refuses, and reports and logs the counts."""

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
    """Refused events of one process, by cause, over all its producers.

    The daemon adds up what all producers report: each refusal is reported by one of them.
    """

    def __init__(self) -> None:
        self.by_cause: dict[str, int] = {}
        # Reported by any producer so far, the current one included.
        self._reported: dict[str, int] = {}
        # Reported by the producers before the current one.
        self._reported_before: dict[str, int] = {}
        self._reporter: Producer | None = None
        self._logged_at_s: dict[str, float] = {}

    @property
    def total(self) -> int:
        """Number of refused events, for all causes."""
        return sum(self.by_cause.values())

    def unreported(self, counted: Mapping[str, int]) -> dict[str, int]:
        """Returns the given counts less what former producers have reported."""
        before = self._reported_before
        left = {cause: count - before.get(cause, 0) for cause, count in counted.items()}
        return {cause: count for cause, count in left.items() if count}

    def end_report(self, counted: dict[str, int]) -> None:
        """Records that a producer has ended, after reporting these counts."""
        self._reported = dict(counted)
        self._reported_before = counted

    def count(self, cause: str, producer: Producer | None) -> None:
        """Counts one refusal, and reports it in the producer's outbox, if it has one."""
        self.by_cause[cause] = self.by_cause.get(cause, 0) + 1
        self._report(cause, producer)

    def report_all(self, producer: Producer) -> None:
        """Reports all refusals that no former producer has reported in a new producer's outbox."""
        self._reported_before = dict(self._reported)
        self._reporter = producer
        # The counts are copied, since a signal handler may add a cause.
        for cause in self.unreported(dict(self.by_cause)):
            self._report(cause, producer)

    def _report(self, cause: str, producer: Producer | None) -> None:
        # A new producer reports nothing until `report_all`,
        # which first determines what former producers have reported.
        if producer is not None and producer is self._reporter and producer.outbox is not None:
            count = -1
            # This is repeated if a signal handler refused another event meanwhile:
            # the higher count that it wrote must not stay overwritten.
            while count != self.by_cause[cause]:
                count = self._reported[cause] = self.by_cause[cause]
                producer.outbox.writer.refused(cause, count - self._reported_before.get(cause, 0))

    def log(self, cause: str, detail: str) -> None:
        """Logs a refusal, at most one line in ten seconds for each cause.

        Not called inside an emit, since a logging handler may itself emit.
        """
        now_s = time.monotonic()
        last_s = self._logged_at_s.get(cause)
        if last_s is None or now_s - last_s >= LOG_INTERVAL_S:
            self._logged_at_s[cause] = now_s
            count = self.by_cause.get(cause, 0)
            _log.warning("event refused (%s, %d so far): %s", cause, count, detail)


def describe(detail: object) -> str:
    """Returns the text of a refusal for the log.

    For an error of this package or of Python itself that is its message; for any other error its
    type's name alone, since its `__str__` may run any code.
    """
    kind = type(detail)
    if isinstance(detail, str | Malformed):
        return str(detail)
    name = type_name(kind)
    if getattr(builtins, name, None) is kind and isinstance(detail, Exception):
        plain = all(type(argument) in (str, int) for argument in detail.args)
        return f"{name}: {detail}" if plain else name
    return name
