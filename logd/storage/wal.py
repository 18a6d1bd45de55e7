"""Checkpoints SQLite's write-ahead log (WAL), truncates it, and vacuums the database."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from logd.errors import StorageBusy, StorageFailed
from logd.storage.database import Connection, DatabaseError, is_interrupt, translate, wal_path

# The size of a WAL, in pages, at which it is checkpointed.
# A full batch takes well over SQLite's usual 1,000, with which each commit would flush three times.
CHECKPOINT_PAGES = 4000
# The size after an administrative transaction, which must be short:
# moving this many pages takes about as long as its own work.
CHECKPOINT_PAGES_TRANSACT = 500
# The timeout is short, so that the daemon notices signals
# while another process locks the database. Callers retry.
BUSY_TIMEOUT_RUNNING_MS = 500
_CHECKPOINT_TRIES = 2
_VACUUM_COPIES = 2  # a vacuum writes two copies: one in a scratch file, one in the WAL
_VACUUM_STEPS = 100_000

_log = logging.getLogger("logd")


def make_durable(connection: Connection, path: Path) -> None:
    """Flushes what a killed daemon left in the WAL: it is visible, but may not be on the disk.

    Nothing may be confirmed before this and a first commit have succeeded. Raises StorageBusy while
    another program reads or locks the database.
    """
    for tried in range(_CHECKPOINT_TRIES):
        if _truncate(connection):
            return
        if tried == 0:
            _log.warning("%s: another program reads or locks it: waiting", path)
    raise StorageBusy(
        f"{path}: another program reads or locks it, so its WAL cannot be made durable. Stop that "
        "program (fuser shows which), then start again."
    )


def checkpoint(connection: Connection, path: Path, pages_max: int) -> None:
    """Moves a WAL of `pages_max` pages or more into the database. Raises StorageFailed.

    SQLite can do it by itself after a commit, but then hides errors, such as a failed flush of the
    database. Commits are in the WAL, so a full disk is no failure here.
    """
    try:
        _busy, pages, _done = connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
        if pages >= pages_max:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except DatabaseError as error:
        problem = translate(error, path)
        if not isinstance(problem, StorageBusy):
            raise problem from error


def flush_wal(path: Path) -> None:
    """Flushes the database's WAL, also beside a daemon, so that what a reader sees is on disk."""
    wal = wal_path(path)
    try:
        fd = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # everything is in the database already
    try:
        os.fsync(fd)
    except OSError as error:
        raise StorageFailed(f"{wal}: cannot be flushed: {error.strerror}") from error
    finally:
        os.close(fd)


def truncate_wal(connection: Connection, path: Path) -> bool:
    """Moves the WAL into the database and truncates it; returns False if a reader uses the WAL."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        return _truncate(connection)
    except DatabaseError as error:
        problem = translate(error, path)
        if not isinstance(problem, StorageBusy):
            raise problem from error
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_RUNNING_MS}")


def vacuum(connection: Connection, path: Path, keep_going: Callable[[], bool]) -> bool:
    """Rebuilds the database, so that no page holds remains of deleted rows.

    SQLite overwrites what it deletes, but not the copies that moving rows between pages leaves.
    Nothing can be committed meanwhile. `keep_going` is called at intervals; on False the vacuum is
    cancelled without a change, and this returns False. Raises a LogdError.
    """
    query = connection.execute
    folder = os.statvfs(path.parent)
    free = folder.f_bavail * folder.f_frsize
    needed = _VACUUM_COPIES * database_bytes(connection)
    if free < needed:
        raise StorageBusy(
            f"{path}: vacuuming needs {needed} bytes for a while, {free} are free. "
            "Free some: it is tried again."
        )
    # The scratch file is encrypted as the database is. In memory it would take as much space.
    query("PRAGMA temp_store = FILE")
    place = str(path.parent).replace("'", "''")
    query(f"PRAGMA temp_store_directory = '{place}'")
    connection.set_progress_handler(lambda: not keep_going(), _VACUUM_STEPS)
    try:
        query("VACUUM")
    except DatabaseError as error:
        if is_interrupt(error):
            return False
        raise translate(error, path) from error
    finally:
        connection.set_progress_handler(None, 0)
        query("PRAGMA temp_store = MEMORY")
    return True


def database_bytes(connection: Connection) -> int:
    """Returns the size of the database, without its WAL."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)  # SQLCipher returns page_size as text


def _truncate(connection: Connection) -> bool:
    busy, _pages, _done = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
