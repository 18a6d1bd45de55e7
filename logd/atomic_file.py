"""Writes files atomically: under a temporary name beside the file, flushed, then renamed.

It also reads files that must be regular ones.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from logd.errors import CannotCreate, LogdError, StorageBusy, StorageFailed

FILE_MODE = 0o600


@contextlib.contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """Opens PATH.partial for writing; at the end of the `with`, flushes and renames it to PATH.

    An error in between leaves PATH as it was, and no other file. Raises CannotCreate if a file is
    in the way (`force` replaces a regular one) or none can be made, StorageBusy on a full disk,
    StorageFailed on a broken one.
    """
    _check_kind(path)
    partial = path.with_name(path.name + ".partial")
    _check_free(path, partial, force)
    try:
        if force:
            partial.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(partial, flags, FILE_MODE)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        partial.replace(path)
        sync_path(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise cannot_be_written(path, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes, owner: os.stat_result) -> None:
    """Replaces a file atomically, with mode 0600; it is on disk on return. Raises OSError.

    If root calls it, the file gets the user and group of `owner`.
    """
    # `mkstemp` creates the file with mode 0600.
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fsync(fd)
        Path(name).rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    sync_path(path.parent)


def read_regular(path: Path, bytes_max: int = -1) -> bytes:
    """Reads a regular file, or its first bytes. Raises OSError, also for any other kind of file:
    whoever waits for the writer of a FIFO waits for ever.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with open(fd, "rb", closefd=False) as file:
            return file.read(bytes_max)
    finally:
        os.close(fd)


def _check_kind(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        raise CannotCreate(f"{path}: is a directory. Name a file in it.")
    if not stat.S_ISREG(mode):
        raise CannotCreate(
            f"{path}: exists and is not a regular file, so it is not replaced. Name another file,"
            " or write to standard output and redirect that."
        )


def _check_free(path: Path, partial: Path, force: bool) -> None:
    if force:
        return
    if os.path.lexists(path):
        raise CannotCreate(f"{path}: already exists. Name another file, or replace it: --force")
    if os.path.lexists(partial):
        raise CannotCreate(
            f"{partial}: is there already: it is being written just now, or was left by a kill. "
            "If no process writes it, remove it, or replace it: --force"
        )


def sync_path(path: Path) -> None:
    """Flushes a file, or a directory's entries, to disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cannot_be_written(place: Path | str, error: OSError) -> LogdError:
    """Returns the error for a failed write to `place`; its message says what to do."""
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageBusy(
            f"{place}: {why}. It is not complete; make room there, or name another place."
        )
    if error.errno == errno.EIO:
        return StorageFailed(f"{place}: {why}. It is not complete; check that disk.")
    return CannotCreate(f"{place}: cannot be written: {why}.")
