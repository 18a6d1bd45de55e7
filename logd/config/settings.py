"""One TOML file, validated as a whole at start. Paths are relative to the file's own folder."""

from __future__ import annotations

import difflib
import grp
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from logd.config.file import read_text
from logd.config.retention import check_type, parse_period
from logd.errors import ConfigError
from logd_wire.paths import PathTooLong, check_socket_path
from logd_wire.rendezvous import default_directory_in_use

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
# query_group = "logd-read"       # and the members of a group
# metrics = "metrics.sock"        # Prometheus reads here: a socket, or "127.0.0.1:9464"; off
# metrics_socket_mode = "0600"

# Outboxes are plain text and belong in memory. By default in /dev/shm, under a name made from the
# socket's path. many_users lets processes of other users have outboxes there (mode 3733).
# outbox_directory = "/run/logd-outboxes"
# many_users = false

# A commit takes at most this much at once; what arrives meanwhile makes the next one.
# batch_events_max = 20000
# batch_bytes_max = 8388608
# commit_interval_ms = 50         # from one commit to the next, unless somebody waits for it
# look_interval_ms = 1000         # how often outboxes are looked at without being asked
# stop_timeout_s = 10             # the time a clean stop may take
# gap_events_max = 1000000        # a jump in a producer's numbers past this is refused
# quarantine_rows_max = 10000     # older rows give way; the counts stay
# event_types_per_user_max = 500  # types that one user may introduce; further ones are refused
# event_types_max = 5000          # the same for all users; known types stay open to everyone

# Outboxes: how many are held open at once, of all users and of one; further ones wait. What they
# take of memory is not logd's and not in its bound: past this, status and a line in the log say so.
# outboxes_max = 4000
# outboxes_per_user_max = 2000
# outboxes_bytes_max = 2147483648

# The bound of logd's own memory, resident. A start with batch_events_max, batch_bytes_max,
# outboxes_max, event_types_max and cache_bytes_max that cannot fit is refused. Reports have a
# process of their own.
# cache_bytes_max = 16777216      # pages of the database
# memory_bytes_max = 134217728

# `logd backup` writes here, into files only their owner reads, and removes those of its own that
# are older. A directory for this instance alone; on another disk, if there is one.
# backup_directory = "backups"
# backup_keep_days = 30           # 0: for ever
# backup_keep_min = 2             # so many of the newest stay, however old they are

# How often the log says where the hash chain ends, for `logd verify --anchor`; 0: never.
# anchor_interval_s = 60
# anchor_file = "anchors"         # a file that each of these lines is added to as well; off

