"""Opens the instance's database: for the daemon, for a short write beside it, or for reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from logd import instance_lock
from logd.config.settings import Config
from logd.errors import DatabaseDamaged, KeyFileError, LogdError, NoDatabase
from logd.storage import keyfile
from logd.storage.database import Connection, DatabaseError, connect, translate
from logd.storage.event_types import TypeLimits
from logd.storage.mentions import PersonKeys
from logd.storage.migrations import check_not_newer, check_not_older
from logd.storage.store import Store


def check_database(config: Config, made: bool) -> None:
    """Raises DatabaseDamaged if the database was made earlier (`made`) and is empty or gone.

    Without this check a new trail would begin by accident.
    """
    try:
        length = config.database.stat().st_size
    except OSError:
        length = 0
    if made and length == 0:
        raise DatabaseDamaged(
            f"{config.database}: is empty or gone, but this instance has stored events in it. "
            "Restore a backup. To begin a new trail on purpose: remove "
            f"{config.lock_file} and what is left of the database, then start."
        )


def open_store(config: Config, key: bytes, now_ns: int, path: Path | None = None) -> Store:
    """Opens the instance's database, or a copy of it at `path`, as its only writer.

    The store has the instance's limits, and its schema is brought up to date. Raises a LogdError.
    """
    return Store(
        path or config.database,
        key,
        now_ns,
        config.quarantine_rows_max,
        config.cache_bytes_max,
        TypeLimits(config.event_types_max, config.event_types_per_user_max),
        PersonKeys(config.person_keys),
    )


@contextlib.contextmanager
def opened_store(
    config: Config, key: bytes, now_ns: int, path: Path | None = None
) -> Iterator[Store]:
    """Opens the store for a `with` block, and closes it.

    An error of the block is raised even if closing fails, as it does where a statement is
    unfinished, which locks a table. Raises a LogdError.
    """
    store = open_store(config, key, now_ns, path)
    try:
        yield store
    except BaseException:
        with contextlib.suppress(LogdError):
            store.close()
        raise
    store.close()


@contextlib.contextmanager
def open_for_writing(config: Config) -> Iterator[Connection]:
    """Opens the database for a short transaction beside a running daemon. Raises a LogdError.

    The database must have this program's schema.
    """
    connection = connect(config.database, keyfile.read(config.key_file))
    try:
        check_not_newer(connection)
        check_not_older(connection)
        yield connection
    except DatabaseError as error:
        raise translate(error, config.database) from error
    finally:
        connection.close()


def open_for_reading(config: Config) -> Connection:
    """Opens the database read-only, also while the daemon writes. Raises a LogdError."""
    check_database(config, instance_lock.read_lock_page(config.lock_file)[1].made)
    try:
        connection = connect(config.database, keyfile.read(config.key_file), read_only=True)
    except KeyFileError as error:
        if config.rekeyed_file.exists():
            raise KeyFileError(
                f"{config.database}: a change of its key was interrupted at its last step. "
                "Start logd: it completes it. Nothing is lost."
            ) from error
        raise
    try:
        if check_not_newer(connection) == 0:
            raise NoDatabase(
                f"{config.database}: nothing is stored yet: the first start is not complete."
            )
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_events(config: Config) -> Connection:
    """Opens the database read-only for pages of events. Raises a LogdError.

    The database must have this program's schema.
    """
    connection = open_for_reading(config)
    try:
        check_not_older(connection)
    except BaseException:
        connection.close()
        raise
    return connection
