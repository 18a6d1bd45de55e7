"""Parses points in time into nanoseconds since 1970 (pure).

A date in ISO 8601, in UTC unless it has a zone; a duration, meaning that long ago; or a count since
1970 whose unit follows from its size: 1767225600 are seconds, 1767225600000 milliseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from logd.clock import durations
from logd_wire.schema import INT64_MAX

EXPECTED = "2026-03-01, 2026-03-01T12:00:00, 90m, 12h or 7d (ago), or seconds since 1970"
# Between these dates a number is plausible in one unit only: the later is 6.5 times the earlier.
PLAUSIBLE_FIRST_YEAR, PLAUSIBLE_END_YEAR = 1990, 2100
UNITS_NS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS_MAX = 30
_DATE_DIGITS = 8  # a date without separators, as in 20260301
_DIGITS = re.compile(r"[0-9]+\Z")
_AGO = re.compile(r"[0-9]+[a-z]+\Z")
# The digits of a second beyond microseconds, which datetime does not keep.
_PAST_MICROSECONDS = re.compile(r"[.,][0-9]{6}([0-9]{1,3})(?![0-9])")


def parse(text: str, now_ns: int) -> int:
    """Returns a time in nanoseconds since 1970, at least 0. Raises ValueError with the reason."""
    if _DIGITS.match(text) and not _is_date(text):
        return _count(text)
    if _AGO.match(text):
        try:
            return max(0, now_ns - durations.parse(text))
        except ValueError as error:
            raise ValueError(f"is not a time: {error}; write {EXPECTED}") from error
    return _date(text)


def _is_date(digits: str) -> bool:
    if len(digits) != _DATE_DIGITS:
        return False
    try:
        datetime.fromisoformat(digits)
    except ValueError:
        return False
    return True


def _date(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"is not a time; write {EXPECTED}") from error
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    past = _PAST_MICROSECONDS.search(text)
    rest_ns = int(past[1].ljust(3, "0")) if past else 0
    found_ns = (zoned - _EPOCH) // timedelta(microseconds=1) * 1000 + rest_ns
    if found_ns > INT64_MAX:
        raise ValueError(
            f"is past {shown(INT64_MAX)}, the latest time that an event can have; "
            "for no end, omit the option"
        )
    return max(0, found_ns)


def _count(digits: str) -> int:
    """Returns a count since 1970 in nanoseconds; its unit is the one that makes it plausible."""
    number = int(digits) if len(digits) <= _DIGITS_MAX else 10**_DIGITS_MAX
    first_ns, end_ns = (
        int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 10**9
        for year in (PLAUSIBLE_FIRST_YEAR, PLAUSIBLE_END_YEAR)
    )
    for unit_ns in UNITS_NS.values():
        if first_ns <= number * unit_ns < end_ns:
            return number * unit_ns
    readings = ", ".join(f"in {unit} {shown(number * ns)}" for unit, ns in UNITS_NS.items())
    raise ValueError(
        f"is, counted from 1970: {readings}. A number is accepted only if in one of these units it "
        f"is a time from {PLAUSIBLE_FIRST_YEAR} to {PLAUSIBLE_END_YEAR - 1}: write the date, "
        "such as 2026-03-01"
    )


def shown(time_ns: int) -> str:
    """Formats a time to the second, for messages."""
    try:
        moment = _EPOCH + timedelta(seconds=time_ns // 10**9)
    except OverflowError:
        return "after the year 9999"
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}".rjust(20, "0")
