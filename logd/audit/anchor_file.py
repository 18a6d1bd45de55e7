"""Appends anchors to a separate file, one on each line, which begins with the time.

`logd verify --anchors FILE` reads that file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from logd.atomic_file import sync_path
from logd.audit import anchors
from logd.storage.tree_head import Head

MODE = 0o640
# The file is not opened through a link, nor as a pipe without a reader; lines are only appended.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def format_line(
    head: Head, now_ns: int, trail_id: str | None = None, signature: bytes | None = None
) -> str:
    """Returns the anchor as a line of the file."""
    moment = datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{moment} {anchors.format_anchor(head, trail_id, signature)}\n"


def append(
    path: Path,
    head: Head,
    now_ns: int,
    trail_id: str | None = None,
    signature: bytes | None = None,
) -> None:
    """Appends an anchor; it is on disk on return.

    Raises OSError. Then a part of the line may be in the file, and the next anchor begins a new
    line.
    """
    fd = _open(path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        line = format_line(head, now_ns, trail_id, signature)
        data = f"{'' if _ends_with_newline(path) else chr(10)}{line}".encode()
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, MODE)
        try:
            os.fchmod(fd, MODE)  # sets the mode whatever the umask is
            sync_path(path.parent)
        except OSError:
            os.close(fd)
            raise
        return fd
    return os.open(path, _FLAGS)


def _ends_with_newline(path: Path) -> bool:
    """Whether the file's last line is complete; False also if the file is not readable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        return size == 0 or os.pread(fd, 1, size - 1) == b"\n"
    finally:
        os.close(fd)
