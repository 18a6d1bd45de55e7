"""Work on an instance's database while no daemon has it: a new file is made and takes its place.

Whenever a kill comes, the database's name leads to the old file or to the new one, each whole.
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
def stopped(config: Config, more: str = "") -> Iterator[InstanceLock]:
    """Holds the instance's lock: no daemon starts meanwhile.

    Raises AlreadyRunning with how to stop it, and what `more` says.
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
    """Whose file the database is, or will be: the file, or its folder."""
    return config.database if config.database.exists() else config.database.parent


def new_file(config: Config) -> Path:
    """The name under which a new database is made; nothing is there."""
    path = config.database.with_name(config.database.name + ".making")
    database_copy.remove(path)
    return path


def tidy(config: Config) -> None:
    """Removes what a killed command left: unfinished files, and further names of the database.

    With the instance's lock held.
    """
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


def merge_log(path: Path, key: bytes) -> Connection | None:
    """Opens the database that is to be replaced, with its log moved into it; None where it cannot
    be read.

    Raises StorageBusy while another program has it open.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        # Only to look, first: closing one that can be written may move its log, read or unread.
        connect(path, key, read_only=True).close()
        connection = connect(path, key)
    except (DatabaseDamaged, KeyFileError, StorageFailed):
        return None
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        connection.close()
        raise StorageBusy(
            f"{path}: another program reads or locks it. Stop that program (`fuser {path}` tells "
            "which), then try again. Nothing was changed."
        )
    return connection


def take_its_place(config: Config, new: Path, kept: Path | None) -> None:
    """Puts `new`, which is whole and on the disk, in the place of the database.

    The database stays as `kept`, with the log that could not be moved into it, if there is a
    database to keep. Raises LogdError kinds.
    """
    database, folder = config.database, config.database.parent
    log = database.with_name(database.name + "-wal")
    database_copy.remove_side_files(new)
    try:
        if kept is not None:
            # Two names for one file, so that at no moment the database's leads nowhere.
            os.link(database, kept)
            if log.exists() and log.stat().st_size:
                os.link(log, kept.with_name(kept.name + "-wal"))
            database_copy.flush(folder)
        # The old log must be gone before there is another database that it would be taken for.
        database_copy.remove_side_files(database)
        database_copy.flush(folder)
        new.rename(database)
        database_copy.flush(folder)
    except OSError as error:
        raise cannot_write(database, error) from error
