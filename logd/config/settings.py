"""Loads logd.toml into a `Config`, checked as a whole. Paths are relative to the file."""

from __future__ import annotations

import difflib
import grp
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from logd.config.file import read_text
from logd.config.table import DEFAULTS, MIB, SETTINGS
from logd.config.values import SHOWN_CHARS_MAX, EntryError, shortened, shown
from logd.errors import ConfigError
from logd_wire.paths import PathTooLong, check_socket_path
from logd_wire.rendezvous import default_directory_in_use

SIGNING_KEY_NAME = "logd-signing.key"
_PATHS = ("database", "key_file", "socket", "query_socket", "backup_directory")

# The most memory that the parts of the daemon need, in bytes; tests/faults/test_memory.py compares
# the sum with the kernel's count. Any event in a batch needs Python objects, a row, a hash and
# roll-ups; its bytes are kept three times: as read, in the batch, and bound to a statement.
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
    signing_key_file: Path
    socket: Path
    query_socket: Path
    outbox_directory: Path
    backup_directory: Path
    socket_mode: int = DEFAULTS["socket_mode"]
    query_socket_mode: int = DEFAULTS["query_socket_mode"]
    query_uids: tuple[int, ...] = DEFAULTS["query_uids"]
    query_group: str | None = DEFAULTS["query_group"]
    metrics: Path | tuple[str, int] | None = DEFAULTS["metrics"]
    metrics_socket_mode: int = DEFAULTS["metrics_socket_mode"]
    many_users: bool = DEFAULTS["many_users"]
    batch_events_max: int = DEFAULTS["batch_events_max"]
    batch_bytes_max: int = DEFAULTS["batch_bytes_max"]
    commit_interval_ms: int = DEFAULTS["commit_interval_ms"]
    look_interval_ms: int = DEFAULTS["look_interval_ms"]
    stop_timeout_s: int = DEFAULTS["stop_timeout_s"]
    gap_events_max: int = DEFAULTS["gap_events_max"]
    quarantine_rows_max: int = DEFAULTS["quarantine_rows_max"]
    event_types_per_user_max: int = DEFAULTS["event_types_per_user_max"]
    event_types_max: int = DEFAULTS["event_types_max"]
    outboxes_max: int = DEFAULTS["outboxes_max"]
    outboxes_per_user_max: int = DEFAULTS["outboxes_per_user_max"]
    outboxes_bytes_max: int = DEFAULTS["outboxes_bytes_max"]
    cache_bytes_max: int = DEFAULTS["cache_bytes_max"]
    memory_bytes_max: int = DEFAULTS["memory_bytes_max"]
    backup_keep_days: int = DEFAULTS["backup_keep_days"]
    backup_keep_min: int = DEFAULTS["backup_keep_min"]
    anchor_interval_s: int = DEFAULTS["anchor_interval_s"]
    anchor_file: Path | None = DEFAULTS["anchor_file"]
    person_keys: tuple[str, ...] = DEFAULTS["person_keys"]
    # User ids, by the name of the application.
    apps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    former_trails: tuple[str, ...] = DEFAULTS["former_trails"]
    retention: Mapping[str, int] = field(default_factory=dict)  # periods in ns, by event type

    @property
    def lock_file(self) -> Path:
        """The lock file, which a running daemon of this instance holds locked."""
        return self.database.with_name(self.database.name + ".lock")

    @property
    def rekeyed_file(self) -> Path:
        """The complete copy of the database under a new key, while `logd rekey` runs."""
        return self.database.with_name(self.database.name + ".rekeyed")


def load(path: str | os.PathLike[str]) -> Config:
    """Reads and checks a logd.toml. Raises ConfigError with file, line, and what to do."""
    file = Path(path)
    try:
        text = read_text(file)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file}: no such file. `logd init DIR` creates an instance with DIR/logd.toml."
        ) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read: {why}") from error
    place = file.absolute()
    try:
        str(place).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{place}: this path is not valid text (UTF-8); move it.") from error
    return parse(text, place)


