"""Decrypts the pages of a SQLCipher database and of its WAL without SQLite.

SQLCipher 4 with a raw key: pages of 4,096 bytes, of which the last 80 are the IV (16) and an HMAC;
AES-256 in CBC mode; the first 16 bytes of the file are its salt. A frame of the WAL is a header
of 24 bytes and a page that is encrypted in the same way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PAGE_BYTES = 4096
RESERVED_BYTES = 80
SALT_BYTES = IV_BYTES = 16
LOG_HEAD_BYTES, FRAME_HEAD_BYTES = 32, 24


def pages(database: Path, key: bytes) -> Iterator[tuple[str, bytes]]:
    """(location, content) of every page of the database, then of every frame of its WAL."""
    data = database.read_bytes()
    assert len(data) % PAGE_BYTES == 0
    for start in range(0, len(data), PAGE_BYTES):
        number = start // PAGE_BYTES + 1
        yield f"page {number}", _decrypted(data[start : start + PAGE_BYTES], key, number)
    log = database.with_name(database.name + "-wal")
    data = log.read_bytes() if log.exists() else b""
    frame_bytes = FRAME_HEAD_BYTES + PAGE_BYTES
    for start in range(LOG_HEAD_BYTES, len(data) - frame_bytes + 1, frame_bytes):
        (number,) = struct.unpack_from(">I", data, start)
        page = data[start + FRAME_HEAD_BYTES : start + frame_bytes]
        yield f"frame of page {number}", _decrypted(page, key, number)


def _decrypted(page: bytes, key: bytes, number: int) -> bytes:
    head = SALT_BYTES if number == 1 else 0
    content = page[head : PAGE_BYTES - RESERVED_BYTES]
    iv = page[PAGE_BYTES - RESERVED_BYTES :][:IV_BYTES]
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return page[:head] + decryptor.update(content) + decryptor.finalize()


def found(database: Path, key: bytes, values: Iterable[bytes]) -> list[str]:
    """Where any of the values is found in the decrypted pages."""
    looked_for = list(values)
    return [
        f"{where}: {value!r}"
        for where, content in pages(database, key)
        for value in looked_for
        if value in content
    ]
