"""Anchors in a file that only ever grows, where no other log line can drown them.

One line for each, with the time in front; `logd verify --anchors FILE` reads it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from logd.atomic_file import sync
from logd.audit import anchors
from logd.storage.hash_chain import Head

MODE = 0o640
# Not through a link, not into a pipe without a reader, never over what is there.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def line(head: Head, now_ns: int) -> str:
    """The anchor as the file has it."""
    moment = datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{moment} {anchors.line(head)}\n"


def append(path: Path, head: Head, now_ns: int) -> None:
    """Adds an anchor, on the disk when it returns. Raises OSError; then a part of the line may be
    there, which the next one does not continue.
    """
    fd = _open(path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        data = (("" if _ends_with_a_line(path) else "\n") + line(head, now_ns)).encode()
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, MODE)
        try:
            os.fchmod(fd, MODE)  # whatever the umask
            sync(path.parent)
        except OSError:
            os.close(fd)
            raise
        return fd
    return os.open(path, _FLAGS)


def _ends_with_a_line(path: Path) -> bool:
    """Whether the last line is whole; False also where this process may write, not read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        return size == 0 or os.pread(fd, 1, size - 1) == b"\n"
    finally:
        os.close(fd)
