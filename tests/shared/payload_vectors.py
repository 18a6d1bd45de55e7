"""The vectors of payloads: events that decode, and payloads that are malformed in one field."""

from __future__ import annotations

import struct

from tests.shared.independent_encoder import (
    BARE,
    INT64_MAX,
    PAGE_VIEW,
    QUIZ,
    Document,
    msgpack,
    payload,
    refused,
)

# What this version cannot unpack, in a field of a later one.
LATER = [
    ("a later field of an extension type is ignored", b"\xd4\x05\x00"),
    ("a later field that is text but not UTF-8 is ignored", b"\xa2\xff\xfe"),
    ("a later map with keys of any type is ignored", b"\x82\x01\xc0\x90\xc0"),
    ("a later map with a key twice is ignored", b"\x82\xa1a\x01\xa1a\x02"),
    ("a later field of 512 levels is ignored", b"\x91" * 511 + b"\x90"),
]


def fields(
    kind: object = "a", ts_ns: object = 5, user: object = None, props: object = b"\x80"
) -> bytes:
    """A payload of any four fields, sound or not."""
    return msgpack([kind, ts_ns, user, props])


def with_later(*fields: bytes) -> bytes:
    """A payload with further fields, as bytes."""
    return bytes([0x94 + len(fields)]) + payload(PAGE_VIEW)[1:] + b"".join(fields)


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
    flat = msgpack({"a": 1})
    deep = b"\x81\xa1a" * 17 + b"\xc0"
    bad: list[tuple[str, str, bytes]] = [
        ("no bytes at all", "payload", b""),
        ("not an array", "payload", flat),
        ("three fields only", "payload", msgpack(["a", 5, None])),
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
        ("a type that only logd writes", "event type", fields("report_read")),
        ("an extension type", "payload", b"\x94\xd4\x05\x00" + msgpack(5) + b"\xc0\xc4\x01\x80"),
        ("an empty type", "event type", fields("")),
        ("a type of 65 characters", "event type", fields("a" * 65)),
        ("a type with a capital", "event type", fields("Login")),
        ("a type with a line end", "event type", fields("login\n")),
        *(
            (f"a type with misplaced dots or hyphens: {name}", "event type", fields(name))
            for name in ("a.", "a-", ".a", "-a", "a..b", "a--b", "a.-b", "a.B", "a. b", "a/b")
        ),
        ("a type with dots of 65 characters", "event type", fields("a." * 32 + "a")),
        ("a type that is no text", "event type", fields(1)),
        ("a time before 1970", "ts_ns", fields(ts_ns=-1)),
        ("a time of 2**63", "ts_ns", fields(ts_ns=2**63)),
        ("a time that is a float", "ts_ns", fields(ts_ns=1.0)),
        ("a time that is true", "ts_ns", fields(ts_ns=True)),
        ("an empty user", "user", fields(user="")),
        ("a user of 256 bytes", "user", fields(user="é" * 128)),
        ("a user that is a number", "user", fields(user=7)),
        ("props as a map instead of bin", "props", fields(props={"a": 1})),
        ("props that hold no map", "props", fields(props=msgpack([1]))),
        ("props with bytes after the map", "props", fields(props=flat + b"\0")),
        ("props with a key that is a number", "props", fields(props=b"\x81\x01\x01")),
        ("props with a bin value", "props", fields(props=msgpack({"a": b"b"}))),
        ("props 17 levels deep", "props", fields(props=deep)),
        *(
            (f"props with a key twice, {where}", "props", fields(props=twice))
            for where, twice in {
                "beside another": b"\x83\xa1a\x01\xa1b\x02\xa1a\x03",
                "both times with the same value": b"\x82\xa1a\x01\xa1a\x01",
                "in a map with a longer head than needed": b"\xde\x00\x02\xa1a\x01\xa1a\x02",
                "in different encodings": b"\x82\xa1a\x01\xd9\x01a\x02",
                "in a map within": b"\x81\xa1a\x82\xa1b\x01\xa1b\x02",
                "in a map within an array": b"\x81\xa1a\x92\x01\x82\xa1b\x01\xa1b\x02",
            }.items()
        ),
        ("props with a text that is not UTF-8", "props", fields(props=b"\x81\xa1a\xa1\xff")),
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
        + refused("malformed", bad),
    }
