"""Checks every page of the database file against the keyed hash that SQLCipher stores in the page.

SQLCipher's check reads the file and does not see the WAL. While a reader holds back a checkpoint, a
page of the file may be old, half written or a hole of zeros, and the WAL has the page that counts.
Such a page is not damaged: it is skipped by this check, and the queries of `logd verify` read it
from the WAL.
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

# The parts of the WAL (https://www.sqlite.org/fileformat2.html#the_write_ahead_log),
# all big-endian: the page size and the salts of its header;
# the page number and the salts of each frame.
_HEADER = struct.Struct(">8xI4x8s8x")
_FRAME = struct.Struct(">I4x8s8x")
# Each page in a file of SQLCipher 4 has: content, 16 bytes of initialisation vector,
# HMAC-SHA512 over both and the page's number. The first page begins with the salt.
_PAGE_BYTES = 4096
_SALT_BYTES = 16
_HASH_BYTES = 64
_HMAC_SALT_MASK = 0x3A
_PAGE = re.compile(r"\bpage (\d+)")


def damaged_pages(connection: Connection) -> list[str]:
    """Returns what SQLCipher finds wrong, one line for each page.

    It runs inside the caller's read transaction, which keeps the WAL's frames from being
    overwritten. Raises DatabaseError, OSError.
    """
    problems = [problem for (problem,) in connection.execute("PRAGMA cipher_integrity_check")]
    if not problems:
        return []
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    pages = {int(found[1]) for problem in problems if (found := _PAGE.search(problem))}
    newer = _in_wal(wal_path(path), pages)
    return [p for p in problems if not ((found := _PAGE.search(p)) and int(found[1]) in newer)]


def _in_wal(wal: Path, pages: Set[int]) -> set[int]:
    """Returns the pages among `pages` that have a frame in the WAL."""
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
                # This frame and all later ones are left from before the WAL was last restarted.
                break
            if page in pages:
                found.add(page)
            file.seek(page_bytes, 1)
    return found


def damaged_pages_between(connection: Connection, key: bytes, first: int, last: int) -> list[str]:
    """Checks the pages from `first` to `last`; returns a line for each damaged one.

    If the file is not of the format that this program writes, all pages are checked. Raises
    DatabaseError, OSError, NotChecked.
    """
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    # The file is read in another process, since closing it would drop SQLite's locks in this one.
    numbers = call_in_process(_damaged, path, key, first, last)
    if numbers is None:
        return damaged_pages(connection)
    newer = _in_wal(wal_path(path), set(numbers)) if numbers else set()
    if set(numbers) - newer:  # a checkpoint may have been writing these pages just then
        again = call_in_process(_damaged, path, key, first, last)
        numbers = [number for number in numbers if number in (again or ())]
        newer |= _in_wal(wal_path(path), set(numbers))
    return [f"HMAC verification failed for page {n}" for n in numbers if n not in newer]


def _damaged(path: Path, key: bytes, first: int, last: int) -> list[int] | None:
    """Returns the numbers of the pages whose hash is not that of their content.

    Returns None if the first page's hash is wrong, so that nothing can be said about the others.
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