# How long events of a type are kept: a whole number and s, m, h, d, w or y (365 days), as options
# of commands take it. `logd prune` removes what is older; a type that is not named is kept for
# ever. An event ages by its own time; or by that of its storing, if its own is later, or over 7
# days earlier: a wrong clock, or imported history, which is kept from its import on. (A table
# [retention] at the end does the same.)
# retention.page_view = "90d"
"""


SHOWN_CHARS_MAX = 80
KEEP_DAYS_MAX = 36_500
MIB = 1024 * 1024

# What the parts of the daemon take of memory at most, in bytes; tests/faults/test_memory.py holds
# the sum against what the kernel counts. An event in a batch is Python objects, a row, a hash and
# roll-ups, whatever its size; its bytes are there as read, as kept and as bound to a statement.
PROGRAM_BYTES = 44 * MIB
EVENT_BYTES = 1536
EVENT_COPIES = 3
OUTBOX_BYTES = 2048
TYPE_BYTES = 320


@dataclass(frozen=True)
class Config:
    """A validated configuration; every path absolute."""

    path: Path
    database: Path
    key_file: Path
    socket: Path
    query_socket: Path
    outbox_directory: Path
    backup_directory: Path
    socket_mode: int = 0o600
    query_socket_mode: int = 0o600
    query_uids: tuple[int, ...] = ()
    query_group: str | None = None
    metrics: Path | tuple[str, int] | None = None
    metrics_socket_mode: int = 0o600
    many_users: bool = False
    batch_events_max: int = 20_000
    batch_bytes_max: int = 8 * 1024 * 1024
    commit_interval_ms: int = 50
    look_interval_ms: int = 1000
    stop_timeout_s: int = 10
    gap_events_max: int = 1_000_000
    quarantine_rows_max: int = 10_000
    event_types_per_user_max: int = 500
    event_types_max: int = 5000
    outboxes_max: int = 4000
    outboxes_per_user_max: int = 2000
    outboxes_bytes_max: int = 2 * 1024 * MIB
    cache_bytes_max: int = 16 * MIB
    memory_bytes_max: int = 128 * MIB
    backup_keep_days: int = 30
    backup_keep_min: int = 2
    anchor_interval_s: int = 60
    anchor_file: Path | None = None
    retention: Mapping[str, int] = field(default_factory=dict)  # by type, in nanoseconds

    @property
    def lock_file(self) -> Path:
        """The private file whose lock says that a daemon serves this instance."""
        return self.database.with_name(self.database.name + ".lock")

    @property
    def rekeyed_file(self) -> Path:
        """The database under its next key, whole, until that is the key."""
        return self.database.with_name(self.database.name + ".rekeyed")


def load(path: str | os.PathLike[str]) -> Config:
    """Reads and validates the file. Raises ConfigError with file, line, and what to do."""
    file = Path(path)
    try:
        text = read_text(file)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file}: no such file. `logd init DIR` makes an instance with DIR/logd.toml."
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    return parse(text, file.absolute())


def parse(text: str, file: Path) -> Config:
    """Validates the text of a configuration that stands, or will stand, at `file`."""
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{file}: not valid TOML: nested too deep") from error
    except ValueError as error:  # also of a number with thousands of digits
        raise ConfigError(f"{file}: not valid TOML: {_short(str(error))}") from error
    values: dict[str, Any] = {}
    for name, value in table.items():
        check = _CHECKS.get(name)
        where = f"{file}, line {_line_of(text, name)}"
        if check is None:
            raise ConfigError(f"{where}: unknown name {_shown(name)}{_nearest(name)}")
        try:
            values[name] = check(value)
        except _InTable as error:
            line = _line_in_table(text, name, error.key)
            raise ConfigError(f"{file}, line {line}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{where}: {name} = {_shown(value)}: {error}") from error
    folder = file.parent
    for name, default in _PATHS.items():
        values[name] = Path(os.path.normpath(folder / values.get(name, default)))
        if name.endswith("socket"):
            _check_socket(values[name], file, _line_of(text, name))
    if isinstance(values.get("metrics"), str):
        values["metrics"] = Path(os.path.normpath(folder / values["metrics"]))
        _check_socket(values["metrics"], file, _line_of(text, "metrics"))
    if "anchor_file" in values:
        values["anchor_file"] = Path(os.path.normpath(folder / values["anchor_file"]))
    if "outbox_directory" in values:
        values["outbox_directory"] = Path(os.path.normpath(folder / values["outbox_directory"]))
    else:
        values["outbox_directory"] = Path(default_directory_in_use(str(values["socket"])))
    config = Config(path=file, **values)
    _check_anchor_file(config, text)
    _check_memory(config)
    return config


def query_gid(config: Config) -> int | None:
    """The id of the group `query_group`, None without one. Raises ConfigError: no such group."""
    if config.query_group is None:
        return None
    try:
        return grp.getgrnam(config.query_group).gr_gid
    except KeyError as error:
        raise ConfigError(
            f"{config.path}: query_group = {config.query_group!r}: there is no such group here. "
            f"Make it (`groupadd --system {config.query_group}`), or take the line out."
        ) from error


def _check_socket(path: Path, file: Path, line: int | str) -> None:
    try:
        check_socket_path(path)
    except PathTooLong as error:
        raise ConfigError(f"{file}, line {line}: {error}") from error


def memory_parts(config: Config) -> dict[str, int]:
    """What each setting may make the daemon take of memory, in bytes."""
    return {
        "the program": PROGRAM_BYTES,
        "batch_events_max": config.batch_events_max * EVENT_BYTES,
        "batch_bytes_max": config.batch_bytes_max * EVENT_COPIES,
        "outboxes_max": config.outboxes_max * OUTBOX_BYTES,
        "event_types_max": config.event_types_max * TYPE_BYTES,
        "cache_bytes_max": config.cache_bytes_max,
    }


def _check_memory(config: Config) -> None:
    parts = memory_parts(config)
    needed = sum(parts.values())
    if needed > config.memory_bytes_max:
        shown = ", ".join(f"{name} {-(-size // MIB)}" for name, size in parts.items())
        raise ConfigError(
            f"{config.path}: memory_bytes_max = {config.memory_bytes_max} is too little: up to "
            f"{needed} bytes may be needed. In MiB: {shown}. Raise it, or lower one of these."
        )


def _check_anchor_file(config: Config, text: str) -> None:
    """What is added to it must not end up in a file of another use."""
    path, database = config.anchor_file, config.database
    others = {config.path, config.key_file, config.socket, config.query_socket, config.metrics}
    # The database's own files begin with its name.
    beside = path and path.parent == database.parent and path.name.startswith(database.name)
    if path is not None and (path in others or beside):
        where = f"{config.path}, line {_line_of(text, 'anchor_file')}"
        raise ConfigError(f"{where}: anchor_file = {_shown(str(path))}: is a file of another use")


def names() -> tuple[str, ...]:
    """Every setting there is."""
    return tuple(_CHECKS)


def expected(name: str) -> str:
    """What a setting takes, in the words of the error about any other value."""
    try:
        _CHECKS[name](object())
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{name} takes anything")


def is_default(name: str, value: object) -> bool:
    """Whether a setting has that value when it is not set."""
    defaults = {field.name: field.default for field in fields(Config)} | _PATHS
    return bool(_CHECKS[name](value) == defaults[name])


def _line_of(text: str, name: str) -> int | str:
    # tomllib keeps no positions. A top-level name stands at the start of its line.
    pattern = re.compile(rf"""\s*\[*["']?{re.escape(name)}["']?\s*[].=]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return "?"


def _line_in_table(text: str, table: str, key: str) -> int | str:
    """Of a key below the table's head, or of the table where it is written in another way."""
    lines = text.splitlines()
    head = re.compile(rf"\s*\[\s*{table}\s*\]")
    start = next((number for number, line in enumerate(lines) if head.match(line)), None)
    line = "?" if start is None else _line_of("\n".join(lines[start + 1 :]), key)
    if start is None or isinstance(line, str):
        dotted = _line_of(text, f"{table}.{key}")
        return dotted if isinstance(dotted, int) else _line_of(text, table)
    return start + 1 + line


def _shown(value: object) -> str:
    try:
        return _short(repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits; a deep table
        return f"a value of type {type(value).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 3] + "..."


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name[:SHOWN_CHARS_MAX], _CHECKS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(_CHECKS))}"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a path in quotes")
    return value


