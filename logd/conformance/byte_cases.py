"""Cases about encoding: test vectors, events that must be refused, text, sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack

import logd_wire
from logd.conformance.daemon_double import Box, event_of
from logd.conformance.driver_protocol import hexadecimal, parse_hex
from logd.conformance.scene import PAD_MIN, TYPE, Scene
from logd.conformance.verdicts import NotTried, expect
from logd_wire.outbox.layout import REFUSAL_CAUSES, REFUSED_MALFORMED, WORD_REFUSED
from logd_wire.schema import (
    EVENT_TYPE_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    RESERVED_TYPES,
    USER_BYTES_MAX,
    Malformed,
    check_event_type,
    check_user,
)
from logd_wire.wire import DATAGRAM_HEAD, RECORD_HEAD, unpack_props

_FORMATS = Path(logd_wire.__file__ or "").parent
# The vectors are inside the installed package; in a source tree they are beside it, in `shared`.
_PLACES = (_FORMATS / "vectors", _FORMATS.parent / "vectors")
VECTORS = next(path for path in _PLACES if (path / "records.json").exists())
Vector = dict[str, Any]


def vectors(name: str) -> list[Vector]:
    """Returns the test vectors of a file."""
    found: list[Vector] = json.loads((VECTORS / name).read_text(encoding="utf-8"))["vectors"]
    return found


def payload_vectors(scene: Scene) -> None:
    """The client packs the events of payloads.json into payloads that mean the same."""
    driver = scene.start_driver()
    given = 0
    good = [vector for vector in vectors("payloads.json") if _is_writable(vector)]
    for vector in good:
        expected = event_of(bytes.fromhex(vector["hex"]))
        user = None if expected.user is None else expected.user.encode()
        words = (
            hexadecimal(expected.type.encode()),
            hexadecimal(user),
            str(expected.ts_ns),
            hexadecimal(expected.props),
        )
        try:
            answer = parse_hex(driver.ask(f"payload {' '.join(words)}"))
        except NotTried:
            continue
        given += 1
        expect(answer is not None, f"payloads.json, {vector['name']!r}: refused")
        assert answer is not None
        found = event_of(answer)
        expect(
            (found[:3], unpack_props(found.props)) == (expected[:3], unpack_props(expected.props)),
            f"payloads.json, {vector['name']!r}: packed as {answer.hex()}, which reads as {found}",
        )
    _note_what_was_left(scene, "payload", given, len(good))


def _is_writable(vector: Vector) -> bool:
    """Returns whether a client may write the event of a vector: a daemon accepts more than that."""
    try:
        event = vector["event"]
        check_event_type(event["type"])
        check_user(event["user"])
    except (KeyError, Malformed):
        return False
    return True


def _note_what_was_left(scene: Scene, command: str, given: int, there: int) -> None:
    if not given:
        raise NotTried(f"the driver does not support `{command}`")
    if given < there:
        scene.notes.append(f"{there - given} of {there} events cannot be given to this client")


def record_vectors(scene: Scene) -> None:
    """The client makes the records of records.json, byte for byte."""
    driver = scene.start_driver()
    for vector in vectors("records.json"):
        if "error" in vector:
            continue
        words = (vector["producer"], vector["sequence"], vector["payload"] or ".")
        _compare("records.json", vector, driver.ask(f"record {' '.join(words)}"), vector["hex"])


def datagram_vectors(scene: Scene) -> None:
    """The client makes the datagrams of one record in datagrams.json, byte for byte."""
    driver = scene.start_driver()
    for vector in vectors("datagrams.json"):
        data = bytes.fromhex(vector["hex"])
        one = len(vector.get("events", [])) == 1 or "farewell" in vector
        if "error" in vector or not one:
            continue
        _magic, _version, kind, _zeros, producer = DATAGRAM_HEAD.unpack_from(data)
        _length, _crc, sequence = RECORD_HEAD.unpack_from(data, DATAGRAM_HEAD.size)
        payload = data[DATAGRAM_HEAD.size + RECORD_HEAD.size :]
        words = (f"{producer:016x}", str(kind), str(sequence), hexadecimal(payload))
        answer = driver.ask(f"datagram {' '.join(words)}")
        _compare("datagrams.json", vector, answer, vector["hex"])


def _compare(file: str, vector: Vector, answer: str, expected: str) -> None:
    found = parse_hex(answer)
    expect(
        found is not None and found.hex() == expected,
        f"{file}, {vector['name']!r}: expected {expected}, got {answer}",
    )


def refusals(scene: Scene) -> None:
    """Events that break the schema are refused, counted, and use up no sequence."""
    box = scene.open_with_any()
    given = refused = changed = 0
    for what, event_type, user, props in _malformed():
        try:
            accepted = scene.event(event_type, user, props)
        except NotTried:
            continue
        given += 1
        if accepted:
            changed += 1
            _expect_changed(_last_payload(scene, box), what, event_type, user, props)
        else:
            refused += 1
    _note_what_was_left(scene, "event", given, len(_malformed()))
    if changed:
        scene.notes.append(f"{changed} events were accepted with invalid props replaced")
    scene.must_emit(why="after refused events a valid one was refused")
    if box is None:
        return
    box.read()
    expect(
        box.records[-1].sequence == 2 + changed,
        f"after {refused} refused events the next one has sequence {box.records[-1].sequence}, "
        f"not {2 + changed}",
    )
    word = WORD_REFUSED + REFUSAL_CAUSES.index(REFUSED_MALFORMED)
    expect(
        box.word(word) == refused,
        f"{refused} events were refused as malformed, but word {word} counts {box.word(word)}",
        "Outbox",
    )


def _last_payload(scene: Scene, box: Box | None) -> bytes:
    """Returns the payload of the last event, from the outbox or a datagram."""
    if box is not None:
        found = box.read()
    else:
        found = [record for datagram in scene.daemon.datagrams() for record in datagram.records]
    expect(found, "an event was accepted, and neither written nor sent", "Writing an event")
    return found[-1].payload


def _expect_changed(
    payload: bytes, what: str, event_type: bytes, user: bytes | None, props: bytes
) -> None:
    """Raises Failed unless the client changed the event's invalid props, and nothing else."""
    event = event_of(payload)
    same = event.type.encode() == event_type and (event.user or "").encode() == (user or b"")
    expect(
        same and event.props != props,
        f"an event with {what} was accepted, and written with props {event.props.hex()}",
    )


