"""The database's key: 256 random bits as 64 hexadecimal digits, in a file only its owner reads.

A service manager may hand it over instead, as a credential of the file's name (systemd.exec(5),
LoadCredential=): then the file itself need not be there, nor be readable to the service's user.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from logd.atomic_file import sync
from logd.errors import CannotCreate, KeyFileError

KEY_BYTES = 32
_KEY = re.compile(r"[0-9a-fA-F]{64}")


def new() -> str:
    """A new key, as it stands in a file."""
    return secrets.token_hex(32)


def create(path: Path, key: bytes | None = None) -> None:
    """Writes a key, a new one by default; it and its name are on disk before this returns.

    Raises CannotCreate if the file exists.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotCreate(f"{path}: the key cannot be made: {error.strerror}") from error
    with os.fdopen(fd, "w") as file:
        file.write((new() if key is None else key.hex()) + "\n")
        file.flush()
        os.fsync(fd)
    # A database that outlives a power cut is lost without the name of its key.
    sync(path.parent)


def read(path: Path) -> bytes:
    """The key's 32 bytes, of a credential of that name if there is one.

    Raises KeyFileError when it is missing, readable by others, or no key.
    """
    handed = credential(path.name)
    # Who may read a credential is the service manager's to say, by means that a mode shows not.
    return read_file(handed or path, private=handed is None)


def read_file(path: Path, *, private: bool = True) -> bytes:
    """The 32 bytes of the key in that very file. `private`: nobody else may be able to read it.

    Raises KeyFileError when it is missing, readable by others, or no key.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(
            f"{path}: the key cannot be read: {error.strerror}. "
            "Without it the database cannot be opened; restore it from where you keep it."
        ) from error
    with os.fdopen(fd) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path}: the key is not a regular file")
        if private and status.st_mode & 0o077:
            raise KeyFileError(
                f"{path}: the key is open to others (mode {stat.S_IMODE(status.st_mode):04o}). "
                f"Run `chmod 600 {path}`, and `logd` again; think of who may have read it."
            )
        text = file.read(4096).strip()
    if not _KEY.fullmatch(text):
        raise KeyFileError(f"{path}: expected 64 hexadecimal digits and nothing else")
    return bytes.fromhex(text)


def credential(name: str) -> Path | None:
    """The credential of that name that the service manager has handed over, or None."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory, name) if directory else None
    return path if path is not None and path.is_file() else None