_ADDRESS = re.compile(
    r"(?P<host>localhost|127(?:\.\d{1,3}){3}|\[::1\]):(?P<port>\d{1,5})", re.ASCII
)


def _metrics(value: object) -> str | tuple[str, int]:
    """A path, or an address of this machine only: metrics have no password."""
    text = _text(value)
    address = _ADDRESS.fullmatch(text)
    if address and 0 < int(address["port"]) < 65536:
        return address["host"].strip("[]"), int(address["port"])
    if address or re.search(r":\d*$", text):
        raise ValueError('expected a path, or an address such as "127.0.0.1:9464" or "[::1]:9464"')
    return text


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


def _group(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
        raise ValueError('expected the name of a group in quotes, such as "logd-read"')
    return value


class _InTable(ValueError):
    """What is wrong with an entry of a table."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _retention(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError('expected a period for each type: retention.page_view = "90d"')
    periods = {}
    for event_type, period in value.items():
        try:
            check_type(event_type)
            periods[event_type] = parse_period(period)
        except ValueError as error:
            misplaced = event_type in _CHECKS and not isinstance(period, str)
            hint = "; a setting of logd's stands above [retention]" if misplaced else ""
            if isinstance(period, dict):  # what TOML makes of a dot
                hint = f'; a type with dots is written in quotes: "{event_type}.paid" = "90d"'
            shown = f"retention of {_shown(event_type)} = {_shown(period)}"
            raise _InTable(event_type, f"{shown}: {error}{hint}") from error
    return periods


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
    "backup_directory": "backups",
}
_CHECKS: dict[str, Callable[[object], Any]] = {
    **dict.fromkeys(_PATHS, _text),
    "outbox_directory": _text,
    "socket_mode": _mode,
    "query_socket_mode": _mode,
    "query_uids": _uids,
    "query_group": _group,
    "metrics": _metrics,
    "metrics_socket_mode": _mode,
    "many_users": _truth,
    "batch_events_max": _whole(1, 1_000_000),
    "batch_bytes_max": _whole(64 * 1024, 1024 * 1024 * 1024),
    "commit_interval_ms": _whole(0, 1000),
    "look_interval_ms": _whole(10, 60_000),
    "stop_timeout_s": _whole(1, 600),
    "gap_events_max": _whole(0, 10**12),
    "quarantine_rows_max": _whole(0, 10_000_000),
    "event_types_per_user_max": _whole(1, 1_000_000),
    "event_types_max": _whole(1, 1_000_000),
    "outboxes_max": _whole(1, 1_000_000),
    "outboxes_per_user_max": _whole(1, 1_000_000),
    "outboxes_bytes_max": _whole(MIB, 2**60),
    "cache_bytes_max": _whole(MIB, 64 * 1024 * MIB),
    "memory_bytes_max": _whole(16 * MIB, 2**60),
    "backup_keep_days": _whole(0, KEEP_DAYS_MAX),
    "backup_keep_min": _whole(2, 1_000_000),
    "anchor_interval_s": _whole(0, 86_400),
    "anchor_file": _text,
    "retention": _retention,
}
assert {field.name for field in fields(Config)} == {"path", *_CHECKS}
