"""The instance directory: where the site keeps its database and its two secrets.

A fresh directory is filled on first use. An existing one is only checked: a key is never made anew
beside a database that was written with another, which would hide the loss until too late.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

DATABASE_KEY_BYTES = 32
SECRET_KEY_BYTES = 32

_HEX_KEY = re.compile(rf"[0-9a-f]{{{DATABASE_KEY_BYTES * 2}}}")


class InstanceError(click.ClickException):
    """Something in the instance directory is missing, damaged or open to others.

    The message is one sentence for the person who starts the site. It is a ClickException so that
    every `flask` command shows the sentence and not a traceback.
    """


@dataclass(frozen=True)
class Instance:
    """The files of one site, found from the directory's path alone."""

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "classroom.db"

    @property
    def database_key(self) -> Path:
        return self.directory / "classroom.key"

    @property
    def secret_key(self) -> Path:
        return self.directory / "secret.key"

    @property
    def seeding_marker(self) -> Path:
        """Lies there while a demo history is being played; left behind by a run cut short."""
        return self.directory / "seeding"

    @property
    def seeded_marker(self) -> Path:
        """Lies there once a demo history has been played to its end."""
        return self.directory / "seeded"

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Makes the directory and the secrets that a fresh instance lacks, and holds a lock on it.

        Workers that start together come in one after the other: SQLite does not wait for its turn
        when two processes want to switch a new file to write-ahead logging.
        """
        with self._lock():
            # With a database, a missing key is for the operator to restore. A lost session secret
            # costs no data, only a new login, so that one may always be made anew.
            if not self.database.exists():
                _make_secret(self.database_key, DATABASE_KEY_BYTES)
            _make_secret(self.secret_key, SECRET_KEY_BYTES)
            yield

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except PermissionError as error:
            raise self._unusable(error) from error
        finally:
            os.close(descriptor)

    def _unusable(self, error: OSError) -> InstanceError:
        return InstanceError(
            f"The site's directory {self.directory} cannot be used: {error.strerror}. Check that it"
            " is a directory and that this user may write to it, or name another one in"
            " CLASSROOM_DIR."
        )

    def read_database_key(self) -> str:
        """The raw key of the site's database, as 64 hex digits."""
        key = read_secret(self.database_key)
        if not _HEX_KEY.fullmatch(key):
            raise InstanceError(
                f"The key file {self.database_key} does not hold a key of {DATABASE_KEY_BYTES * 2} "
                "hex digits. Restore it from your backup: the database cannot be read without it."
            )
        return key


def read_secret(path: Path) -> str:
    """The text of a key file that nobody but its owner may read."""
    try:
        # The mode is taken from the open descriptor: a path could be exchanged in between.
        with open(path, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read().strip()
    except FileNotFoundError as error:
        raise InstanceError(
            f"The key file {path} is missing. Restore it from your backup; to start over without "
            "the old data, remove the whole directory."
        ) from error
    except OSError as error:
        raise InstanceError(
            f"The key file {path} cannot be read: {error.strerror}. "
            "Make it readable for the user who runs the site."
        ) from error
    except UnicodeDecodeError as error:
        raise InstanceError(
            f"The key file {path} holds bytes that are no key. Restore it from your backup."
        ) from error
    if mode & 0o077:
        raise InstanceError(
            f"The key file {path} is open to other users (mode {mode:04o}). "
            f"Run `chmod 600 {path}`, and think of the key as known to them."
        )
    return text


def _make_secret(path: Path, length_bytes: int) -> None:
    """Writes a new random secret, unless there is one. Whoever finds the file finds it complete."""
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(length_bytes) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
