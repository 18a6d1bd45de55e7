"""Checks after each commit that the database and its WAL were not removed or replaced.

SQLite continues to write into a removed file and reports success, but the data is lost when the
process ends. So such a commit is not confirmed, and the process ends, after saving what only it can
still read.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from logd import systemd
from logd.atomic_file import sync_path
from logd.errors import DatabaseGone, LogdError, StorageFailed
from logd.storage.database import Connection, DatabaseError, copy_into, shm_path, wal_path

_SAVE_S = 3600.0  # the most seconds for a copy of the whole database
_OUTBOXES_KEEP = "Nothing of this commit is confirmed; events wait in their outboxes."


class DatabaseFiles:
    """The identities of an open database's files, as they were when it was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: dict[str, tuple[int, int]] = {}
        for file in (path, wal_path(path), shm_path(path)):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                self._opened[str(file)] = (status.st_dev, status.st_ino)

    def missing(self) -> str | None:
        """Returns the path of a file that was removed or replaced; None if none was."""
        for path, opened in self._opened.items():
            try:
                status = os.lstat(path)
            except OSError:
                return path
            if (status.st_dev, status.st_ino) != opened:
                return path
        return None

    def ending(self, connection: Connection, missing: str) -> LogdError:
        """Saves data that only `connection` can still read, and returns the error to end with.

        The data is moved into the database, or into a copy beside it if the database is gone.
        """
        happened = "was replaced" if os.path.lexists(missing) else "was removed"
        if missing != str(self._path):
            saved = self._checkpoint(connection)
            with contextlib.suppress(OSError):
                # The WAL is moved away, since SQLite would apply an older one at the next start.
                Path(missing).rename(f"{missing}.foreign-{os.getpid()}")
            return StorageFailed(
                f"{missing}: {happened} under the running daemon. {saved} {_OUTBOXES_KEEP} Start "
                "again; find out what removes files there."
            )
        if not self._is_nameless():
            return DatabaseGone(
                f"{self._path}: {happened} under the running daemon; the file it had open has "
                f"another name now. {_OUTBOXES_KEEP} Put it back, or start with what is there."
            )
        return DatabaseGone(
            f"{self._path}: {happened} under the running daemon. {self._save(connection)} "
            f"{_OUTBOXES_KEEP}"
        )

    def _checkpoint(self, connection: Connection) -> str:
        with contextlib.suppress(DatabaseError):
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return "What was confirmed is in the database."
        return self._save(connection)

    def _save(self, connection: Connection) -> str:
        """Copies the whole database to a file beside it, since the open one has lost its name."""
        copy = self._path.with_name(f"{self._path.name}.saved-{os.getpid()}")
        try:
            with systemd.extend_watchdog(_SAVE_S):
                os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                copy_into(connection, copy)
                sync_path(copy)
                sync_path(copy.parent)
        except (DatabaseError, OSError) as error:
            with contextlib.suppress(OSError):
                copy.unlink()
            return f"What it held could not be saved ({error}): restore a backup."
        return f"Everything it held is saved in {copy}: move that to {self._path}, and start again."

    def _is_nameless(self) -> bool:
        """Whether the open database file has lost all its names.

        The check does not open the file again, since closing it would drop SQLite's locks.
        """
        opened = self._opened[str(self._path)]
        with contextlib.suppress(OSError):
            for fd in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(OSError):
                    status = fd.stat()
                    if (status.st_dev, status.st_ino) == opened:
                        return status.st_nlink == 0
        return True
