"""By which time an event ages: its own, as far as the time of storing bears it out (pure).

An event's own time is its client's word. It cannot be later than the storing. It may be earlier by
what an outbox waits for a daemon; earlier than that it is taken for a wrong clock, or for imported
history, and the event ages from its storing.
"""

from __future__ import annotations

from logd.clock.readings import DAY_NS

LATE_MAX_NS = 7 * DAY_NS
# A client's clock may be that much ahead of the daemon's before people are shown both times.
AHEAD_MAX_NS = DAY_NS

# What can be past its time among events with consecutive ids.
ALL, SOME, NONE = "all", "some", "none"


def is_plausible(ts_ns: int, stored_ns: int | None) -> bool:
    """Whether an event's own time and that of its storing, if known, can both be right."""
    return stored_ns is None or stored_ns - LATE_MAX_NS <= ts_ns <= stored_ns + AHEAD_MAX_NS


def age_ns(ts_ns: int, stored_ns: int) -> int:
    """The time by which an event ages."""
    return stored_ns if ts_ns < stored_ns - LATE_MAX_NS else min(ts_ns, stored_ns)


def past(before_ns: int, first_ts_ns: int, stored_from_ns: int | None, stored_to_ns: int) -> str:
    """What of a block ages before `before_ns`: ALL, SOME or NONE.

    `first_ts_ns` is the earliest of its events' own times; it was stored from `stored_from_ns`
    (None: not known) to `stored_to_ns`.
    """
    if stored_to_ns < before_ns:
        return ALL
    if stored_from_ns is None or stored_from_ns < before_ns:
        return SOME
    if first_ts_ns >= before_ns or stored_from_ns >= before_ns + LATE_MAX_NS:
        return NONE
    return SOME
