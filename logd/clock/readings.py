"""Decides whether a reading of the wall clock is trusted, by the last trusted one (pure).

A clock can be wrong by years after a boot: a dead battery, a virtual machine resumed from a
snapshot, a bad time server. Everything that cannot be undone therefore checks the clock first. The
database keeps the last trusted reading with its boot id and boot time (CLOCK_BOOTTIME, which cannot
be set); the next reading is trusted if a pause can explain its distance from that one.

A clock that is wrong by less than `STEP_MAX_NS` looks like a machine that was off.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS

# How far ahead of the last reading a clock may be, beyond the time known to have passed: a weekend,
# a week of maintenance. A longer pause has to be confirmed once with --yes.
STEP_MAX_NS = 7 * DAY_NS
# How far behind the last reading a clock may be: a correction, or a hardware clock in local time.
BACK_MAX_NS = DAY_NS
# A clock that moves this far in one boot was set: synchronisation moves it less.
JUMP_MIN_NS = HOUR_NS // 6
# How long after a boot to wait for the clock to be synchronised, if it was before the boot.
# Bounded, because the machine may never be synchronised again.
SYNCHRONISED_AFTER_NS = HOUR_NS
# The time of 2025-01-01. This program is younger, so an earlier reading is wrong.
EARLIEST_NS = 1_735_689_600 * SECOND_NS


@dataclass(frozen=True)
class Reading:
    """A reading of the clocks at one moment. `synchronised` is None if that cannot be read."""

    wall_ns: int
    boot_id: str
    boottime_ns: int
    synchronised: bool | None = None


def earliest_now_ns(seen: Reading, now: Reading) -> int:
    """Returns the earliest time that it can be now if `seen` was right: boot time cannot be set."""
    if seen.boot_id != now.boot_id:
        return seen.wall_ns + now.boottime_ns
    return seen.wall_ns + max(0, now.boottime_ns - seen.boottime_ns)


def implausible(seen: Reading | None, now: Reading) -> str | None:
    """Returns why the wall clock is not trusted; None if it is. `seen` is the last trusted reading.

    Not being synchronised is a reason only in the first hour after a boot, and only if the last
    reading was synchronised: many containers, virtual machines and closed networks never are, and a
    service's sandbox may hide it.
    """
    says = f"the clock says {_when(now.wall_ns)}"
    if now.wall_ns < EARLIEST_NS:
        return f"{says}, which is before this program was written"
    if seen is None:
        return None
    last = f"the last time that the trail has seen, {_when(seen.wall_ns)}"
    # Boot time is compared within one boot only: after another boot it may be another machine.
    base_ns = earliest_now_ns(seen, now) if seen.boot_id == now.boot_id else seen.wall_ns
    if now.wall_ns > base_ns + STEP_MAX_NS:
        return f"{says}, {_span(now.wall_ns - base_ns)} ahead of {last}"
    if now.wall_ns < seen.wall_ns - BACK_MAX_NS:
        return f"{says}, {_span(seen.wall_ns - now.wall_ns)} behind {last}"
    if (
        now.synchronised is False
        and seen.synchronised
        and seen.boot_id != now.boot_id
        and now.boottime_ns < SYNCHRONISED_AFTER_NS
    ):
        return f"{says}, and is not synchronised yet, as it was before this boot"
    return None


def stamp_ns(seen: Reading | None, now: Reading) -> int:
    """Returns the time to record: that of the wall clock, or the earliest possible if far later.

    An event recorded with a time that is much too early would be pruned too early.
    """
    if seen is None or now.wall_ns >= seen.wall_ns - STEP_MAX_NS:
        return now.wall_ns
    return earliest_now_ns(seen, now)


def jumped(start: Reading, now: Reading) -> str | None:
    """Returns how the wall clock was set between two readings of one boot; None if it was not."""
    moved_ns = (now.wall_ns - start.wall_ns) - (now.boottime_ns - start.boottime_ns)
    if abs(moved_ns) < JUMP_MIN_NS:
        return None
    way = "ahead" if moved_ns > 0 else "back"
    return f"the clock was set {way} by {_span(abs(moved_ns))}, to {_when(now.wall_ns)}, meanwhile"


def _when(ns: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ns // SECOND_NS, UTC):%Y-%m-%d %H:%M}Z"
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns since 1970"


def _span(ns: int) -> str:
    if ns >= 2 * 365 * DAY_NS:
        return f"{ns / (365 * DAY_NS):,.1f} years"
    if ns >= 2 * DAY_NS:
        return f"{ns / DAY_NS:,.1f} days"
    return f"{ns / HOUR_NS:,.1f} hours"
