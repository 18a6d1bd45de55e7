"""The one opener of the SQLCipher file. Nothing else in this package touches that file.

POSIX locks go when any descriptor of the file is closed, so opening it outside SQLite, even only
to look, would let go of SQLite's own (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlcipher3

from logd.errors import (
    CannotCreate,
    DatabaseDamaged,
    KeyFileError,
    NoDatabase,
    StorageBusy,
    StorageFailed,
)

Connection = Any
DatabaseError = sqlcipher3.DatabaseError
BUSY_TIMEOUT_MS = 5000

PAGE_BYTES_MAX = 65536

_BUSY = {sqlcipher3.SQLITE_BUSY, sqlcipher3.SQLITE_LOCKED}


def connect(path: Path, key: bytes, *, read_only: bool = False) -> Connection:
    """Opens the database with its raw 256-bit key: no key is derived.

    Raises KeyFileError when the key is not this database's (or the file's head is damaged: the two
    cannot be told apart), NoDatabase or CannotCreate when there is no such file or no right to it.
    """
    mode = "rwc" if not read_only else "ro&immutable=1" if _never_changes(path) else "ro"
    if read_only and not path.exists():
        raise NoDatabase(f"{path}: no database here yet. `logd run` makes it at its first start.")
    try:
        connection = sqlcipher3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            timeout=BUSY_TIMEOUT_MS / 1000,
        )
    except sqlcipher3.Error as error:
        raise CannotCreate(f"{path}: cannot be opened: {error}") from error
    try:
        connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")  # before any other statement
        connection.execute("PRAGMA cipher_log_level = NONE")  # its errors come to us as exceptions
        connection.execute("PRAGMA temp_store = MEMORY")  # nothing unencrypted on a disk
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # the store does it, and hears
            connection.execute("PRAGMA journal_size_limit = 67108864")
    except sqlcipher3.Error as error:
        connection.close()
        problem = translate(error, path)
        if isinstance(problem, StorageFailed) and _has_no_space(path):
            problem = _full(path)  # not even its -shm file could be made; nothing was written yet
        raise problem from error
    return connection


def copy_into(connection: Connection, target: Path) -> None:
    """Writes all of the database, as of one moment, into a new or empty file, with the same key.

    Raises DatabaseError. Writers go on meanwhile; their log grows until this is done.
    """
    # It forbids this too, though nothing of this database is written.
    (query_only,) = connection.execute("PRAGMA query_only").fetchone()
    connection.execute("PRAGMA query_only = OFF")
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.execute(f"PRAGMA query_only = {query_only}")


def wal_path(path: Path) -> Path:
    """Where SQLite keeps the log of that database."""
    return path.with_name(path.name + "-wal")


def shm_path(path: Path) -> Path:
    """Where SQLite keeps the index of that log, which its users share."""
    return path.with_name(path.name + "-shm")


def file_bytes(path: Path) -> int:
    """The size of a file; 0 where there is none. Never opens it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def change_key(path: Path, old: bytes, new: bytes) -> None:
    """Encrypts every page anew. Raises what `connect` raises, and DatabaseError.

    For a file that nobody else has open and that nobody misses: killed in the midst of it, it is
    of no use.
    """
    connection = connect(path, old)
    try:
        connection.execute(f"PRAGMA rekey = \"x'{new.hex()}'\"").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()


def is_interrupt(error: Exception) -> bool:
    """Whether SQLite stopped because its progress handler said so."""
    return bool(getattr(error, "sqlite_errorcode", 0) == sqlcipher3.SQLITE_INTERRUPT)


def translate(error: Exception, path: Path) -> Exception:
    """SQLite's error as one of ours, by its result code."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlcipher3.SQLITE_NOTADB:
        return KeyFileError(
            f"{path}: cannot be decrypted: the key is not this database's, or the file is damaged. "
            "Nothing was changed. Check key_file; if it is right, restore the file from a backup."
        )
    if code == sqlcipher3.SQLITE_CORRUPT:
        return DatabaseDamaged(
            f"{path}: the database is damaged ({error}). Nothing was changed by this; stop here, "
            "keep the file, and restore a backup. Events wait in their outboxes meanwhile."
        )
    if code == sqlcipher3.SQLITE_FULL:
        return _full(path)
    if code in _BUSY:
        return StorageBusy(f"{path}: locked by another program. Events wait until it lets go.")
    if code in (sqlcipher3.SQLITE_READONLY, sqlcipher3.SQLITE_CANTOPEN, sqlcipher3.SQLITE_PERM):
        return CannotCreate(
            f"{path}: cannot be written ({error}). Check the permissions of the file and its "
            "folder, and that the file system is not read-only."
        )
    return StorageFailed(
        f"{path}: {error}{_reason(path)}. Nothing of this commit is confirmed; events wait in "
        "their outboxes. Look at the disk (`dmesg`, `df`, quotas), then start again."
    )


def _full(path: Path) -> StorageBusy:
    return StorageBusy(f"{path}: no space left on the device. Free some: events wait meanwhile.")


def _reason(path: Path) -> str:
    """Why an I/O error may have come; SQLite keeps errno, and what failed, to itself.

    For people only: as long as it may have been a flush, it is never tried again.
    """
    with contextlib.suppress(OSError):
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        log = wal_path(path)
        length = max(file.stat().st_size for file in (path, log) if file.exists())
        if limit != resource.RLIM_INFINITY and length + PAGE_BYTES_MAX > limit:
            return f": no file may be over {limit} bytes here (RLIMIT_FSIZE)"
    probe = path.with_name(path.name + ".probe")
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(PAGE_BYTES_MAX))
            os.fsync(fd)
        finally:
            os.close(fd)
            probe.unlink()
    except OSError as error:
        return f": {os.strerror(error.errno or 0)}"
    return ""


def _has_no_space(path: Path) -> bool:
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


def _never_changes(path: Path) -> bool:
    """Whether nobody can write there: SQLite would have to make a -wal file even to read it."""
    try:
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return False
    return bool(read_only) and not wal_path(path).exists()
