"""Durations at the ends of their range, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from logd.clock import times
from logd.clock.durations import MAX_NS, UNITS, UNITS_NS, YEARS_MAX, parse
from logd.config.retention import parse_period


@pytest.mark.parametrize("unit", UNITS_NS)
def test_a_length_is_taken_up_to_the_longest_in_any_unit(unit: str) -> None:
    longest = MAX_NS // UNITS_NS[unit]
    for number in (0, 1, 90, longest):
        assert parse(f"{number}{unit}") == number * UNITS_NS[unit]
    for digits in (str(longest + 1), "9" * 18, "9" * 19, "9" * 5000):
        with pytest.raises(ValueError, match="expected at most") as refused:
            parse(digits + unit)
        assert str(refused.value) == f"expected at most {YEARS_MAX} years"


def test_a_number_of_eighteen_digits_is_still_read() -> None:
    assert parse("0" * 17 + "7s") == 7 * 10**9
    with pytest.raises(ValueError, match="expected at most"):
        parse("0" * 18 + "7s")


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "5m ", "5.0m", "\u0665m", "5m5"])
def test_text_that_is_not_a_number_with_a_unit_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="expected a whole number") as refused:
        parse(text)
    assert str(refused.value) == "expected a whole number and a unit, such as 90m, 12h or 30d"


@pytest.mark.parametrize("unit", ["ms", "M", "D", "weeks", "S"])
def test_an_unknown_unit_is_named_with_those_there_are(unit: str) -> None:
    with pytest.raises(ValueError, match="unknown unit") as refused:
        parse(f"5{unit}")
    assert str(refused.value) == f"unknown unit {unit!r}; expected {UNITS}"


@pytest.mark.parametrize("text", ["45s", "90m", "36h", "30d", "2w", "1y"])
def test_options_and_settings_take_the_same_durations(text: str) -> None:
    now_ns = 2 * 10**18
    assert times.parse(text, now_ns) == now_ns - parse(text)
    assert parse_period(text) == parse(text)
