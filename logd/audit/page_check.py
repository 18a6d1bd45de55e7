"""Checks every page of the database file against the keyed hash that SQLCipher stores with it.

SQLCipher's check reads the file and does not see the WAL. While a reader holds back a checkpoint, a
page of the file may be old, half written or a hole of zeros, and the WAL has the page that counts.
Such a page is not damaged: it is skipped here, and the queries of `logd verify` read it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Set
from pathlib import Path

from logd.storage.database import Connection, wal_path

# Of the WAL (https://www.sqlite.org/fileformat2.html#the_write_ahead_log), all big-endian: the page
# size and the salts of its header; the page number and the salts of each frame.
_HEADER = struct.Struct(">8xI4x8s8x")
_FRAME = struct.Struct(">I4x8s8x")
_PAGE = re.compile(r"\bpage (\d+)")


def damaged_pages(connection: Connection) -> list[str]:
    """What SQLCipher finds wrong, a line for each page, inside the caller's read transaction.

    That transaction keeps the WAL's frames from being overwritten. Raises DatabaseError, OSError.
    """
    problems = [problem for (problem,) in connection.execute("PRAGMA cipher_integrity_check")]
    if not problems:
        return []
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    pages = {int(found[1]) for problem in problems if (found := _PAGE.search(problem))}
    newer = _in_wal(wal_path(path), pages)
    return [p for p in problems if not ((found := _PAGE.search(p)) and int(found[1]) in newer)]


def _in_wal(wal: Path, pages: Set[int]) -> set[int]:
    """Returns those of the pages that have a frame in the WAL."""
    found: set[int] = set()
    try:
        file = wal.open("rb")
    except FileNotFoundError:
        return found
    with file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return found
        page_bytes, salts = _HEADER.unpack(header)
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            page, frame_salts = _FRAME.unpack(frame)
            if frame_salts != salts:
                break  # left from before the WAL was last restarted
            if page in pages:
                found.add(page)
            file.seek(page_bytes, 1)
    return found
