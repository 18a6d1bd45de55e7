"""Options and argument types that several commands share."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from logd.clock import durations, times
from logd.config import settings
from logd.config.settings import Config
from logd.errors import (
    EXIT_CANNOT_CREATE,
    EXIT_CONFIG,
    EXIT_DAMAGED,
    EXIT_INPUT_OUTPUT,
    EXIT_KEY,
    EXIT_NOT_WHOLE,
    EXIT_OK,
    EXIT_TEMPORARY,
)
from logd_wire.schema import check_stored_user

DEFAULT_CONFIG = "/etc/logd/logd.toml"

# Exit codes of commands that read the database, without that of a wrong command line.
READ_EXITS = (EXIT_OK, EXIT_DAMAGED, EXIT_CANNOT_CREATE, EXIT_TEMPORARY, EXIT_KEY, EXIT_CONFIG)
# Exit codes of commands that write to the database.
JOB_EXITS = (*READ_EXITS, EXIT_INPUT_OUTPUT)
# Exit codes of commands that copy or replace the database.
COPY_EXITS = (*JOB_EXITS, EXIT_NOT_WHOLE)

# The limit is larger than any number of events, rows or files, and fits SQLite's integers.
COUNT_MAX = 10**12
_SHOWN_CHARS_MAX = 60
_COUNT = re.compile(r"-?[0-9]{1,30}\Z")


class Nanoseconds(click.ParamType[int]):
    """The type of an option that is a time or a duration, converted by `parse`.

    The message of an error is the value, `between`, and the text of the ValueError.
    """

    def __init__(self, name: str, parse: Callable[[str], int], between: str) -> None:
        self.name, self._parse, self._between = name, parse, between

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(f"{_shown(value)}{self._between}{error}.", param, context)


TIME = Nanoseconds("time", lambda text: times.parse(text, time.time_ns()), " ")
DURATION = Nanoseconds("duration", durations.parse, ": ")


class Count(click.IntRange):
    """The type of an option that is a whole number in ASCII digits, from `min` to `max`."""

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
    """Text that can be stored: an argument that is not valid UTF-8 is refused.

    Also in the C locale, where Python passes the bytes of other characters as surrogates.
    """

    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            try:
                text = os.fsencode(text).decode()
            except UnicodeError:
                self.fail(f"{value!a}: is not valid text (UTF-8).", param, context)
        return text


class InputFile(click.File):
    """The type of an argument that names a file to read; - is standard input.

    A file that this user may not read is reported like any other file: by the exit code, and with
    the group to join.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            if isinstance(error.__context__, PermissionError):
                raise error.__context__ from None
            raise


class FilePath(click.ParamType[Path | None]):
    """The type of an argument that names a file or directory; with `dash`, - gives None.

    None stands for standard input or output.
    """

    name = "path"

    def __init__(self, *, dash: bool = False) -> None:
        self._dash = dash

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Path | None:
        if isinstance(value, Path):
            return value
        text = str(value)
        if not text:
            self.fail("is empty: name a file or directory.", param, context)
        if text == "-":
            if self._dash:
                return None
            self.fail(
                "'-': not possible with standard input or output. A file of that name is ./-",
                param,
                context,
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!a}: is not valid text (UTF-8).", param, context)
        try:
            if not Path(text).is_absolute():
                Path.cwd()
        except OSError as error:
            self.fail(f"{_shown(text)}: the working directory: {error.strerror}.", param, context)
        try:
            Path(text).lstat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # the command itself reports a file that it cannot open
        # An invalid path, such as a name that is too long, or a loop of links.
        except OSError as error:
            self.fail(f"{_shown(text)}: {error.strerror}.", param, context)
        return Path(text)


def load_config(file: str) -> Config:
    """Loads the configuration of a command. Raises ConfigError."""
    config = click.get_current_context().find_root().obj = settings.load(file)
    return config


def _load_config(_context: click.Context, _parameter: click.Parameter, value: str) -> Config:
    return load_config(value)


_CONFIG: dict[str, Any] = {
    "default": DEFAULT_CONFIG,
    "envvar": "LOGD_CONFIG",
    "show_default": True,
    "metavar": "FILE",
    "help": "The logd.toml of the instance. The environment variable LOGD_CONFIG sets it too.",
}
config_option = click.option("--config", callback=_load_config, **_CONFIG)
# This option is for a command that needs a configuration only at times, and calls `load_config`.
config_file_option = click.option("--config", "config_file", **_CONFIG)
public_key_option = click.option(
    "--public-key",
    metavar="VKEY",
    help="The trail's public key; by default that of the instance's signing key.",
)
witness_option = click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="VKEY",
    help="The public key of a witness that must have cosigned the head; repeat it for more.",
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="table for people, jsonl (one JSON object per line) for programs.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, for programs."
)
limit_option = click.option(
    "--limit", type=Count(min=1), help="Print at most this many, the newest."
)

_ESCAPE = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|(?P<char>.?))", re.DOTALL
)
_CHARS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "\\": "\\", "/": "/", '"': '"'}

escaped_option = click.option(
    "--escaped",
    is_flag=True,
    help="Read USER with the escapes that tables and JSON show (a\\x00b, a\\u0000b, \\\\ for a"
    " backslash), for an id that has control characters.",
)


def person_id(user: str, *, escaped: bool) -> str:
    """Returns the id of the user that an argument names. Raises BadParameter."""
    try:
        text = _pairs_joined(_ESCAPE.sub(_escaped_char, user)) if escaped else user
        return check_stored_user(text) or ""
    except ValueError as error:  # the errors include Malformed, which is a ValueError
        raise click.BadParameter(str(error), param_hint="USER") from error


def _pairs_joined(text: str) -> str:
    """Joins two escapes that stand for one character beyond U+FFFF.

    JSON writes such a character as two escapes, and so does a locale that lacks it.
    """
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise ValueError(
            "half of a pair of escapes (\\ud800 to \\udfff) is no character"
        ) from error


def spelling_note(user: str, events: int) -> str:
    """Returns a line for people about another spelling of the same id."""
    exact = user.encode("unicode_escape").decode()
    return f"the same id in another spelling is included: '{exact}' ({events:,} events)"


def _escaped_char(found: re.Match[str]) -> str:
    char = found["char"]
    if char is None:
        return chr(int(found[0][2:], 16))
    if char not in _CHARS:
        raise ValueError(f"{found[0]!r} is not an escape; write a backslash twice")
    return _CHARS[char]
