"""What commands share: the configuration, times as people write them, a line of output, an end."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from logd import log_format
from logd.clock import durations, times
from logd.config import settings as configuration
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_KEY,
    EXIT_OK,
    EXIT_TEMPORARY,
)
from logd_wire.schema import check_stored_user

DEFAULT_CONFIG = "/etc/logd/logd.toml"


def fail(message: str, exit_code: int) -> NoReturn:
    """Ends the program with one line on stderr."""
    line = log_format.format_line(logging.ERROR, message, journal=log_format.reads_stderr())
    click.echo(line, err=True)
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


# No limit, page or number of files is as large: past it, SQLite's integers end.
COUNT_MAX = 10**12
_SHOWN_CHARS_MAX = 60
_COUNT = re.compile(r"-?[0-9]{1,30}\Z")


class Time(click.ParamType[int]):
    """A time, in nanoseconds since 1970; see `logd.clock.times`."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return times.parse(str(value), time.time_ns())
        except ValueError as error:
            self.fail(f"{_shown(value)} {error}.", param, context)


class Duration(click.ParamType[int]):
    """A length of time, in nanoseconds; see `logd.clock.durations`."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return durations.parse(str(value))
        except ValueError as error:
            self.fail(f"{_shown(value)}: {error}.", param, context)


class Count(click.IntRange):
    """A whole number in ASCII digits, from `min` to `max`."""

    name = "count"

    def __init__(self, min: int = 0, max: int = COUNT_MAX) -> None:
        super().__init__(min=min, max=max)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, str) and not _COUNT.match(value):
            expected = f"expected a whole number from {self.min} to {self.max}"
            self.fail(f"{_shown(value)}: {expected}.", param, context)
        return int(super().convert(value, param, context))


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 3] + "...")


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


_ESCAPE = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|(?P<char>.?))", re.DOTALL
)
_CHARS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "\\": "\\", "/": "/", '"': '"'}

escaped_option = click.option(
    "--escaped",
    is_flag=True,
    help="USER has the escapes that tables and JSON show (a\\x00b, a\\u0000b), and \\\\ for a"
    " backslash: for an id with control characters.",
)


def person_id(user: str, *, escaped: bool) -> str:
    """The user that an argument names. Raises BadParameter."""
    try:
        text = _ESCAPE.sub(_escaped_char, user) if escaped else user
        return check_stored_user(text) or ""
    except ValueError as error:  # Malformed too
        raise click.BadParameter(str(error), param_hint="USER") from error


def spelling_note(user: str, events: int, command: str) -> str:
    """A line about an id that only looks the same, with what names it exactly."""
    exactly = user.encode("unicode_escape").decode()
    return (
        f"another Unicode spelling of this id has {events:,} events; if it is the same person:"
        f" logd {command} --escaped '{exactly}'"
    )


def _escaped_char(found: re.Match[str]) -> str:
    char = found["char"]
    if char is None:
        return chr(int(found[0][2:], 16))
    if char not in _CHARS:
        raise ValueError(f"{found[0]!r} is no escape; a backslash is written twice")
    return _CHARS[char]


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


def abandon_output() -> None:
    """Drops what is left for standard output: Python tries it again at its end, and then its exit
    code is no longer ours.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