def _malformed() -> list[tuple[str, bytes, bytes | None, bytes]]:
    """Returns malformed events, each with a description of its fault, its type, user and props."""
    good = TYPE.encode()
    deep = b"\x81\xa1a" * 17 + b"\xc0"
    found: list[tuple[str, bytes, bytes | None, bytes]] = [
        *(("a type of logd's own", own.encode(), None, b"\x80") for own in sorted(RESERVED_TYPES)),
        ("a type that begins with a digit", b"1st", None, b"\x80"),
        (f"a type of {EVENT_TYPE_CHARS_MAX + 1} letters", b"t" * 65, None, b"\x80"),
        ("a type with a space", b"a b", None, b"\x80"),
        ("a type that ends with a dot", b"order.", None, b"\x80"),
        ("a type with two dots", b"order..paid", None, b"\x80"),
        ("a type with a dot and a hyphen", b"order.-paid", None, b"\x80"),
        ("a line end in the user", good, b"a\nb", b"\x80"),
        ("a control character of two bytes in the user", good, "a\u0085b".encode(), b"\x80"),
        ("a user over the limit", good, b"u" * (USER_BYTES_MAX + 1), b"\x80"),
        ("a user of bad UTF-8", good, b"\xff\xfe", b"\x80"),
        ("a user with half a surrogate", good, b"\xed\xa0\x80", b"\x80"),
        ("a user in overlong UTF-8", good, b"\xc0\xaf", b"\x80"),
        ("a text of bad UTF-8 in props", good, None, b"\x81\xa1a\xa2\xc3\x28"),
        ("a key of bad UTF-8 in props", good, None, b"\x81\xa1\xff\x01"),
        ("a key twice in props", good, None, b"\x82\xa1a\x01\xa1a\x02"),
        ("props 17 levels deep", good, None, deep),
        ("an extension type in props", good, None, b"\x81\xa1a\xd4\x05\x00"),
    ]
    for vector in vectors("payloads.json"):
        if "malformed" not in vector:
            continue
        try:
            fields = msgpack.unpackb(bytes.fromhex(vector["hex"]), strict_map_key=False)
        except (ValueError, TypeError):
            continue  # no client can write this payload, so leave it out
        if type(fields) is not list or len(fields) != 4:
            continue
        event_type, ts_ns, user, props = fields
        texts = type(event_type) is str and (user is None or type(user) is str)
        if texts and type(props) is bytes and type(ts_ns) is int and 0 <= ts_ns < 2**63:
            encoded = None if user is None else user.encode()
            found.append((vector["name"], event_type.encode(), encoded, props))
    return found


TEXTS = {
    "characters next to control characters": "\xa0",
    "two bytes": "zoë",
    "three bytes": "学生",
    "four bytes": "\U0001f600\U0001d4b3",
    "combining characters": "e\u0301o\u0308",
    "right to left": "\u05e9\u05dc\u05d5\u05dd",
    "a noncharacter": "\uffff",
    "quotes and backslashes": "\"\\'",
}


def text(scene: Scene) -> None:
    """Users and properties in any script arrive byte for byte."""
    box = scene.open_with_any()
    for what, value in TEXTS.items():
        props = msgpack.packb({"n": 0, value: value})
        expect(
            scene.event(TYPE.encode(), value.encode(), props),
            f"an event with {what} as user and in props was refused",
        )
        event = event_of(_last_payload(scene, box))
        expect(
            (event.user, unpack_props(event.props)) == (value, {"n": 0, value: value}),
            f"{what}: {value!r} arrived as user {event.user!r}, props {unpack_props(event.props)}",
        )


def sizes(scene: Scene) -> None:
    """A payload at the limit is accepted, one byte more is refused."""
    box = scene.open_with_outbox()
    overhead = scene.record_overhead(box) - RECORD_HEAD.size
    longest = PAYLOAD_BYTES_MAX - overhead
    scene.must_emit(longest, f"a payload of {PAYLOAD_BYTES_MAX} bytes was refused")
    box.confirm()
    written = len(box.records[-1].payload)
    expect(written == PAYLOAD_BYTES_MAX, f"a payload of {written} bytes: expected the limit")
    expect(not scene.emit(longest + 1), f"a payload of {PAYLOAD_BYTES_MAX + 1} bytes was accepted")
    expect(not scene.emit(200_000), "a payload of 200,000 bytes was accepted")
    scene.must_emit(PAD_MIN, "after events over the limit a valid one was refused")
    for what, event_type, user in (
        ("a type at the limit", b"t" * EVENT_TYPE_CHARS_MAX, None),
        ("a user at the limit", TYPE.encode(), b"u" * USER_BYTES_MAX),
    ):
        try:
            expect(scene.event(event_type, user, b"\x81\xa1n\x01"), f"{what} was refused")
        except NotTried:
            scene.notes.append("lengths of type and user: the driver does not support `event`")
            return
    box.read()
