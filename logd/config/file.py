"""Reads logd.toml with bounded work, since on a reload the name may lead to any kind of file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

FILE_BYTES_MAX = 256 * 1024


def read_text(file: Path) -> str:
    """Returns the text of a regular file. Raises OSError, or ValueError with the reason."""
    # O_NONBLOCK, so that opening a FIFO does not wait for its writer.
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a regular file")
        with open(fd, "rb", closefd=False) as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"longer than {FILE_BYTES_MAX:,} bytes")
    return data.decode()
