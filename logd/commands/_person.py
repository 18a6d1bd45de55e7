"""Options that name a person: in an argument or a file, of all applications or of one."""

from __future__ import annotations

import codecs
import pwd
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar

import click

from logd.commands._options import InputFile, Text, escaped_option, person_id
from logd.config.settings import Config
from logd.storage.senders import Person
from logd_wire.schema import USER_BYTES_MAX

F = TypeVar("F", bound=Callable[..., Any])

# An escape takes up to ten characters for one byte of the user id;
# a line end and a byte order mark take five.
_FILE_BYTES_MAX = 10 * USER_BYTES_MAX + 5

_OPTIONS = (
    click.argument("user", type=Text(), required=False),
    escaped_option,
    click.option(
        "--user-file",
        type=InputFile("rb"),
        metavar="FILE",
        help="Read the id from a file instead of USER, without the end of its last line and a byte"
        " order mark; - is standard input. For an id that no command line can carry, or that"
        " should not be in its history.",
    ),
    click.option(
        "--app",
        type=Text(),
        metavar="APP",
        help="Only what one application has logged: its name (apps in logd.toml), or the uid or"
        " user name that it runs as. By default, what all of them have.",
    ),
)


def person_options(command: F) -> F:
    """Adds USER, --escaped, --user-file and --app to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen_person(
    config: Config, user: str | None, escaped: bool, user_file: BinaryIO | None, app: str | None
) -> Person:
    """Returns the person that the options name. Raises BadParameter or UsageError."""
    if (user is None) == (user_file is None):
        raise click.UsageError("Name the person by USER or by --user-file FILE.")
    if user_file is not None:
        user = _read_user(user_file)
    assert user is not None
    uids = None if app is None else _uids_of(config.apps, app)
    return Person(person_id(user, escaped=escaped), uids)


def _read_user(file: BinaryIO) -> str:
    data = file.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise click.BadParameter("is too long for one id", param_hint="--user-file")
    try:
        data = data.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").removesuffix(b"\r")
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter("is not valid text (UTF-8)", param_hint="--user-file") from error


def _uids_of(apps: Mapping[str, tuple[int, ...]], app: str) -> tuple[int, ...]:
    if app in apps:
        return apps[app]
    if re.fullmatch(r"[0-9]{1,10}", app):
        return (int(app),)
    try:
        return (pwd.getpwnam(app).pw_uid,)
    except (KeyError, ValueError) as error:
        known = f" ({', '.join(sorted(apps))})" if apps else ""
        raise click.BadParameter(
            f"{app!r} is neither a name of apps in logd.toml{known}, nor a uid, nor a user of this"
            " machine",
            param_hint="--app",
        ) from error
