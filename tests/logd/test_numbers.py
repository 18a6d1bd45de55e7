"""Times, durations and numbers of options, settings and reports: read as meant, or refused."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from logd.cli import SECTIONS, main
from logd.clock import durations, times
from logd.commands._options import DURATION, TIME, Count, Nanoseconds
from logd.config.settings import parse
from logd.config.table import SETTINGS
from logd.errors import EXIT_TEMPORARY, EXIT_UNAVAILABLE, ConfigError
from logd.reports.parameters import BadParameter, Parameters
from logd.reports.registry import REPORTS
from logd.storage.store import Store
from logd_wire.query import Answer, QueryError
from logd_wire.schema import INT64_MAX
from tests.support.instance import Instance

NOW = 10**18
DAY_NS = 86_400 * 10**9
SECONDS = int(datetime(2026, 11, 30, 5, tzinfo=UTC).timestamp())
HUGE = ["9" * 23, "9" * 5000, "-" + "9" * 23]
OTHER_DIGITS = ["\u0661\u0662", "\u00b2", "1\u0660000000000", "\uff11\uff12"]

# -- the two grammars


@pytest.mark.parametrize("unit_ns", [10**9, 10**6, 10**3, 1])
def test_a_count_since_1970_is_read_in_the_one_unit_that_makes_a_plausible_date(
    unit_ns: int,
) -> None:
    assert times.parse(str(SECONDS * 10**9 // unit_ns), NOW) == SECONDS * 10**9
    first, end = (
        int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9 // unit_ns
        for year in (times.PLAUSIBLE_FIRST_YEAR, times.PLAUSIBLE_END_YEAR)
    )
    assert times.parse(str(first), NOW) == first * unit_ns
    assert times.parse(str(end - 1), NOW) == (end - 1) * unit_ns
    for outside in (first - 1, end):
        with pytest.raises(ValueError, match=r"in seconds .* in milliseconds"):
            times.parse(str(outside), NOW)


def test_a_count_that_fits_no_unit_is_refused_with_the_four_readings() -> None:
    with pytest.raises(ValueError, match="A number is accepted only") as caught:
        times.parse("123456789012", NOW)
    for reading in (
        "in seconds 5882-03-11T00:30:12Z",
        "in milliseconds 1973-11-29T21:33:09Z",
        "in microseconds 1970-01-02T10:17:36Z",
        "in nanoseconds 1970-01-01T00:02:03Z",
    ):
        assert reading in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-30", SECONDS - 5 * 3600),
        ("20261130", SECONDS - 5 * 3600),
        ("2026-11-30 05:00", SECONDS),
        ("2026-11-30T07:00+02:00", SECONDS),
        ("1969-12-31", 0),
        ("0001-01-01", 0),
        ("0001-01-01T00:00+23:00", 0),
        ("0s", NOW // 10**9),
        ("90m", NOW // 10**9 - 5400),
        ("2w", NOW // 10**9 - 14 * 86_400),
        ("1y", NOW // 10**9 - 365 * 86_400),
        ("200y", 0),
        ("2262-04-11T23:47:16Z", INT64_MAX // 10**9),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, expected: int) -> None:
    assert times.parse(text, NOW) // 10**9 == expected


NO_TIMES = [
    *("", " ", "now", "tomorrow", "-1", "0", "5", "12345678", "1.5h", "5h ", "12x", "12H", "201y"),
    *(
        "99999999d",
        "2026-02-30",
        "2026-11",
        "2026-11-30T24:00",
        "2026-06-30T23:59:60",
        "9999-12-31",
    ),
    *("2262-04-12", "1700000000.5", "1_700_000_000", "+1700000000", "1e9", *HUGE, *OTHER_DIGITS),
    *(
        "\u0661\u0662h",
        "\u00b2d",
        "10000000000\u0660",
        "\uff12\uff10\uff12\uff16-11-30",
        "1700000000\n",
        "90m\n",
        "\udc80",
    ),
]


@pytest.mark.parametrize("text", NO_TIMES, ids=ascii)
def test_an_invalid_time_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time|counted from 1970|is past"):
        times.parse(text, NOW)


@pytest.mark.parametrize("unit", durations.UNITS_NS)
def test_options_and_settings_read_the_same_lengths_of_time(unit: str) -> None:
    text = f"2{unit}"
    length_ns = durations.parse(text)
    assert times.parse(text, NOW) == NOW - length_ns
    (page_view,) = parse(f'retention.page_view = "{text}"', Path("/x/y.toml")).retention.values()
    assert page_view == length_ns
    assert DURATION.convert(text, None, None) == length_ns


NO_DURATIONS = ["", "5", "-5d", "1.5h", "d", "5 d", "5dd", "201y", "99999999d", "12H", "5h\n"]
NO_DURATIONS += ["\u0663d", "\u00b2d", *HUGE, *(f"{number}s" for number in HUGE)]


@pytest.mark.parametrize("text", NO_DURATIONS, ids=ascii)
def test_what_is_no_length_of_time_is_refused_by_option_and_setting(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        durations.parse(text)
    with pytest.raises(ConfigError, match=r"retention of 'login'"):
        parse("retention.login = " + configuration_text(text), Path("/x/y.toml"))


def configuration_text(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


# -- every option there is

NUMBERS = (Nanoseconds, Count)
PLAIN = (click.types.IntParamType, click.types.FloatParamType, click.DateTime)
OPTIONS = [
    (name, parameter)
    for part in SECTIONS.values()
    for name in part
    for parameter in main.load_command(name).params
    if isinstance(parameter.type, NUMBERS)
]
NAMED = [f"{name} {parameter.opts[0]}" for name, parameter in OPTIONS]


def test_every_option_that_takes_a_number_or_a_time_is_tried_here() -> None:
    """A plain click.INT would take any script's digits, and numbers past SQLite's integers."""
    for part in SECTIONS.values():
        for name in part:
            for parameter in main.load_command(name).params:
                plain = isinstance(parameter.type, PLAIN)
                assert not plain or isinstance(parameter.type, Count), (name, parameter.name)
    assert len(OPTIONS) >= 10


def refused(kind: Any) -> list[str]:
    """What an option of that kind does not take."""
    if kind is TIME:
        return NO_TIMES[:-1]  # no file system encoding in a command line of a test
    if kind is DURATION:
        return NO_DURATIONS
    texts = [*HUGE, *OTHER_DIGITS, "", "1.5", "1e3", "1_000", " 5", "0x10", "nan", "5\n"]
    return [*texts, str(kind.min - 1), str(kind.max + 1), str(2**63 - 1), str(2**64)]


def taken(kind: Any) -> list[str]:
    """The ends of what it takes."""
    if kind is TIME:
        return ["0001-01-01", "2262-04-11T23:47:16", "200y", "0s", str(SECONDS * 1000)]
    return ["0s", "200y"] if kind is DURATION else [str(kind.min), str(kind.max)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance with a database and no daemon."""
    instance = Instance(tmp_path_factory.mktemp("n"))
    instance.open_store().close()
    yield instance
    instance.close()


