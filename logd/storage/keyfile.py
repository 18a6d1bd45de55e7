"""Two keys: the database's, and the one that signs the trail's heads (`logd.audit.head_signer`).

Each is 256 random bits as 64 hexadecimal digits, in a file that only its owner can read. A service
manager may pass it as a credential of the same name instead (systemd.exec(5), LoadCredential=):
then the file need not exist, nor be readable by the service's user.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from logd.atomic_file import sync_path
from logd.errors import CannotCreate, KeyFileError, SystemRefused, is_shortage

KEY_BYTES = 32
_KEY = re.compile(r"[0-9a-fA-F]{64}")
# The units pass this text if there is no signing key, so that they start without one.
NO_KEY = "none"
_NEEDED = "Without it the database cannot be opened; restore it from your copy."


def new() -> str:
    """Returns a new key as the file's text."""
    return secrets.token_hex(32)


def create(path: Path, key: bytes | None = None) -> None:
    """Writes a key, by default a new one, to a new file; both are on disk on return.

    Raises CannotCreate if the file exists.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotCreate(f"{path}: the key cannot be created: {error.strerror}") from error
    with os.fdopen(fd, "w") as file:
        file.write((new() if key is None else key.hex()) + "\n")
        file.flush()
        os.fsync(fd)
    # The name is flushed too, since the database would be lost if its key's name were.
    sync_path(path.parent)


def read(path: Path) -> bytes:
    """Reads the key's 32 bytes, from a credential with the file's name if there is one.

    Raises KeyFileError if it is missing, readable by others, or malformed.
    """
    passed = credential(path.name)
    # A credential's access is controlled by the service manager, and not visible in its mode.
    return read_file(passed or path, private=passed is None)


def read_signing_key(path: Path) -> bytes | None:
    """Reads the 32 bytes of the key that signs heads as `read` does; None if there is none.

    Raises KeyFileError if it cannot be read, is readable by others, or malformed.
    """
    passed = credential(path.name)
    try:
        text = _read_text(passed or path, passed is None, "Without it no head can be signed.")
    except KeyFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return None if passed is not None and text == NO_KEY else _parse(passed or path, text)


def read_file(path: Path, *, private: bool = True) -> bytes:
    """Reads the key's 32 bytes from a file. If `private`, only its owner may be able to read it.

    Raises KeyFileError if it is missing, readable by others, or malformed.
    """
    return _parse(path, _read_text(path, private, _NEEDED))


def _read_text(path: Path, private: bool, needed: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if is_shortage(error):
            raise SystemRefused(f"{path}: the key cannot be read: {error.strerror}.") from error
        raise KeyFileError(f"{path}: the key cannot be read: {error.strerror}. {needed}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise KeyFileError(f"{path}: the key is not a regular file")
    with os.fdopen(fd, encoding="ascii", errors="replace") as file:
        if private and status.st_mode & 0o077:
            raise KeyFileError(
                f"{path}: the key is open to others (mode {stat.S_IMODE(status.st_mode):04o}). "
                f"Run `chmod 600 {path}`, and `logd` again; consider who may have read it."
            )
        return file.read(4096).strip()


def _parse(path: Path, text: str) -> bytes:
    if not _KEY.fullmatch(text):
        raise KeyFileError(f"{path}: expected 64 hexadecimal digits and nothing else")
    return bytes.fromhex(text)


def credential(name: str) -> Path | None:
    """Returns the path of the service manager's credential with this name, or None."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory, name) if directory else None
    return path if path is not None and path.is_file() else None
