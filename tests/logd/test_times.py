"""Times of options at the ends of their ranges, and how they are shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from logd.clock import times
from logd.clock.times import PLAUSIBLE_END_YEAR, PLAUSIBLE_FIRST_YEAR, UNITS_NS, parse, shown
from logd_wire.schema import INT64_MAX

DAY_S = 86_400


def seconds(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize("unit", UNITS_NS)
def test_a_number_is_a_time_in_the_one_unit_that_makes_it_plausible(unit: str) -> None:
    unit_ns = UNITS_NS[unit]
    first, end = (
        seconds(year) * 10**9 // unit_ns for year in (PLAUSIBLE_FIRST_YEAR, PLAUSIBLE_END_YEAR)
    )
    assert parse(str(first), 0) == first * unit_ns
    assert parse(str(end - 1), 0) == (end - 1) * unit_ns
    for number in (first - 1, end):
        with pytest.raises(ValueError, match="counted from 1970"):
            parse(str(number), 0)


def test_a_number_in_no_unit_is_refused_with_all_four_readings() -> None:
    with pytest.raises(ValueError, match="counted from 1970") as refused:
        parse("5", 0)
    readings = ", ".join(f"in {unit} {shown(5 * ns)}" for unit, ns in UNITS_NS.items())
    assert str(refused.value) == (
        f"is, counted from 1970: {readings}. A number is accepted only if in one of these units it "
        f"is a time from {PLAUSIBLE_FIRST_YEAR} to {PLAUSIBLE_END_YEAR - 1}: write the date, "
        "such as 2026-03-01"
    )


@pytest.mark.parametrize("digits", ["9" * 30, "9" * 31, "9" * 5000])
def test_a_number_of_any_length_is_refused_in_a_line(digits: str) -> None:
    with pytest.raises(ValueError, match="after the year 9999") as refused:
        parse(digits, 0)
    assert str(refused.value).count("after the year 9999") == 4
    assert len(str(refused.value)) < 400


def test_thirty_digits_are_still_read() -> None:
    assert parse("0" * 20 + "1767225600", 0) == 1_767_225_600 * 10**9


def test_eight_digits_are_a_date_where_the_calendar_has_it() -> None:
    assert parse("20260301", 0) == parse("2026-03-01", 0) == 1_772_323_200 * 10**9
    with pytest.raises(ValueError, match="counted from 1970"):
        parse("20261301", 0)


def test_the_latest_time_of_an_event_is_taken_and_the_next_refused() -> None:
    latest = datetime(2262, 4, 11, 23, 47, 16, 854775, tzinfo=UTC)
    assert INT64_MAX - 1000 < parse(latest.isoformat(), 0) <= INT64_MAX
    with pytest.raises(ValueError, match="is past 2262-04-11T23:47:16Z, the latest time"):
        parse("2262-04-11T23:47:16.854776", 0)
    assert parse("1969-12-31", 0) == 0


def test_the_error_for_an_invalid_time_names_what_is_expected() -> None:
    with pytest.raises(ValueError, match="is not a time") as refused:
        parse("tomorrow", 0)
    assert str(refused.value) == f"is not a time; write {times.EXPECTED}"
    with pytest.raises(ValueError, match="is past") as refused:
        parse("2300-01-01", 0)
    assert str(refused.value) == (
        "is past 2262-04-11T23:47:16Z, the latest time that an event can have; "
        "for no end, omit the option"
    )


def test_a_zone_is_taken_as_named_and_utc_where_none_is() -> None:
    noon = parse("2026-03-01T12:00:00", 0)
    assert parse("2026-03-01T12:00:00Z", 0) == noon
    assert parse("2026-03-01T12:00:00+02:00", 0) == noon - 7200 * 10**9


def test_a_length_of_time_counts_back_from_now_and_not_past_1970() -> None:
    now_ns = 10 * DAY_S * 10**9
    assert parse("3d", now_ns) == 7 * DAY_S * 10**9
    assert parse("11d", now_ns) == 0
    with pytest.raises(ValueError, match="is not a time: unknown unit 'x'"):
        parse("3x", now_ns)


def test_times_are_shown_to_the_second_below_them() -> None:
    assert shown(0) == "1970-01-01T00:00:00Z"
    assert shown(1_999_999_999) == "1970-01-01T00:00:01Z"
    assert shown(-1) == "1969-12-31T23:59:59Z"
    assert shown(int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9) == (
        "9999-12-31T23:59:59Z"
    )
    assert shown(seconds(999) * 10**9) == "0999-01-01T00:00:00Z"
    assert shown(10**30) == "after the year 9999"


@pytest.mark.parametrize(
    ("fraction", "ns"),
    [
        (".5", 500_000_000), (".123456", 123_456_000), (".1234567", 123_456_700),
        (".12345678", 123_456_780), (".123456789", 123_456_789), (".000000001", 1),
    ],
)  # fmt: skip
def test_a_fraction_of_a_second_is_read_to_the_nanosecond(fraction: str, ns: int) -> None:
    second = parse("2026-03-01T12:00:00", 0)
    assert parse(f"2026-03-01T12:00:00{fraction}", 0) == second + ns
