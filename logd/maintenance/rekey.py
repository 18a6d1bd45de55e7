"""`logd rekey`: encrypts every page with a new key. A kill never leaves a database without a key.

The database with the new key is made beside the old one, verified, and renamed to
`Config.rekeyed_file`. Then one rename changes the key file, and another the database. A kill
between the two leaves the new key and the old database: the next process to open it finds that the
file beside it fits the key, and completes the change (`complete_rekey`). A service that gets its
key as a credential can do that too, since it writes to the database's folder only.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from logd.config.settings import Config
from logd.errors import (
    DatabaseDamaged,
    KeyFileError,
    LogdError,
    NoDatabase,
    cannot_write,
)
from logd.maintenance import database_copy, database_swap
from logd.maintenance.database_copy import Bar, Checked, Stop
from logd.storage import keyfile, opening
from logd.storage.database import DatabaseError, change_key, connect, translate
from logd.storage.migrations import check_not_newer
from logd.storage.tree_head import read_head
from logd.storage.wal import database_bytes

# What a modest machine does per second, to estimate how long the daemon is stopped.
_BYTES_PER_S = 10_000_000
_EVENTS_PER_S = 50_000

_log = logging.getLogger("logd")


@dataclass(frozen=True)
class Rekeyed:
    """The result: the database with its new key, and the path of the old key, if a file."""

    made: Checked
    old_key: Path | None
    seconds: float


def announced_stop(config: Config) -> str:
    """Returns a text with the estimated time of the stop, by the size of the database."""
    try:
        with closing(opening.open_for_reading(config)) as connection:
            size, events = database_bytes(connection), read_head(connection)[0].events
    except LogdError as error:
        return str(error)
    seconds = 1 + size // _BYTES_PER_S + events // _EVENTS_PER_S
    return (
        f"It will take about {seconds} s ({events:,} events, {size:,} bytes), and needs as much "
        "disk space for a while."
    )


def rekey(config: Config, new_key_file: Path | None, now_ns: int, stop: Stop, bar: Bar) -> Rekeyed:
    """Changes the key while the instance's lock is held.

    Raises a LogdError; then key and database are unchanged. `new_key_file` has the new key; by
    default one is generated.
    """
    began_s = time.monotonic()
    key_file, database = config.key_file, config.database
    key = keyfile.read(key_file)
    complete_rekey(config, key)
    database_swap.remove_leftovers(config)
    if not database.exists():
        raise NoDatabase(f"{database}: no database here yet, so there is nothing to encrypt.")
    if new_key_file is not None and keyfile.read_file(new_key_file) == key:
        raise KeyFileError(f"{new_key_file}: has the present key. Nothing was changed.")
    next_key = key_file.with_name(key_file.name + ".next")
    _tidy_keys(key_file, next_key)
    old_key = database_copy.dated_path(key_file, "old", now_ns)
    try:
        keyfile.create(next_key, None if new_key_file is None else keyfile.read_file(new_key_file))
        if key_file.exists():
            database_copy.give_to_owner_of(key_file, next_key)
            os.link(key_file, old_key)
        made = _make(config, key, keyfile.read_file(next_key), now_ns, stop, bar)
        database_copy.sync(key_file.parent)
        next_key.rename(key_file)  # the new key is in use after this rename
    except BaseException as error:
        database_copy.remove(config.rekeyed_file)
        _tidy_keys(key_file, next_key)
        if isinstance(error, OSError):
            raise cannot_write(key_file, error) from error
        raise
    database_copy.sync(key_file.parent)
    database_swap.replace_database(config, config.rekeyed_file, None)
    return Rekeyed(made, old_key if old_key.exists() else None, time.monotonic() - began_s)


def _tidy_keys(key_file: Path, next_key: Path) -> None:
    """Removes an unused new key of a killed command, and other names of the present key."""
    try:
        next_key.unlink(missing_ok=True)
        for old in key_file.parent.glob(f"{key_file.name}.old-*"):
            if key_file.exists() and old.samefile(key_file):
                old.unlink()
    except OSError as error:
        raise cannot_write(key_file, error) from error


def _make(config: Config, key: bytes, new_key: bytes, now_ns: int, stop: Stop, bar: Bar) -> Checked:
    database, new = config.database, database_swap.new_database_path(config)
    try:
        with closing(connect(database, key, read_only=True)) as connection:
            check_not_newer(connection)
            database_copy.copy(connection, database, new, stop, bar)
        try:
            change_key(new, key, new_key)
        except DatabaseError as error:
            raise translate(error, new) from error
        with opening.opened_store(config, new_key, now_ns, new) as store:
            store.record("trail_rekeyed", {}, now_ns)
        made = database_copy.check(new, new_key, stop, bar)
        database_copy.remove_side_files(new)
        database_copy.give_to_owner_of(database, new)
        database_copy.sync(new)
        new.rename(config.rekeyed_file)
        database_copy.sync(database.parent)
        return made
    except OSError as error:
        raise cannot_write(new, error) from error
    finally:
        database_copy.remove(new)


def complete_rekey(config: Config, key: bytes) -> None:
    """Completes or undoes an interrupted change of the key, which has left `rekeyed_file`.

    Called while the instance's lock is held.
    """
    rekeyed = config.rekeyed_file
    if not rekeyed.exists():
        return
    if _opens(config.database, key):
        # The key was not replaced yet, and the old database may have newer events.
        database_copy.remove(rekeyed)
        _log.warning("%s: left by an incomplete change of the key: removed", rekeyed)
    elif _opens(rekeyed, key):
        database_swap.replace_database(config, rekeyed, None)
        _log.warning("%s: an interrupted change of its key is completed", config.database)


def _opens(path: Path, key: bytes) -> bool:
    try:
        connect(path, key, read_only=True).close()
    except (KeyFileError, DatabaseDamaged, NoDatabase):
        return False
    return True
