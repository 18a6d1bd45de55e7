"""What commands share: the configuration, times as people write them, a line of output, an end."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from logd import config as configuration
from logd import journal
from logd.config import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_KEY,
    EXIT_OK,
    EXIT_TEMPORARY,
)

DEFAULT_CONFIG = "/etc/logd/logd.toml"


def fail(message: str, exit_code: int) -> NoReturn:
    """Ends the program with one line on stderr."""
    click.echo(journal.line(logging.ERROR, message, journal=journal.reads_stderr()), err=True)
    sys.exit(exit_code)


def _load(context: click.Context, _parameter: click.Parameter, value: str) -> Config:
    config = context.find_root().obj = configuration.load(value)
    return config


config_option = click.option(
    "--config",
    callback=_load,
    default=DEFAULT_CONFIG,
    envvar="LOGD_CONFIG",
    show_default=True,
    metavar="FILE",
    help="The instance's logd.toml; LOGD_CONFIG in the environment does the same.",
)


format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="For people: table; for programs: jsonl (a JSON object a line).",
)

# What commands that read the database end with, beside bad usage.
EXITS_OF_READING = (
    *(EXIT_OK, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG),
)


class Time(click.ParamType[int]):
    """A time, in nanoseconds since 1970; see `parse_time`."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_time(str(value), time.time_ns())
        except ValueError:
            self.fail(
                f"{value!r} is no time. Write 2026-03-01, 2026-03-01T12:00:00, 90m, 12h or 7d"
                " (ago), or nanoseconds since 1970.",
                param,
                context,
            )


class Text(click.ParamType[str]):
    """Text as the trail has it: what is no Unicode cannot be in it."""

    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{value!a}: is not valid text (UTF-8).", param, context)
        return str(value)


class Duration(click.ParamType[int]):
    """A length of time, in nanoseconds: 90m, 12h, 30d."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = _AGO.match(str(value))
        if not found:
            self.fail(f"{value!r} is no length of time. Write 90m, 12h or 30d.", param, context)
        return int(found[1]) * _AGO_S[found[2]] * 10**9


_AGO = re.compile(r"(\d{1,8})([smhd])\Z")
_AGO_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_time(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of a time as people write it; UTC where no zone is named."""
    ago = _AGO.match(text)
    if ago:
        return now_ns - int(ago[1]) * _AGO_S[ago[2]] * 10**9
    if text.isdecimal() and len(text) > 8:
        return int(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 10**9 + moment.microsecond * 1000


def put(line: str) -> None:
    """A line of data as it is: click.echo would take what looks like colours out of it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """How far something is, on stderr of a terminal; gives a function that takes steps of it."""
    with click.progressbar(
        length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as shown:
        yield shown.update


def say(message: str) -> None:
    """A word to people, beside the data."""
    click.echo(f"logd: {message}", err=True)
