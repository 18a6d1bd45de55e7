"""Chooses the time from which an event's age is counted: its own, or that of storing (pure).

An event's own time is the client's claim. It cannot be later than the storing. It may be earlier by
as long as an outbox waits for a daemon; an earlier one means a wrong clock or imported history, and
the event's age is counted from its storing.
"""

from __future__ import annotations

from logd.clock.readings import DAY_NS

LATE_MAX_NS = 7 * DAY_NS
# How far a client's clock may be ahead of the daemon's before both times are displayed.
AHEAD_MAX_NS = DAY_NS

# Results of `past`: how many events of a block are older than a given time.
ALL, SOME, NONE = "all", "some", "none"


def is_plausible(ts_ns: int, stored_ns: int | None) -> bool:
    """Returns whether an event's own time and that of its storing, if known, can both be right."""
    return stored_ns is None or stored_ns - LATE_MAX_NS <= ts_ns <= stored_ns + AHEAD_MAX_NS


def age_ns(ts_ns: int, stored_ns: int) -> int:
    """Returns the time from which the event's age is counted."""
    return stored_ns if ts_ns < stored_ns - LATE_MAX_NS else min(ts_ns, stored_ns)


def past(before_ns: int, first_ts_ns: int, stored_from_ns: int | None, stored_to_ns: int) -> str:
    """Returns which events of a block are older than `before_ns`: ALL, SOME or NONE.

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
