"""Counts by cause what a client refuses, reports it to the daemon, logs it at a bounded rate."""

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
        self._reported: dict[str, int] = {}  # by any producer so far
        self._reported_before: dict[str, int] = {}  # by those before the present one
        self._reporter: Producer | None = None
        self._logged_at_s: dict[str, float] = {}

    @property
    def total(self) -> int:
        """Events refused, for whatever cause."""
        return sum(self.by_cause.values())

    def unreported(self, counted: Mapping[str, int]) -> dict[str, int]:
        """Returns the part of the given counts that no former producer has reported."""
        before = self._reported_before
        left = {cause: count - before.get(cause, 0) for cause, count in counted.items()}
        return {cause: count for cause, count in left.items() if count}

    def end_report(self, counted: dict[str, int]) -> None:
        """Records that a producer has ended, and reported these counts."""
        self._reported = dict(counted)
        self._reported_before = counted

    def count(self, cause: str, producer: Producer | None) -> None:
        """Counts one refusal, and reports it in the producer's outbox, if it has one."""
        self.by_cause[cause] = self.by_cause.get(cause, 0) + 1
        self._report(cause, producer)

    def report_all(self, producer: Producer) -> None:
        """Reports in a new producer's outbox what no former one has reported."""
        self._reported_before = dict(self._reported)
        self._reporter = producer
        for cause in self.unreported(dict(self.by_cause)):  # a signal handler may add to it
            self._report(cause, producer)

    def _report(self, cause: str, producer: Producer | None) -> None:
        # A new producer reports nothing until `report_all`, which knows what is reported before it.
        if producer is not None and producer is self._reporter and producer.outbox is not None:
            count = -1
            # Again if a signal handler in the middle of this was refused as well: the counts that
            # it has reported must not be overwritten by these.
            while count != self.by_cause[cause]:
                count = self._reported[cause] = self.by_cause[cause]
                producer.outbox.writer.refused(cause, count - self._reported_before.get(cause, 0))

    def log(self, cause: str, detail: str) -> None:
        """Logs at most one line in ten seconds for a cause. Not called inside an emit: a logging
        handler may itself emit.
        """
        now_s = time.monotonic()
        last_s = self._logged_at_s.get(cause)
        if last_s is None or now_s - last_s >= LOG_INTERVAL_S:
            self._logged_at_s[cause] = now_s
            count = self.by_cause.get(cause, 0)
            _log.warning("event refused (%s, %d so far): %s", cause, count, detail)


def describe(detail: object) -> str:
    """Returns the text of a refusal for the log.

    Of an error the message, if it is this package's or the system's, else its type's name alone:
    another's `__str__` may do anything.
    """
    kind = type(detail)
    if isinstance(detail, str | Malformed):
        return str(detail)
    name = type_name(kind)
    if getattr(builtins, name, None) is kind and isinstance(detail, Exception):
        plain = all(type(argument) in (str, int) for argument in detail.args)
        return f"{name}: {detail}" if plain else name
    return name
