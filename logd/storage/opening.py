"""Opens the instance's database for reading, also beside a running daemon."""

from __future__ import annotations

from logd import instance_lock
from logd.config.settings import Config
from logd.errors import DatabaseDamaged, KeyFileError, NoDatabase
from logd.storage import keyfile
from logd.storage.database import Connection, connect
from logd.storage.migrations import check_not_newer, check_not_older


def check_database(config: Config, made: bool) -> None:
    """Raises DatabaseDamaged where there was a database and is none: no new trail by accident."""
    try:
        length = config.database.stat().st_size
    except OSError:
        length = 0
    if made and length == 0:
        raise DatabaseDamaged(
            f"{config.database}: is empty or gone, but this instance has stored events in it. "
            "Restore a backup. To begin a new trail, knowingly: remove "
            f"{config.lock_file} and what is left of the database, then start."
        )


def open_for_reading(config: Config) -> Connection:
    """The instance's database, read-only, also while the daemon writes. Raises LogdError kinds."""
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
            raise NoDatabase(f"{config.database}: nothing is stored yet; the first start is on.")
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_events(config: Config) -> Connection:
    """The same for pages of events, which need the schema of today. Raises LogdError kinds."""
    connection = open_for_reading(config)
    try:
        check_not_older(connection)
    except BaseException:
        connection.close()
        raise
    return connection
