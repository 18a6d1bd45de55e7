"""Replaces an instance's database by a new file while no daemon runs.

If the command is killed at any moment, the database's name leads to either the old or the new file,
each complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from logd.config.settings import Config
from logd.errors import (
    AlreadyRunning,
    DatabaseDamaged,
    KeyFileError,
    StorageBusy,
    StorageFailed,
    cannot_write,
)
from logd.instance_lock import InstanceLock, instance_lock
from logd.maintenance import database_copy
from logd.storage.database import Connection, connect

STOP_HINT = (
    "Stop it first: `systemctl stop logd`, or Ctrl-C where it runs by hand; "
    "events wait in their outboxes meanwhile."
)


@contextlib.contextmanager
def hold_instance(config: Config, more: str = "") -> Iterator[InstanceLock]:
    """Holds the instance's lock, so that no daemon starts meanwhile.

    Raises AlreadyRunning; its message says how to stop the daemon, and ends with `more`.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o077))
        try:
            lock = stack.enter_context(instance_lock(config.lock_file))
        except AlreadyRunning as error:
            who = str(error).removesuffix(" Stop it first.")
            raise AlreadyRunning(f"{who} {STOP_HINT}{more}") from error
        database_copy.give_to_owner_of(owner(config), config.lock_file)
        yield lock


def owner(config: Config) -> Path:
    """Returns the path whose owner a new database gets: the old database, or else its folder."""
    return config.database if config.database.exists() else config.database.parent


def new_database_path(config: Config) -> Path:
    """Returns the path for a new database, after removing what a killed command left there."""
    path = config.database.with_name(config.database.name + ".making")
    database_copy.remove(path)
    return path


def remove_leftovers(config: Config) -> None:
    """Removes what a killed command left: unfinished files, and other names of the database."""
    database_copy.remove(config.database.with_name(config.database.name + ".making"))
    for kept in _kept(config):
        for suffix in ("", "-wal"):
            current = config.database.with_name(config.database.name + suffix)
            name = kept.with_name(kept.name + suffix)
            with contextlib.suppress(OSError):
                if name.samefile(current):
                    name.unlink()


def _kept(config: Config) -> Iterator[Path]:
    for path in config.database.parent.glob(f"{config.database.name}.before-*"):
        if not path.name.endswith(database_copy.SIDE_FILES):
            yield path


def merge_wal(path: Path, key: bytes) -> Connection | None:
    """Moves the WAL into the database that is to be replaced, and opens the database.

    Returns None if it cannot be read. Raises StorageBusy while another program has it open.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        # The file is opened read-only first, since closing a
        # writable connection may move an unreadable WAL too.
        connect(path, key, read_only=True).close()
        connection = connect(path, key)
    except (DatabaseDamaged, KeyFileError, StorageFailed):
        return None
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        connection.close()
        raise StorageBusy(
            f"{path}: another program reads or locks it. Stop that program (`fuser {path}` shows "
            "which), then try again. Nothing was changed."
        )
    return connection


def replace_database(config: Config, new: Path, kept: Path | None) -> None:
    """Puts `new`, which is complete and on disk, in the place of the database.

    If `kept` is given, the old database stays under that path, with the WAL if that could not be
    moved into it. Raises a LogdError.
    """
    database, folder = config.database, config.database.parent
    wal = database.with_name(database.name + "-wal")
    database_copy.remove_side_files(new)
    try:
        if kept is not None:
            # The old file gets a second name, so that the database's name always leads to a file.
            os.link(database, kept)
            if wal.exists() and wal.stat().st_size:
                os.link(wal, kept.with_name(kept.name + "-wal"))
            database_copy.sync(folder)
        # The old WAL is removed first, since SQLite would apply it to the new database.
        database_copy.remove_side_files(database)
        database_copy.sync(folder)
        new.rename(database)
        database_copy.sync(folder)
    except OSError as error:
        raise cannot_write(database, error) from error
