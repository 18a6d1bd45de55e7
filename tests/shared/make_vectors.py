"""Writes shared/vectors/*.json: `python -m tests.shared.make_vectors`.

Each file is a table of vectors that are good, and one of vectors that are refused, with the reason.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.shared.independent_encoder import (
    BARE,
    INT64_MAX,
    PAGE_VIEW,
    PRODUCER,
    QUIZ,
    Document,
    crc,
    head,
    id_text,
    msgpack,
    payload,
    record,
    refused,
)
from tests.shared.outbox_vectors import outboxes
from tests.shared.payload_vectors import payloads

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "vectors"


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
        + refused("error", bad, producer=id_text()),
    }


def datagrams() -> Document:
    one, two, three = (
        record(number, payload(event)) for number, event in ((1, PAGE_VIEW), (2, BARE), (3, QUIZ))
    )
    counts = {"outbox_full": 3, "malformed": 1}

    def farewell(last: int, counts: object) -> bytes:
        return head(kind=1) + record(last + 1, msgpack(counts))

    def events(*of: Document, first: int = 1) -> Document:
        numbered = enumerate(of, start=first)
        return {"events": [{"sequence": str(number), "event": event} for number, event in numbered]}

    good: list[tuple[str, Document, bytes]] = [
        ("one event", events(PAGE_VIEW), head() + one),
        ("three events", events(PAGE_VIEW, BARE, QUIZ), head() + one + two + three),
        ("an event that somebody waits for", events(QUIZ), head(kind=2) + record(1, payload(QUIZ))),
        (
            "an event with a field past the fourth",
            events(PAGE_VIEW),
            head() + record(1, payload(PAGE_VIEW, {"later": True})),
        ),
        (
            "the last sequence",
            events(BARE, first=INT64_MAX),
            head() + record(INT64_MAX, payload(BARE)),
        ),
        (
            "a farewell after three events",
            {"farewell": {"last_sequence": "3", "refused": counts}},
            farewell(3, counts),
        ),
        (
            "a farewell of one that sent nothing",
            {"farewell": {"last_sequence": "0", "refused": {}}},
            farewell(0, {}),
        ),
        (
            "a good record before a damaged one is taken",
            events(PAGE_VIEW) | {"error": "damaged record"},
            head() + one + two[:-1] + bytes([two[-1] ^ 0x80]),
        ),
    ]
    jump = payload(BARE)
    bad = [
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
        ("a farewell with a byte behind it", "damaged farewell", farewell(3, counts) + b"\0"),
        ("a farewell with an array", "damaged farewell", farewell(3, [["a", 1]])),
        ("a farewell with a negative count", "damaged farewell", farewell(3, {"malformed": -1})),
        (
            "a farewell with a cause of 33 characters",
            "damaged farewell",
            farewell(3, {"c" * 33: 1}),
        ),
    ]
    return {
        "about": f"Datagrams of the producer {id_text()}. `events`: what they hold. `error`: the"
        " reason for which a daemon refuses the datagram, or what follows the given events.",
        "producer": id_text(),
        "vectors": [{"name": name, **means, "hex": data.hex()} for name, means, data in good]
        + refused("error", bad),
    }


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
        + refused("error", bad),
    }


def names() -> Document:
    token = "0123456789abcdef" * 2
    boot = "8c2f4f6e-0a53-4e0f-8a3e-2f1f8a1d9b11"
    text = f"directory=/dev/shm/logd-1000-0011\ntoken={token}\nboot_id={boot}\n"
    meaning = {"directory": "/dev/shm/logd-1000-0011", "token": token, "boot_id": boot}
    rendezvous: list[tuple[str, str, object]] = [
        ("as the daemon writes it", text, meaning),
        ("lines of a later day", "later=1\n" + text + "more\n", meaning),
        ("no token", "directory=/dev/shm/a\n", None),
        ("a short token", f"directory=/a\ntoken={token[:31]}\n", None),
        ("a relative directory", f"directory=a\ntoken={token}\n", None),
        ("empty", "", None),
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
        "rendezvous": [
            {"name": name, "text": text, "means": means} for name, text, means in rendezvous
        ],
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
