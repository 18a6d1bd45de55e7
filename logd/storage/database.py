"""Opens the SQLCipher file. No other module opens it.

Closing any descriptor of a file drops the process's POSIX locks on it, so opening the database
outside SQLite, even to read it, would drop SQLite's own (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlcipher3

from logd.errors import (
    CannotCreate,
    DatabaseCorrupt,
    KeyFileError,
    NoDatabase,
    NoPermission,
    NotChecked,
    StorageBusy,
    StorageFailed,
)

T = TypeVar("T")
Connection = Any
DatabaseError = sqlcipher3.DatabaseError
BUSY_TIMEOUT_MS = 5000

PAGE_BYTES_MAX = 65536
_VALUES_PER_STATEMENT = 500

_NOT_ABOUT_CONTENT = {
    *(sqlcipher3.SQLITE_BUSY, sqlcipher3.SQLITE_LOCKED, sqlcipher3.SQLITE_PROTOCOL),
    *(sqlcipher3.SQLITE_NOMEM, sqlcipher3.SQLITE_IOERR, sqlcipher3.SQLITE_FULL),
    *(sqlcipher3.SQLITE_CANTOPEN, sqlcipher3.SQLITE_PERM, sqlcipher3.SQLITE_READONLY),
    *(sqlcipher3.SQLITE_INTERRUPT, sqlcipher3.SQLITE_ABORT),
}
_BUSY = {sqlcipher3.SQLITE_BUSY, sqlcipher3.SQLITE_LOCKED}


def connect(
    path: Path, key: bytes, *, read_only: bool = False, immutable: bool = False
) -> Connection:
    """Opens the database with its raw 256-bit key, without key derivation.

    With `read_only` and `immutable`, nothing changes the file meanwhile, and SQLite makes no file
    beside it.

    Raises KeyFileError if the key is not this database's (or the first page is damaged: the two
    look the same), NoDatabase or CannotCreate if the file does not exist or cannot be opened.
    """
    immutable = immutable or _never_changes(path)
    mode = "rwc" if not read_only else "ro&immutable=1" if immutable else "ro"
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
        # The key must be set by the first statement.
        connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
        connection.execute("PRAGMA cipher_log_level = NONE")  # no log, since errors are raised
        # Temporary tables are not encrypted, so they are kept in memory.
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # Checkpoints are made by `logd.storage.wal`, which sees errors.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA journal_size_limit = 67108864")
    except sqlcipher3.Error as error:
        connection.close()
        problem = translate(error, path)
        if isinstance(problem, StorageFailed) and _has_no_space(path):
            problem = _full(path)  # the error was that no file could be created, for lack of space
        raise problem from error
    return connection


def copy_into(connection: Connection, target: Path) -> None:
    """Copies the database, as of one moment, into a new or empty file, with the same key.

    Raises DatabaseError. Writers continue meanwhile; the WAL grows until the copy is done.
    """
    # query_only forbids VACUUM INTO too, though it does not write to this database.
    (query_only,) = connection.execute("PRAGMA query_only").fetchone()
    connection.execute("PRAGMA query_only = OFF")
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.execute(f"PRAGMA query_only = {query_only}")


def wal_path(path: Path) -> Path:
    """Returns the path of the WAL of the database at `path`."""
    return path.with_name(path.name + "-wal")


def shm_path(path: Path) -> Path:
    """Returns the path of the WAL's index, which all connections share."""
    return path.with_name(path.name + "-shm")


def file_bytes(path: Path) -> int:
    """Returns the size of a file, without opening it; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def change_key(path: Path, old: bytes, new: bytes) -> None:
    """Encrypts every page with a new key. Raises what `connect` raises, and DatabaseError.

    Used on a copy that nothing else has open, since a kill during this leaves the file unusable.
    """
    with contextlib.closing(connect(path, old)) as connection:
        connection.execute(f"PRAGMA rekey = \"x'{new.hex()}'\"").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def question_marks(values: Sequence[object]) -> str:
    """Returns SQL placeholders `?, ?, …`, one per value."""
    return ", ".join("?" * len(values))


def in_parts(values: Sequence[T]) -> Iterator[list[T]]:
    """Yields the values in lists that are short enough for one statement."""
    for start in range(0, len(values), _VALUES_PER_STATEMENT):
        yield list(values[start : start + _VALUES_PER_STATEMENT])


def is_interrupt(error: Exception) -> bool:
    """Whether SQLite stopped because its progress handler returned true."""
    return bool(getattr(error, "sqlite_errorcode", 0) == sqlcipher3.SQLITE_INTERRUPT)


def damage(error: Exception) -> Exception:
    """Returns the error if it shows that the database's content is damaged.

    Raises NotChecked if the error is of this moment: a lock, too little memory, a failing disk.
    """
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_ABOUT_CONTENT:
        raise NotChecked(
            f"not checked: {error}. This says nothing about the trail: try again."
        ) from error
    return error


def translate(error: Exception, path: Path) -> Exception:
    """Turns SQLite's error into a LogdError by its result code."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlcipher3.SQLITE_NOTADB:
        return KeyFileError(
            f"{path}: cannot be decrypted: the key is not this database's, or the file is damaged. "
            "Nothing was changed. Check key_file; if it is right, restore the file from a backup."
        )
    if code == sqlcipher3.SQLITE_CORRUPT:
        return DatabaseCorrupt(
            f"{path}: the database is damaged ({error}). Nothing was changed by this; stop here, "
            "keep the file, and restore a backup. Events wait in their outboxes meanwhile."
        )
    if code == sqlcipher3.SQLITE_FULL:
        return _full(path)
    if code in _BUSY:
        return StorageBusy(f"{path}: locked by another program. Events wait until it is released.")
    if code in (sqlcipher3.SQLITE_READONLY, sqlcipher3.SQLITE_CANTOPEN, sqlcipher3.SQLITE_PERM):
        for place, rights in ((path, os.R_OK | os.W_OK), (path.parent, os.W_OK | os.X_OK)):
            if place.exists() and not os.access(place, rights, effective_ids=True):
                return NoPermission(place, f"{path}: cannot be opened: no permission")
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
    """Finds a likely reason for an I/O error, since SQLite does not expose errno.

    It is for the message only, since the error may have been a failed flush, which is never
    retried.
    """
    with contextlib.suppress(OSError):
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        files = path, wal_path(path)
        length = max(file.stat().st_size for file in files if file.exists())
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
    """Whether the file system is read-only without a WAL, which SQLite must not create."""
    try:
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return False
    return bool(read_only) and not wal_path(path).exists()
