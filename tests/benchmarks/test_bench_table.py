"""Tables, durations, quantiles and sums."""

from __future__ import annotations

import pytest

from benchmarks.harness.sums import Sums
from benchmarks.harness.table import digits, duration, quantile, render


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (840, "840 ns"),
        (3_214, "3.21 us"),
        (12_345, "12.3 us"),
        (999_400, "999 us"),
        (999_600, "1.00 ms"),
        (84_000_000, "84 ms"),
        (85_810_000, "85.8 ms"),
        (1_500_000_000, "1.50 s"),
    ],
)
def test_a_duration_has_three_digits_and_a_fitting_unit(ns: int, text: str) -> None:
    assert duration(ns) == text


def test_numbers_keep_about_three_digits() -> None:
    assert [digits(n) for n in (0.333, 2.5, 12.34, 99.97, 4290.0, 1234567.8)] == [
        "0.33",
        "2.50",
        "12.3",
        "100",
        "4,290",
        "1,234,568",
    ]


def test_a_quantile_is_a_measured_value() -> None:
    values = list(range(100, 0, -1))
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert quantile([7], 0.99) == 7
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_columns_line_up_under_heads_of_two_lines() -> None:
    text = render(("what", "call\np50"), [("logd", "5 us"), ("a longer way", "120 ms")])
    assert text.splitlines() == [
        "                call",
        "what             p50",
        "------------  ------",
        "logd            5 us",
        "a longer way  120 ms",
    ]


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not have 2 columns"):
        render(("what", "p50"), [("logd",)])


def test_right_sums_have_no_problems() -> None:
    sums = Sums(attempted=10, accepted=8, refused=2, stored=5, quarantined=1, pending=1, lost=1)
    assert sums.problems() == []


def test_each_wrong_sum_is_reported() -> None:
    twice = Sums(attempted=10, accepted=8, refused=1, stored=9)
    assert twice.problems() == [
        "attempted 10 != accepted 8 + refused 1",
        "accepted 8 != stored 9 + quarantined 0 + pending 0 + lost 0",
    ]
