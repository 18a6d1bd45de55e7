"""Parses durations: a whole number and a unit, such as 90m, 12h, 30d or 2w (pure).

Options (`--since 2w`, `--expires 30d`) and settings (`retention.login`) share this grammar.
"""

from __future__ import annotations

import re

SECOND_NS = 10**9
UNITS_NS = {
    unit: seconds * SECOND_NS
    for unit, seconds in {
        "s": 1,
        "m": 60,
        "h": 3600,
        "d": 86_400,
        "w": 7 * 86_400,
        "y": 365 * 86_400,
    }.items()
}
YEARS_MAX = 200
MAX_NS = YEARS_MAX * UNITS_NS["y"]  # the most nanoseconds, which fit into 64 bits
UNITS = "s(econds), m(inutes), h(ours), d(ays), w(eeks) or y(ears of 365 days)"

# ASCII digits only, since int() also accepts those of other scripts.
_DURATION = re.compile(r"([0-9]+)([A-Za-z]+)\Z")
_DIGITS_MAX = 18


def parse(text: str) -> int:
    """Returns a duration in nanoseconds, 0 to MAX_NS. Raises ValueError with what is expected."""
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("expected a whole number and a unit, such as 90m, 12h or 30d")
    number, unit = match.groups()
    if unit not in UNITS_NS:
        raise ValueError(f"unknown unit {unit!r}; expected {UNITS}")
    if len(number) > _DIGITS_MAX or int(number) * UNITS_NS[unit] > MAX_NS:
        raise ValueError(f"expected at most {YEARS_MAX} years")
    return int(number) * UNITS_NS[unit]
