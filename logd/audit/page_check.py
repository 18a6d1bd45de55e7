"""Checks every page of the database file against the keyed hash that SQLCipher stores with it.

SQLCipher's check reads the file and does not see the WAL. While a reader holds back a checkpoint, a
page of the file may be old, half written or a hole of zeros, and the WAL has the page that counts.
Such a page is not damaged: it is skipped here, and the queries of `logd verify` read it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Set
from pathlib import Path

from logd.audit.child import call_in_process
from logd.storage.database import Connection, wal_path

# Of the WAL (https://www.sqlite.org/fileformat2.html#the_write_ahead_log), all big-endian: the page
# size and the salts of its header; the page number and the salts of each frame.
_HEADER = struct.Struct(">8xI4x8s8x")
_FRAME = struct.Struct(">I4x8s8x")
# Of SQLCipher 4's files, each page: content, 16 bytes initialisation vector, HMAC-SHA512 over both
# and the page's number. The first page begins with the salt.
_PAGE_BYTES = 4096
_SALT_BYTES = 16
_HASH_BYTES = 64
_HMAC_SALT_MASK = 0x3A
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


def damaged_pages_between(connection: Connection, key: bytes, first: int, last: int) -> list[str]:
    """The same for the pages from `first` to `last`; for all, if the file is of another format than
    this program writes. Raises DatabaseError, OSError, NotChecked.
    """
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    # In a process of its own: closing the file would drop SQLite's locks in this one.
    numbers = call_in_process(_damaged, path, key, first, last)
    if numbers is None:
        return damaged_pages(connection)
    newer = _in_wal(wal_path(path), set(numbers)) if numbers else set()
    if set(numbers) - newer:  # perhaps a checkpoint was writing them just then
        again = call_in_process(_damaged, path, key, first, last)
        numbers = [number for number in numbers if number in (again or ())]
        newer |= _in_wal(wal_path(path), set(numbers))
    return [f"HMAC verification failed for page {n}" for n in numbers if n not in newer]


def _damaged(path: Path, key: bytes, first: int, last: int) -> list[int] | None:
    """The numbers of pages whose hash is not that of their content; None if the first page's is
    not, so that nothing can be told of the others.
    """
    with path.open("rb") as file:
        page = file.read(_PAGE_BYTES)
        salt = bytes(byte ^ _HMAC_SALT_MASK for byte in page[:_SALT_BYTES])
        hmac_key = hashlib.pbkdf2_hmac("sha512", key, salt, 2, len(key))
        if not _is_intact(page, 1, hmac_key):
            return None
        file.seek((first - 1) * _PAGE_BYTES)
        return [
            number
            for number in range(first, last + 1)
            if not _is_intact(file.read(_PAGE_BYTES), number, hmac_key)
        ]


def _is_intact(page: bytes, number: int, hmac_key: bytes) -> bool:
    start = _SALT_BYTES if number == 1 else 0
    content, digest = page[start : _PAGE_BYTES - _HASH_BYTES], page[_PAGE_BYTES - _HASH_BYTES :]
    expected = hmac.digest(hmac_key, content + number.to_bytes(4, "little"), "sha512")
    return hmac.compare_digest(expected, digest)
