"""How long events are kept, by type, as people write it: `page_view = "90d"` (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.schema import OWN_TYPES, Malformed, check_event_type

HOUR_NS = 3600 * 10**9
UNITS_NS = {"h": HOUR_NS, "d": 24 * HOUR_NS, "w": 7 * 24 * HOUR_NS, "y": 365 * 24 * HOUR_NS}
YEARS_MAX = 200

_PERIOD = re.compile(r"([1-9]\d{0,8})([a-z]+)\Z")


def check_type(event_type: str) -> None:
    """Raises ValueError for what is no type of event, or one that is always kept."""
    if event_type in OWN_TYPES:
        raise ValueError("tells what was done to the trail, and is kept for ever")
    try:
        check_event_type(event_type)
    except Malformed as error:
        raise ValueError(str(error)) from error


def parse_period(value: object) -> int:
    """The period in nanoseconds. Raises ValueError, saying what is expected."""
    match = _PERIOD.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('expected a period in quotes, such as "90d"')
    number, unit = match.groups()
    if unit not in UNITS_NS:
        raise ValueError(f"unknown unit {unit!r}; expected h(ours), d(ays), w(eeks) or y(ears)")
    period_ns = int(number) * UNITS_NS[unit]
    if period_ns > YEARS_MAX * UNITS_NS["y"]:
        raise ValueError(f"expected at most {YEARS_MAX} years; a type not named is kept for ever")
    return period_ns


def before(retention: Mapping[str, int], now_ns: int) -> dict[str, int]:
    """For each type, the time before which its events are past their period."""
    return {event_type: max(0, now_ns - period_ns) for event_type, period_ns in retention.items()}
