"""Converts the time that an application gives for an event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from logd_wire.schema import Malformed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def time_ns(ts: object, *, strict: bool) -> Any:
    """Returns the time of an event in nanoseconds since 1970 UTC.

    `ts` is a datetime with a time zone, or a number of nanoseconds. Anything else is returned as it
    is, so that the client refuses the event and counts it as malformed. With `strict`, a datetime
    without a zone raises Malformed, which says what to do.
    """
    if not isinstance(ts, datetime):
        return ts
    if ts.utcoffset() is None:
        if strict:
            raise Malformed("ts: a datetime without a time zone; use datetime.now(UTC)")
        return ts
    # Computed in whole numbers, since a float has too few digits.
    return (ts - _EPOCH) // _MICROSECOND * 1000
