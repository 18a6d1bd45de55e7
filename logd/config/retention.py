"""Retention periods by event type, such as `page_view = "90d"` (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from logd.clock import durations
from logd_wire.requests import OTHER_REQUESTS, PAGE_VIEW
from logd_wire.schema import INTERNAL_TYPES, REPORT_READ, Malformed, check_event_type


def check_type(event_type: str) -> None:
    """Raises ValueError if the text is not an event type, or is a type that is always kept."""
    if event_type in INTERNAL_TYPES:
        raise ValueError("records what was done to the trail, and is kept for ever")
    try:
        check_event_type(event_type, (REPORT_READ,))
    except Malformed as error:
        raise ValueError(str(error)) from error


def parse_period(value: object) -> int:
    """Returns the period in nanoseconds. Raises ValueError with what is expected."""
    if not isinstance(value, str):
        raise ValueError('expected a duration in quotes, such as "90d"')
    period_ns = durations.parse(value)
    if period_ns == 0:
        raise ValueError("expected more than 0; a type that is not named is kept for ever")
    return period_ns


def periods(retention: Mapping[str, int]) -> dict[str, int]:
    """Returns the period of each type that has one, in nanoseconds.

    The other types of requests follow `page_view` unless they have a period: earlier clients
    stored them as page views, and who chose a period for those chose it for these.
    """
    if PAGE_VIEW not in retention:
        return dict(retention)
    return dict.fromkeys(sorted(OTHER_REQUESTS), retention[PAGE_VIEW]) | dict(retention)


def before(retention: Mapping[str, int], now_ns: int) -> dict[str, int]:
    """Returns the time for each type before which its events are past their period."""
    return {
        event_type: max(0, now_ns - period_ns)
        for event_type, period_ns in periods(retention).items()
    }
