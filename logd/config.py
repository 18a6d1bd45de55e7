"""One TOML file, validated as a whole at start. Paths are relative to the file's own folder."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from logd.errors import ConfigError
from shared.paths import PathTooLong, check_socket_path

TEMPLATE = """\
# logd: where things are, who may reach them, and how much is kept in hand.
# Paths are relative to this file. An unknown name or a bad value stops the start (exit code 78).

database = "activity.db"
key_file = "logd.key"

socket = "logd.sock"              # events come in here
socket_mode = "0600"              # who may write: file permissions of the socket
query_socket = "query.sock"       # reports are asked here
query_socket_mode = "0600"
# query_uids = [33]               # further users who may ask for reports

# Outboxes are plain text and belong in memory. By default in /dev/shm, under a name made from the
# socket's path. many_users lets processes of other users have outboxes there (mode 3733).
# outbox_directory = "/run/logd-outboxes"
# many_users = false

# A commit takes at most this much at once; what arrives meanwhile makes the next one.
# batch_events_max = 20000
# batch_bytes_max = 8388608
# look_interval_ms = 1000         # how often outboxes are looked at without being asked
# stop_timeout_s = 10             # the time a clean stop may take
# gap_events_max = 1000000        # a jump in a producer's numbers past this is refused
# quarantine_rows_max = 10000     # older rows give way; the counts stay
"""


@dataclass(frozen=True)
class Config:
    """A validated configuration; every path absolute."""

    path: Path
    database: Path
    key_file: Path
    socket: Path
    query_socket: Path
    outbox_directory: Path
    socket_mode: int = 0o600
    query_socket_mode: int = 0o600
    query_uids: tuple[int, ...] = ()
    many_users: bool = False
    batch_events_max: int = 20_000
    batch_bytes_max: int = 8 * 1024 * 1024
    look_interval_ms: int = 1000
    stop_timeout_s: int = 10
    gap_events_max: int = 1_000_000
    quarantine_rows_max: int = 10_000

    @property
    def lock_file(self) -> Path:
        """The private file whose lock says that a daemon serves this instance."""
        return self.database.with_name(self.database.name + ".lock")


def load(path: str | os.PathLike[str]) -> Config:
    """Reads and validates the file. Raises ConfigError with file, line, and what to do."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file}: no such file. `logd init DIR` makes an instance with DIR/logd.toml."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    return parse(text, file.absolute())


def parse(text: str, file: Path) -> Config:
    """Validates the text of a configuration that stands, or will stand, at `file`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    values: dict[str, Any] = {}
    for name, value in table.items():
        check = _CHECKS.get(name)
        where = f"{file}, line {_line_of(text, name)}"
        if check is None:
            raise ConfigError(f"{where}: unknown name {name!r}{_nearest(name)}")
        try:
            values[name] = check(value)
        except ValueError as error:
            raise ConfigError(f"{where}: {name} = {value!r}: {error}") from error
    folder = file.parent
    for name, default in _PATHS.items():
        values[name] = Path(os.path.normpath(folder / values.get(name, default)))
        if name.endswith("socket"):
            try:
                check_socket_path(values[name])
            except PathTooLong as error:
                raise ConfigError(f"{file}, line {_line_of(text, name)}: {error}") from error
    if "outbox_directory" in values:
        values["outbox_directory"] = Path(os.path.normpath(folder / values["outbox_directory"]))
    else:
        values["outbox_directory"] = default_outbox_directory(values["socket"])
    return Config(path=file, **values)


def default_outbox_directory(socket: Path) -> Path:
    """In memory, one for each user and instance."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(socket))).hexdigest()[:16]
    return Path(f"/dev/shm/logd-{os.geteuid()}-{digest}")  # noqa: S108 - memory is the point


def _line_of(text: str, name: str) -> int | str:
    # tomllib keeps no positions. A top-level name stands at the start of its line.
    pattern = re.compile(rf"""\s*\[*["']?{re.escape(name)}["']?\s*[].=]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return "?"


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, _CHECKS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(_CHECKS))}"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a path in quotes")
    return value


def _mode(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('expected permissions as octal digits in quotes, such as "0660"')
    return int(value, 8)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _uids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(
        type(item) is int and 0 <= item < 2**32 for item in value
    ):
        raise ValueError("expected a list of user ids, such as [33, 1000]")
    return tuple(value)


def _whole(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return check


_PATHS = {
    "database": "activity.db",
    "key_file": "logd.key",
    "socket": "logd.sock",
    "query_socket": "query.sock",
}
_CHECKS: dict[str, Callable[[object], Any]] = {
    **dict.fromkeys(_PATHS, _text),
    "outbox_directory": _text,
    "socket_mode": _mode,
    "query_socket_mode": _mode,
    "query_uids": _uids,
    "many_users": _truth,
    "batch_events_max": _whole(1, 1_000_000),
    "batch_bytes_max": _whole(64 * 1024, 1024 * 1024 * 1024),
    "look_interval_ms": _whole(10, 60_000),
    "stop_timeout_s": _whole(1, 600),
    "gap_events_max": _whole(0, 10**12),
    "quarantine_rows_max": _whole(0, 10_000_000),
}
assert {field.name for field in fields(Config)} == {"path", *_CHECKS}
