"""The instance directory, which holds the site's database and its two secrets.

An empty directory is filled on first use, an existing one only checked: creating a new key beside
an existing database would hide that its key is lost.
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
    """Something in the instance directory is missing, damaged or readable by others.

    The message is for the person who starts the site. It is a ClickException, so that every `flask`
    command prints the message and not a traceback.
    """


@dataclass(frozen=True)
class Instance:
    """The paths of one site's files."""

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
        """The file that exists while the demo history is logged, or was interrupted."""
        return self.directory / "seeding"

    @property
    def seeded_marker(self) -> Path:
        """The path of the file that exists once the demo history has been logged completely."""
        return self.directory / "seeded"

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Creates the directory and missing secrets, and locks the directory during the block.

        Workers that start together enter one by one: SQLite does not wait for a lock when two
        processes switch a new file to WAL.
        """
        with self._lock():
            # If the database exists, only the operator can restore a missing key.
            # A lost session secret costs only a new login, so it is created again.
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
        """Returns the raw key of the site's database: 64 hexadecimal digits."""
        key = read_secret(self.database_key)
        if not _HEX_KEY.fullmatch(key):
            raise InstanceError(
                f"The key file {self.database_key} does not contain a key of "
                f"{DATABASE_KEY_BYTES * 2} hex digits. Restore it from your backup: the database "
                "cannot be read without it."
            )
        return key


def read_secret(path: Path) -> str:
    """Returns the text of a key file. Raises InstanceError if other users may read it."""
    try:
        # fstat checks the file that is read; its path could be replaced between two calls.
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
            f"The key file {path} contains bytes that are not a key. Restore it from your backup."
        ) from error
    if mode & 0o077:
        raise InstanceError(
            f"The key file {path} is readable by other users (mode {mode:04o}). "
            f"Run `chmod 600 {path}`, and consider the key known to them."
        )
    return text


def _make_secret(path: Path, length_bytes: int) -> None:
    """Creates a file with a random secret, unless it exists; it gets its name when complete."""
    if path.exists():
        return
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(length_bytes) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