@pytest.mark.parametrize(("name", "parameter"), OPTIONS, ids=NAMED)
def test_an_option_takes_or_refuses_any_number_and_no_command_breaks(
    stored: Instance, name: str, parameter: click.Parameter
) -> None:
    # What a command asks for besides: anybody, so that nobody has to list the commands here.
    besides = [
        "7" for p in main.load_command(name).params if isinstance(p, click.Argument) and p.required
    ]
    if name == "verify":  # of no anchors: not proven
        besides = ["--anchors", os.devnull]
    option = parameter.opts[-1]
    config = any("--config" in p.opts for p in main.load_command(name).params)
    line = [name, *(("--config", str(stored.config.path)) if config else ())]

    def given(text: str) -> list[str]:
        if isinstance(parameter, click.Argument):
            return ["--", text]
        return [f"{option}={text}", *besides]

    for text in refused(parameter.type):
        done = CliRunner().invoke(main, [*line, *given(text)])
        told = "Invalid value" in done.stderr or "there is no event" in done.stderr
        assert (done.exit_code, told) == (2, True), (text, done.output)
    for text in taken(parameter.type):
        shutil.rmtree(stored.config.backup_directory, ignore_errors=True)  # the second names them
        done = CliRunner().invoke(main, [*line, *given(text)])
        # What conformance asks for is a program, and "7" is none.
        expected = 0 if config else EXIT_UNAVAILABLE
        expected = EXIT_TEMPORARY if name == "verify" else expected
        if "the trail has" in done.stderr or "there is no event" in done.stderr:
            expected = 2
        assert done.exit_code == expected, (text, done.output, done.exception)


# -- reports and settings


class Recording(Parameters):
    """Notes which whole numbers a report takes, and gives each its lowest or what is set."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.ranges: dict[str, tuple[int, int]] = {}

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int) -> int:
        self.ranges[name] = low, high
        return super().whole(name, low if default is None else default, low=low, high=high)

    def maybe_whole(self, name: str, *, low: int = 0, high: int = INT64_MAX) -> int | None:
        self.ranges[name] = low, high
        return super().maybe_whole(name, low=low, high=high)

    def text(self, name: str, default: str | None = None) -> str:
        return super().text(name, "7" if default is None else default)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    store = Store(tmp_path_factory.mktemp("r") / "a.db", b"k" * 32, 1, 10)
    yield store.connection
    store.close()


# Why a report refuses a number in range.
CROSS_CHECKS = "days after|is not there|before_id|is another one now|size: the trail has"


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_answers_or_names_the_parameter_that_it_refuses(
    connection: Any, name: str
) -> None:
    recording = Recording({})
    assert isinstance(REPORTS[name].run(connection, recording), Answer)
    for parameter, (low, high) in recording.ranges.items():
        for value in (low, high):
            try:
                assert isinstance(
                    REPORTS[name].run(connection, Recording({parameter: value})), Answer
                )
            except QueryError as error:
                # Of two days one alone was set; of a page's last event it is not there.
                assert re.search(CROSS_CHECKS, str(error))  # noqa: PT017 - as before
        others: list[Any] = [low - 1, high + 1, 2**63, 2**64 - 1, 1.5, 1e300, math.nan, True, "5"]
        others += [None, [1]]
        for other in (*others, "x" * 5000):
            with pytest.raises(BadParameter) as caught:
                REPORTS[name].run(connection, Recording({parameter: other}))
            said = str(caught.value)
            assert said.startswith(
                f"{parameter}: expected a whole number from {low} to {high}, not"
            )
            assert len(said) < 200


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_setting_takes_or_refuses_any_number(name: str) -> None:
    values = [
        "0",
        "-1",
        "9" * 23,
        "-" + "9" * 23,
        "1e300",
        "inf",
        "nan",
        "2026-11-30",
        '"\u0661\u0662"',
    ]
    for value in [
        *values,
        "9" * 5000,
        '"127.0.0.\u0661:9464"',
        '"127.0.0.1:9\u0664"',
        '"\u0660660"',
        "[9e99]",
    ]:
        try:
            found = parse(f"{name} = {value}", Path("/x/y.toml"))
        except ConfigError as error:
            assert "/x/y.toml" in str(error)  # noqa: PT017 - either is right
        else:
            assert not isinstance(getattr(found, name), tuple), "another script's port"
