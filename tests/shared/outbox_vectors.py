"""The vectors of outboxes: the bytes of the file after each step."""

from __future__ import annotations

import struct

from tests.shared.independent_encoder import (
    BARE,
    PAGE_VIEW,
    PRODUCER,
    QUIZ,
    Document,
    id_text,
    msgpack,
    payload,
    record,
)

RING_BYTES = 64 * 1024

Runs = list[tuple[bytes, int]]  # bytes, and how often they are repeated


def outboxes() -> Document:
    return {
        "about": "Outbox files of a little-endian machine after the given steps. A step appends a"
        " payload, given as runs of [hex, times]; or confirms (the daemon's two words), counts"
        " refusals of a cause, or says farewell. `words`: the header's 8-byte words that are not"
        " zero, by index, in hexadecimal. `ring`: its bytes, as runs from offset 0 of the ring, and"
        " zeros behind them. An append that finds no room is `refused`.",
        "vectors": [_first_events(), _wrap_around(), _full()],
    }


def _runs_bytes(runs: Runs) -> bytes:
    return b"".join(part * times for part, times in runs)


def _runs_text(runs: Runs) -> list[list[object]]:
    return [[part.hex(), times] for part, times in runs if part and times]


def _large(length: int, fill: bytes) -> Runs:
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


# The header's words by name: their indices, and the value of each word that is always written.
_WORDS = {
    "magic": (0, struct.unpack("<Q", b"LGDOUTBX")[0]),
    "version": (1, 1),
    "producer": (2, PRODUCER),
    "ring_bytes": (3, RING_BYTES),
    "pid": (4, 4242),
    "created_ns": (5, 1760000000000000000),
    "written": (8, 0),
    "farewell": (9, 0),
    "confirmed_sequence": (16, 0),
    "confirmed_position": (17, 0),
    "refused_malformed": (24, 0),
    "refused_outbox_full": (25, 0),
}


def _words(given: dict[str, int]) -> dict[str, str]:
    values = {index: given.get(name, always) for name, (index, always) in _WORDS.items()}
    return {str(index): f"{value:016x}" for index, value in values.items() if value}


def _outbox(
    name: str,
    steps: list[Document],
    ring: Runs,
    payloads: list[Runs],
    **words: int,
) -> Document:
    return {
        "name": name,
        "producer": id_text(),
        "ring_bytes": RING_BYTES,
        "pid": 4242,
        "created_ns": "1760000000000000000",
        "steps": steps,
        "words": _words(words),
        "ring": _runs_text(ring),
        # What a reader finds from the confirmed position on.
        "readable": [_runs_text(runs) for runs in payloads],
    }


def _append(runs: Runs, **further: object) -> Document:
    return {"append": _runs_text(runs), **further}


def _first_events() -> Document:
    payloads = [[(payload(event), 1)] for event in (PAGE_VIEW, BARE, QUIZ)]
    ring = b""
    for sequence, runs in enumerate(payloads, start=1):
        ring += record(sequence, _runs_bytes(runs))
        ring += bytes(-len(ring) % 8)
    steps = [_append(runs) for runs in payloads]
    steps += [{"count": ["malformed", 2]}, {"farewell": True}]
    return _outbox(
        "three events, two refusals, a farewell", steps, [(ring, 1)], payloads,
        written=3, farewell=1, refused_malformed=2,
    )  # fmt: skip


def _record_runs(sequence: int, runs: Runs) -> Runs:
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
    return _outbox(
        "a record around the ring's end", steps, ring, [second, third],
        written=3, confirmed_sequence=1, confirmed_position=32760,
    )  # fmt: skip


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
    return _outbox(
        "full to the last byte", steps, ring, [first, second], written=2, refused_outbox_full=1
    )
