"""Writes events, records and datagrams as shared/PROTOCOL.md has them.

Imports nothing of `shared` and no msgpack: a second, small implementation. Where it and the code
disagree, a test fails and one of the two is wrong about the document.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any

Document = dict[str, Any]
PRODUCER = 0x0123456789ABCDEF
INT64_MAX = 2**63 - 1
PAGE_VIEW: Document = {
    "type": "page_view",
    "ts_ns": "1760000000000000000",
    "user": "7",
    "props": {"route": "/lesson/<id>", "status": 200},
}
BARE: Document = {"type": "logout", "ts_ns": "1760000000000000001", "user": None, "props": {}}
QUIZ: Document = {
    "type": "quiz_submitted",
    "ts_ns": "1760000000000000002",
    "user": "zoë",
    "props": {"quiz": 3, "score": 0.8, "right": [True, False, None], "by": {"part": [-1, 1.5]}},
}


def msgpack(value: object) -> bytes:
    """The shortest MessagePack form of a plain value (github.com/msgpack, spec.md)."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        fixed = bytes([0xA0 | len(data)]) if len(data) < 32 else None
        return (fixed or _sized(len(data), (0xD9, 0xDA, 0xDB))) + data
    if isinstance(value, bytes):
        return _sized(len(value), (0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, list):
        assert len(value) < 16, "no vector needs a longer array"
        return bytes([0x90 | len(value)]) + b"".join(map(msgpack, value))
    assert isinstance(value, dict)
    assert len(value) < 16, "no vector needs a larger map"
    items = b"".join(msgpack(key) + msgpack(item) for key, item in value.items())
    return bytes([0x80 | len(value)]) + items


def _sized(length: int, codes: tuple[int, int, int]) -> bytes:
    if length < 2**8:
        return struct.pack(">BB", codes[0], length)
    if length < 2**16:
        return struct.pack(">BH", codes[1], length)
    return struct.pack(">BI", codes[2], length)


def _integer(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes([value])
    if -32 <= value < 0:
        return struct.pack(">b", value)
    forms = (
        ((0xCC, "B"), (0xCD, "H"), (0xCE, "I"), (0xCF, "Q"))
        if value >= 0
        else ((0xD0, "b"), (0xD1, "h"), (0xD2, "i"), (0xD3, "q"))
    )
    for code, form in forms:
        try:
            return bytes([code]) + struct.pack(">" + form, value)
        except struct.error:
            continue
    raise AssertionError(f"{value} has more than 64 bits")


def payload(event: Document, *further: object) -> bytes:
    props = msgpack(event["props"])
    return msgpack([event["type"], int(event["ts_ns"]), event["user"], props, *further])


def crc(producer: int, sequence: int, data: bytes) -> int:
    return zlib.crc32(struct.pack("<QQ", producer, sequence) + data)


def record(sequence: int, data: bytes, producer: int = PRODUCER) -> bytes:
    return struct.pack("<IIQ", len(data), crc(producer, sequence, data), sequence) + data


def head(kind: int = 0, version: int = 1, magic: bytes = b"LGD", zeros: bytes = bytes(3)) -> bytes:
    return magic + bytes([version, kind]) + zeros + struct.pack("<Q", PRODUCER)


def id_text(producer: int = PRODUCER) -> str:
    return f"{producer:016x}"


def refused(key: str, rows: Iterable[tuple[str, str, bytes]], **further: object) -> list[Document]:
    """Vectors that are refused: rows of a name, the reason, which stands under `key`, and bytes."""
    return [
        {"name": name, **further, key: reason, "hex": data.hex()} for name, reason, data in rows
    ]