def parse(text: str, file: Path) -> Config:
    """Checks the text of a configuration, given the `file` that it is or will be in.

    Raises ConfigError.
    """
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{file}: not valid TOML: nested too deep") from error
    except ValueError as error:  # invalid TOML, or a number with thousands of digits
        raise ConfigError(f"{file}: not valid TOML: {shortened(str(error))}") from error
    values: dict[str, Any] = {}
    for name, value in table.items():
        setting = SETTINGS.get(name)
        where = f"{file}, line {_line_of(text, name)}"
        if setting is None:
            raise ConfigError(f"{where}: unknown name {shown(name)}{_nearest(name)}")
        try:
            values[name] = setting.check(value)
            if name == "apps":
                _check_names_of_apps(value)
        except EntryError as error:
            line = _line_in_table(text, name, error.key)
            is_misplaced = error.key in SETTINGS and not isinstance(value[error.key], str | dict)
            hint = f"; settings of logd must stand above [{name}]" if is_misplaced else ""
            raise ConfigError(f"{file}, line {line}: {error}{hint}") from error
        except ValueError as error:
            raise ConfigError(f"{where}: {name} = {shown(value)}: {error}") from error
    folder = file.parent
    for name in _PATHS:
        values[name] = Path(os.path.normpath(folder / values.get(name, DEFAULTS[name])))
        if name.endswith("socket"):
            _check_socket(values[name], file, _line_of(text, name))
    if isinstance(values.get("metrics"), str):
        values["metrics"] = Path(os.path.normpath(folder / values["metrics"]))
        _check_socket(values["metrics"], file, _line_of(text, "metrics"))
    for name in ("anchor_file", "signing_key_file", "outbox_directory"):
        if name in values:
            values[name] = Path(os.path.normpath(folder / values[name]))
    values.setdefault("signing_key_file", values["key_file"].with_name(SIGNING_KEY_NAME))
    if "outbox_directory" not in values:
        values["outbox_directory"] = Path(default_directory_in_use(str(values["socket"])))
    config = Config(path=file, **values)
    _check_use(config, text, "anchor_file")
    _check_use(config, text, "signing_key_file")
    _check_memory(config)
    return config


def _check_names_of_apps(apps: Mapping[str, Any]) -> None:
    """Refuses a setting's name as an application: it was written below the table by mistake."""
    for name in apps:
        if name in SETTINGS:
            raise EntryError(name, f"apps: {shown(name)} is the name of a setting")


def query_gid(config: Config) -> int | None:
    """Returns the id of `query_group`, or None if it is not set. Raises ConfigError if unknown."""
    if config.query_group is None:
        return None
    try:
        return grp.getgrnam(config.query_group).gr_gid
    except KeyError as error:
        raise ConfigError(
            f"{config.path}: query_group = {config.query_group!r}: this group does not exist. "
            f"Create it (`groupadd --system {config.query_group}`), or remove the line."
        ) from error


def _check_socket(path: Path, file: Path, line: int | str) -> None:
    try:
        check_socket_path(path)
    except PathTooLong as error:
        raise ConfigError(f"{file}, line {line}: {error}") from error


def memory_parts(config: Config) -> dict[str, int]:
    """Returns the memory that each setting can make the daemon need, in bytes."""
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


def _check_use(config: Config, text: str, name: str) -> None:
    """Raises ConfigError if the setting names a file that has another use.

    Anchors would be appended to such a file; and the key that signs must not be the database's key.
    """
    path, database = getattr(config, name), config.database
    used = ("path", "key_file", "signing_key_file", "socket", "query_socket", "metrics")
    others = {getattr(config, other) for other in (*used, "anchor_file") if other != name}
    # The database's files (WAL, copies) have names that begin with its own.
    beside = path and path.parent == database.parent and path.name.startswith(database.name)
    if path is not None and (path in others or beside):
        where = f"{config.path}, line {_line_of(text, name)}"
        raise ConfigError(f"{where}: {name} = {shown(str(path))}: this file has another use")


def _line_of(text: str, name: str) -> int | str:
    # tomllib reports no positions, so look for the name at the start of a line.
    pattern = re.compile(rf"""\s*\[*["']?{re.escape(name)}["']?\s*[].=]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return "?"


def _line_in_table(text: str, table: str, key: str) -> int | str:
    """Returns the number of the line with a table's key, or else of the table's header."""
    lines = text.splitlines()
    head = re.compile(rf"\s*\[\s*{table}\s*\]")
    start = next((number for number, line in enumerate(lines) if head.match(line)), None)
    line = "?" if start is None else _line_of("\n".join(lines[start + 1 :]), key)
    if start is None or isinstance(line, str):
        dotted = _line_of(text, f"{table}.{key}")
        return dotted if isinstance(dotted, int) else _line_of(text, table)
    return start + 1 + line


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name[:SHOWN_CHARS_MAX], SETTINGS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(SETTINGS))}"


assert {field.name for field in fields(Config)} == {"path", *SETTINGS}
