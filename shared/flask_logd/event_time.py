"""Converts the time that an application gives for an event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from logd_wire.schema import Malformed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def time_ns(ts: object, *, strict: bool) -> Any:
    """Returns the time in nanoseconds since 1970 UTC, of a datetime with a zone or such a number.

    Anything else is returned as it is: the client refuses the event, and counts it as malformed.
    With `strict`, a datetime without a zone raises Malformed, which says what to do.
    """
    if not isinstance(ts, datetime):
        return ts
    if ts.utcoffset() is None:
        if strict:
            raise Malformed("ts: a datetime without a time zone; use datetime.now(UTC)")
        return ts
    return (ts - _EPOCH) // _MICROSECOND * 1000  # in whole numbers: a float has too few digits
