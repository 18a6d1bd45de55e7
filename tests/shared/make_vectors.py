"""Writes shared/vectors/*.json: `python tests/shared/make_vectors.py`.

Imports nothing of `shared` and no msgpack: a second, small implementation from shared/PROTOCOL.md.
Where it and the code disagree, a test fails and one of the two is wrong about the document.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "vectors"

Document = dict[str, Any]

PRODUCER = 0x0123456789ABCDEF
INT64_MAX = 2**63 - 1
RING_BYTES = 64 * 1024
HEADER_BYTES = 4096

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


# What this version cannot unpack, in a field of a later one.
LATER = [
    ("a later field of an extension type is ignored", b"\xd4\x05\x00"),
    ("a later field that is text but not UTF-8 is ignored", b"\xa2\xff\xfe"),
    ("a later map with keys of any type is ignored", b"\x82\x01\xc0\x90\xc0"),
    ("a later map with a key twice is ignored", b"\x82\xa1a\x01\xa1a\x02"),
    ("a later field of 512 levels is ignored", b"\x91" * 511 + b"\x90"),
]


def with_later(*fields: bytes) -> bytes:
    """A payload with further fields, as bytes."""
    return bytes([0x94 + len(fields)]) + payload(PAGE_VIEW)[1:] + b"".join(fields)


# -- payloads ------------------------------------------------------------------------------------


def payloads() -> Document:
    longest = {"type": "t" + "_" * 63, "ts_ns": str(INT64_MAX), "user": "u" * 255, "props": {}}
    foreign = {"type": "login", "ts_ns": "1", "user": "a\0b\n\x85", "props": {}}
    integers = {"small": 127, "minus": -33, "u8": 255, "u16": 65535, "u32": 2**32 - 1, "i16": -129}
    numbers: Document = {"type": "a", "ts_ns": "0", "user": None, "props": integers}
    shared_keys: Document = {"a": {"a": 1}, "b": [{"a": 2}, {"a": 3}]}
    good = [
        ("an event with all fields", PAGE_VIEW, b""),
        ("the same key in several maps", {**BARE, "props": shared_keys}, b""),
        ("an event of nobody without properties", BARE, b""),
        ("nested properties, a float and a text beyond ASCII", QUIZ, b""),
        ("the longest type and user, the last time", longest, b""),
        ("numbers in their shortest forms", numbers, b""),
        *(
            (f"a type with dots or hyphens: {name}", BARE | {"type": name}, b"")
            for name in ("order.paid", "user-login", "a.b-c_d.1", "a_.b")
        ),
        ("a field past the fourth is ignored", PAGE_VIEW, payload(PAGE_VIEW, "of a later day")),
        ("several later fields are ignored", BARE, payload(BARE, {"a": [1]}, None, b"\0")),
        *((name, PAGE_VIEW, with_later(field)) for name, field in LATER),
        (
            "numbers in longer forms than needed are read all the same",
            BARE,
            b"\xdc\x00\x04"  # array 16
            + b"\xd9\x06logout"  # str 8
            + b"\xd3"  # int 64
            + struct.pack(">q", int(BARE["ts_ns"]))
            + b"\xc0\xc5\x00\x03\xde\x00\x00",  # bin 16 holding a map 16
        ),
    ]
    ts_ns, props = 5, b"\x80"
    flat = msgpack({"a": 1})

    def typed(name: str) -> bytes:
        return msgpack([name, ts_ns, None, props])

    deep = b"\x81\xa1a" * 17 + b"\xc0"
    bad: list[tuple[str, str, bytes]] = [
        ("no bytes at all", "payload", b""),
        ("not an array", "payload", flat),
        ("three fields only", "payload", msgpack(["a", ts_ns, None])),
        ("cut short", "payload", payload(PAGE_VIEW)[:-1]),
        ("bytes after the array", "payload", payload(PAGE_VIEW) + b"\0"),
        ("a reserved MessagePack byte", "payload", b"\x94\xc1" + bytes(3)),
        ("a later field that is cut short", "payload", with_later(b"\xd4\x05")),
        ("a reserved byte as a later field", "payload", with_later(b"\xc1")),
        ("bytes after a later extension type", "payload", with_later(b"\xd4\x05\x00") + b"\0"),
        (
            "an extension type as the user, and a later field",
            "payload",
            b"\x95\xa1a\x05\xd4\x05\x00\xc4\x01\x80\xc0",
        ),
        ("a type that only logd writes", "event type", msgpack(["report_read", 5, None, b"\x80"])),
        ("an extension type", "payload", b"\x94\xd4\x05\x00" + msgpack(5) + b"\xc0\xc4\x01\x80"),
        ("an empty type", "event type", msgpack(["", ts_ns, None, props])),
        ("a type of 65 characters", "event type", msgpack(["a" * 65, ts_ns, None, props])),
        ("a type with a capital", "event type", msgpack(["Login", ts_ns, None, props])),
        ("a type with a line end", "event type", msgpack(["login\n", ts_ns, None, props])),
        *(
            (f"a type with misplaced dots or hyphens: {name}", "event type", typed(name))
            for name in ("a.", "a-", ".a", "-a", "a..b", "a--b", "a.-b", "a.B", "a. b", "a/b")
        ),
        ("a type with dots of 65 characters", "event type", typed("a." * 32 + "a")),
        ("a type that is no text", "event type", msgpack([1, ts_ns, None, props])),
        ("a time before 1970", "ts_ns", msgpack(["a", -1, None, props])),
        ("a time of 2**63", "ts_ns", msgpack(["a", 2**63, None, props])),
        ("a time that is a float", "ts_ns", msgpack(["a", 1.0, None, props])),
        ("a time that is true", "ts_ns", msgpack(["a", True, None, props])),
        ("an empty user", "user", msgpack(["a", ts_ns, "", props])),
        ("a user of 256 bytes", "user", msgpack(["a", ts_ns, "é" * 128, props])),
        ("a user that is a number", "user", msgpack(["a", ts_ns, 7, props])),
        ("props as a map instead of bin", "props", msgpack(["a", ts_ns, None, {"a": 1}])),
        ("props that hold no map", "props", msgpack(["a", ts_ns, None, msgpack([1])])),
        ("props with bytes after the map", "props", msgpack(["a", ts_ns, None, flat + b"\0"])),
        (
            "props with a key that is a number",
            "props",
            msgpack(["a", ts_ns, None, b"\x81\x01\x01"]),
        ),
        ("props with a bin value", "props", msgpack(["a", ts_ns, None, msgpack({"a": b"b"})])),
        ("props 17 levels deep", "props", msgpack(["a", ts_ns, None, deep])),
        *(
            (f"props with a key twice, {where}", "props", msgpack(["a", ts_ns, None, twice]))
            for where, twice in {
                "beside another": b"\x83\xa1a\x01\xa1b\x02\xa1a\x03",
                "both times with the same value": b"\x82\xa1a\x01\xa1a\x01",
                "in a map with a longer head than needed": b"\xde\x00\x02\xa1a\x01\xa1a\x02",
                "in different encodings": b"\x82\xa1a\x01\xd9\x01a\x02",
                "in a map within": b"\x81\xa1a\x82\xa1b\x01\xa1b\x02",
                "in a map within an array": b"\x81\xa1a\x92\x01\x82\xa1b\x01\xa1b\x02",
            }.items()
        ),
        (
            "props with a text that is not UTF-8",
            "props",
            msgpack(["a", ts_ns, None, b"\x81\xa1a\xa1\xff"]),
        ),
    ]
    return {
        "about": "Payloads. With `event`: hex decodes to it; if `canonical`, this repository's"
        " encoder writes exactly hex; with `client_refuses`, a client refuses the event for that"
        " field, and a daemon stores it. With `malformed`: refused, and the message begins with"
        " that field. Times are decimal text, since they do not fit into a double.",
        "vectors": [
            {
                "name": name,
                "event": event,
                "canonical": not other,
                "hex": (other or payload(event)).hex(),
            }
            for name, event, other in good
        ]
        + [
            {
                "name": "a user with control characters is stored, and no client writes it",
                "event": foreign,
                "canonical": True,
                "client_refuses": "user",
                "hex": payload(foreign).hex(),
            }
        ]
        + [{"name": name, "malformed": field, "hex": data.hex()} for name, field, data in bad],
    }


# -- records and datagrams -----------------------------------------------------------------------


def records() -> Document:
    data = payload(PAGE_VIEW)
    whole = record(1, data)
    damaged_payload = whole[:-1] + bytes([whole[-1] ^ 1])
    damaged_sequence = whole[:8] + bytes([whole[8] ^ 1]) + whole[9:]
    good = [
        ("the first record of a producer", PRODUCER, 1, data),
        ("an empty payload is a whole record", PRODUCER, 2, b""),
        ("the producer with id 0", 0, 1, data),
        ("the producer with the highest id", 2**64 - 1, 1, data),
        ("the last sequence, 2**63-1", PRODUCER, INT64_MAX, data),
    ]
    bad = [
        ("sequence zero", "impossible sequence", record(0, data)),
        ("sequence 2**63", "impossible sequence", record(2**63, data)),
        ("sequence 2**64-1", "impossible sequence", record(2**64 - 1, data)),
        ("one bit of the payload flipped", "damaged record", damaged_payload),
        ("one bit of the sequence flipped", "damaged record", damaged_sequence),
        ("the record of another producer", "damaged record", record(1, data, PRODUCER ^ 1)),
        ("cut inside its head", "truncated record", whole[:15]),
        ("cut inside its payload", "truncated record", whole[:-1]),
        ("a length of 32769", "oversize record", struct.pack("<I", 32769) + whole[4:]),
        ("a length of 2**32-1", "oversize record", b"\xff" * 4 + whole[4:]),
    ]
    return {
        "about": "Records of the producer in `producer` (hexadecimal), each at the start of hex."
        " With `error`: refused for that reason. Sequences are decimal text.",
        "vectors": [
            {
                "name": name,
                "producer": id_text(producer),
                "sequence": str(sequence),
                "payload": body.hex(),
                "crc": f"{crc(producer, sequence, body):08x}",
                "hex": record(sequence, body, producer).hex(),
            }
            for name, producer, sequence, body in good
        ]
        + [
            {"name": name, "producer": id_text(), "error": reason, "hex": body.hex()}
            for name, reason, body in bad
        ],
    }


def datagrams() -> Document:
    one, two, three = (
        record(number, payload(event))
        for number, event in enumerate((PAGE_VIEW, BARE, QUIZ), start=1)
    )
    refused = {"outbox_full": 3, "malformed": 1}
    farewell = head(kind=1) + record(4, msgpack(refused))

    def events(*of: Document, first: int = 1) -> list[Document]:
        return [
            {"sequence": str(number), "event": event}
            for number, event in enumerate(of, start=first)
        ]

    vectors: list[Document] = [
        {"name": "one event", "events": events(PAGE_VIEW), "data": head() + one},
        {
            "name": "three events",
            "events": events(PAGE_VIEW, BARE, QUIZ),
            "data": head() + one + two + three,
        },
        {
            "name": "an event that somebody waits for",
            "events": events(QUIZ),
            "data": head(kind=2) + record(1, payload(QUIZ)),
        },
        {
            "name": "an event with a field past the fourth",
            "events": events(PAGE_VIEW),
            "data": head() + record(1, payload(PAGE_VIEW, {"later": True})),
        },
        {
            "name": "the last sequence",
            "events": events(BARE, first=INT64_MAX),
            "data": head() + record(INT64_MAX, payload(BARE)),
        },
        {
            "name": "a farewell after three events",
            "farewell": {"last_sequence": "3", "refused": refused},
            "data": farewell,
        },
        {
            "name": "a farewell of one that sent nothing",
            "farewell": {"last_sequence": "0", "refused": {}},
            "data": head(kind=1) + record(1, msgpack({})),
        },
        {
            "name": "a good record before a damaged one is taken",
            "events": events(PAGE_VIEW),
            "error": "damaged record",
            "data": head() + one + two[:-1] + bytes([two[-1] ^ 0x80]),
        },
    ]
    jump = payload(BARE)
    errors: list[tuple[str, str, bytes]] = [
        ("no bytes", "truncated datagram", b""),
        ("a head cut short", "truncated datagram", head()[:15]),
        ("a head and no record", "datagram without a record", head()),
        ("another protocol", "not a datagram of this protocol", head(magic=b"GET") + one),
        ("version 2", "other version", head(version=2) + one),
        ("version 0", "other version", head(version=0) + one),
        ("version 2 with a body nobody knows", "other version", head(version=2) + b"\xff" * 9),
        ("an unknown kind", "unknown kind of datagram", head(kind=3) + one),
        ("a reserved byte set", "unknown kind of datagram", head(zeros=b"\0\0\1") + one),
        ("a damaged CRC", "damaged record", head() + one[:4] + bytes([one[4] ^ 1]) + one[5:]),
        ("a damaged payload", "damaged record", head() + one[:-1] + bytes([one[-1] ^ 1])),
        ("cut in a record's head", "truncated record", head() + one[:7]),
        ("cut in a payload", "truncated record", head() + one[:-1]),
        ("a record said to be oversize", "oversize record", head() + b"\1\x80\0\0" + one[4:]),
        ("sequence zero", "impossible sequence", head() + record(0, jump)),
        ("sequence 2**63", "impossible sequence", head() + record(2**63, jump)),
        ("sequence 2**64-1", "impossible sequence", head() + record(2**64 - 1, jump)),
        ("a farewell with a byte behind it", "damaged farewell", farewell + b"\0"),
        (
            "a farewell with an array",
            "damaged farewell",
            head(kind=1) + record(4, msgpack([["a", 1]])),
        ),
        (
            "a farewell with a negative count",
            "damaged farewell",
            head(kind=1) + record(4, msgpack({"malformed": -1})),
        ),
        (
            "a farewell with a cause of 33 characters",
            "damaged farewell",
            head(kind=1) + record(4, msgpack({"c" * 33: 1})),
        ),
    ]
    vectors += [{"name": name, "error": reason, "data": data} for name, reason, data in errors]
    for vector in vectors:
        vector["hex"] = vector.pop("data").hex()
    return {
        "about": f"Datagrams of the producer {id_text()}. `events`: what they hold. `error`: the"
        " reason for which a daemon refuses the datagram, or what follows the given events.",
        "producer": id_text(),
        "vectors": vectors,
    }


# -- outboxes ------------------------------------------------------------------------------------


def outboxes() -> Document:
    return {
        "about": "Outbox files of a little-endian machine after the given steps. A step appends a"
        " payload, given as runs of [hex, times]; or confirms (the daemon's two words), counts"
        " refusals of a cause, or says farewell. `words`: the header's 8-byte words that are not"
        " zero, by index, in hexadecimal. `ring`: its bytes, as runs from offset 0 of the ring, and"
        " zeros behind them. An append that finds no room is `refused`.",
        "vectors": [_first_events(), _wrap_around(), _full()],
    }


def _runs_bytes(runs: list[tuple[bytes, int]]) -> bytes:
    return b"".join(part * times for part, times in runs)


def _runs_text(runs: list[tuple[bytes, int]]) -> list[list[object]]:
    return [[part.hex(), times] for part, times in runs if part and times]


def _large(length: int, fill: bytes) -> list[tuple[bytes, int]]:
    """A payload of exactly `length` bytes: one text property of `fill`."""
    # Long enough for lengths of two bytes: three of a bin's head, three of a text's.
    front = b"\x94" + msgpack("page_view") + msgpack(1) + b"\xc0"
    props_bytes = length - len(front) - 3
    text_bytes = props_bytes - 1 - len(msgpack("pad")) - 3
    head_bytes = (
        front
        + struct.pack(">BH", 0xC5, props_bytes)
        + b"\x81"
        + msgpack("pad")
        + struct.pack(">BH", 0xDA, text_bytes)
    )
    return [(head_bytes, 1), (fill, text_bytes)]


def _words(**given: int) -> dict[str, str]:
    index = {
        "magic": 0,
        "version": 1,
        "producer": 2,
        "ring_bytes": 3,
        "pid": 4,
        "created_ns": 5,
        "written": 8,
        "farewell": 9,
        "confirmed_sequence": 16,
        "confirmed_position": 17,
        "refused_malformed": 24,
        "refused_outbox_full": 25,
    }
    always = {
        "magic": struct.unpack("<Q", b"LGDOUTBX")[0],
        "version": 1,
        "producer": PRODUCER,
        "ring_bytes": RING_BYTES,
        "pid": 4242,
        "created_ns": 1760000000000000000,
    }
    return {str(index[name]): f"{value:016x}" for name, value in (always | given).items() if value}


def _outbox(
    name: str,
    steps: list[Document],
    words: dict[str, str],
    ring: list[tuple[bytes, int]],
    payloads: list[list[tuple[bytes, int]]],
) -> Document:
    return {
        "name": name,
        "producer": id_text(),
        "ring_bytes": RING_BYTES,
        "pid": 4242,
        "created_ns": "1760000000000000000",
        "steps": steps,
        "words": words,
        "ring": _runs_text(ring),
        # What a reader finds from the confirmed position on.
        "readable": [_runs_text(runs) for runs in payloads],
    }


def _append(runs: list[tuple[bytes, int]], **further: object) -> Document:
    return {"append": _runs_text(runs), **further}


def _first_events() -> Document:
    payloads = [[(payload(event), 1)] for event in (PAGE_VIEW, BARE, QUIZ)]
    ring = b""
    for sequence, runs in enumerate(payloads, start=1):
        ring += record(sequence, _runs_bytes(runs))
        ring += bytes(-len(ring) % 8)
    steps = [_append(runs) for runs in payloads]
    steps += [{"count": ["malformed", 2]}, {"farewell": True}]
    words = _words(written=3, farewell=1, refused_malformed=2)
    return _outbox("three events, two refusals, a farewell", steps, words, [(ring, 1)], payloads)


def _record_runs(sequence: int, runs: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    whole = record(sequence, _runs_bytes(runs))
    return [(whole[:16], 1), *runs]


def _wrap_around() -> Document:
    # 32,760 + 32,768 bytes: eight are left at the ring's end, so that the third record's head is
    # itself in two pieces.
    first, second = _large(32744, b"x"), _large(32752, b"y")
    third = [(payload(PAGE_VIEW), 1)]
    whole = record(3, _runs_bytes(third))
    # What the third record overwrote of the first: its head and the start of its payload.
    behind = _runs_bytes(_record_runs(1, first))[len(whole) - 8 :]
    left = len(behind.rstrip(b"x"))
    ring = [
        (whole[8:] + behind[:left], 1),
        (b"x", len(behind) - left),
        *_record_runs(2, second),
        (whole[:8], 1),
    ]
    steps = [
        _append(first),
        _append(second),
        _append(third, refused=True),
        {"confirm": ["1", "32760"]},
        _append(third),
    ]
    words = _words(written=3, confirmed_sequence=1, confirmed_position=32760)
    return _outbox("a record around the ring's end", steps, words, ring, [second, third])


def _full() -> Document:
    # The same bytes from end to end: a ring may be filled to its last byte.
    first, second = _large(32752, b"x"), _large(32752, b"y")
    steps = [
        _append(first),
        _append(second),
        _append([(payload(BARE), 1)], refused=True),
        {"count": ["outbox_full", 1]},
    ]
    ring = [*_record_runs(1, first), *_record_runs(2, second)]
    words = _words(written=2, refused_outbox_full=1)
    return _outbox("full to the last byte", steps, words, ring, [first, second])


# -- queries and names ---------------------------------------------------------------------------


def _frame(message: object) -> bytes:
    body = msgpack(message)
    return struct.pack(">I", len(body)) + body


def queries() -> Document:
    good: list[tuple[str, Document]] = [
        ("a request", {"v": 1, "report": "summary", "asked_by": None, "params": {}}),
        (
            "a request with parameters",
            {"v": 1, "report": "timeline", "asked_by": "2", "params": {"user": "7", "limit": 20}},
        ),
        (
            "a response with rows and more to come",
            {"ok": True, "rows": [{"type": "login", "events": 12}], "next": 41},
        ),
        ("a response, the last page", {"ok": True, "rows": [], "next": None}),
        (
            "a refusal",
            {"ok": False, "error": "unknown_report", "message": "reports are: events, summary"},
        ),
    ]
    request = _frame(good[0][1])
    bad = [
        ("a length over the limit of requests", "over the limit", struct.pack(">I", 65537)),
        ("the stream ends inside the length", "inside a frame's length", request[:3]),
        ("the stream ends inside the frame", "the stream ended after", request[:-1]),
        ("an array instead of a map", "holds a map", _frame([1])),
        ("an empty frame", "not msgpack", bytes(4)),
        ("a reserved MessagePack byte", "not msgpack", b"\0\0\0\1\xc1"),
        ("a key that is a number", "not msgpack", b"\0\0\0\3\x81\1\1"),
    ]
    return {
        "about": "Frames of the query protocol. With `error`: a reader of requests refuses hex,"
        " and its message holds that text.",
        "vectors": [
            {"name": name, "message": message, "hex": _frame(message).hex()}
            for name, message in good
        ]
        + [{"name": name, "error": text, "hex": data.hex()} for name, text, data in bad],
    }


def names() -> Document:
    token = "0123456789abcdef" * 2
    boot = "8c2f4f6e-0a53-4e0f-8a3e-2f1f8a1d9b11"
    text = f"directory=/dev/shm/logd-1000-0011\ntoken={token}\nboot_id={boot}\n"
    meaning = {"directory": "/dev/shm/logd-1000-0011", "token": token, "boot_id": boot}
    rendezvous: list[Document] = [
        {"name": "as the daemon writes it", "text": text, "means": meaning},
        {"name": "lines of a later day", "text": "later=1\n" + text + "more\n", "means": meaning},
        {"name": "no token", "text": "directory=/dev/shm/a\n", "means": None},
        {"name": "a short token", "text": f"directory=/a\ntoken={token[:31]}\n", "means": None},
        {"name": "a relative directory", "text": f"directory=a\ntoken={token}\n", "means": None},
        {"name": "empty", "text": "", "means": None},
    ]
    files: list[Document] = [
        {"file": f"1000-{id_text()}.outbox", "uid": 1000, "producer": id_text()},
        {"file": f"0-{id_text(0)}.outbox", "uid": 0, "producer": id_text(0)},
    ]
    others = [
        f".new-1000-{id_text()}.outbox",
        f"01000-{id_text()}.outbox",
        f"+1-{id_text()}.outbox",
        f"-{id_text()}.outbox",
        f"1000-{id_text().upper()}.outbox",
        f"1000-{id_text()[1:]}.outbox",
        f"1000-{id_text()}.outbox.bak",
        f"1000-{id_text()}",
        "token",
    ]
    return {
        "about": "The file beside the socket (`means`: null if it does not name a place), and the"
        " names of outboxes (`uid`: null for a name that is none).",
        "rendezvous": rendezvous,
        "outbox_names": files + [{"file": name, "uid": None, "producer": None} for name in others],
    }


def build() -> dict[str, Document]:
    """Every file of vectors, by name."""
    return {
        "payloads": payloads(),
        "records": records(),
        "datagrams": datagrams(),
        "outboxes": outboxes(),
        "queries": queries(),
        "names": names(),
    }


def text_of(document: Document) -> str:
    """The file's text."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for name, document in build().items():
        (FOLDER / f"{name}.json").write_text(text_of(document), encoding="utf-8")


if __name__ == "__main__":
    main()
