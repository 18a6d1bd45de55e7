"""Fuzzed inputs for each parser, and the properties that hold for any input.

Each target takes bytes; anything but the parser's documented exceptions comes out of it as a
failure, and so does a broken invariant. `test_fuzz.py` feeds them from hypothesis and from the kept
inputs; as a program this module is a coverage-guided fuzzer, where the package `atheris` is there:

    python -m tests.faults.fuzzing TARGET CORPUS_DIRECTORY -max_total_time=60
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgpack

from logd.audit import anchors, checkpoint, signed_note
from logd.audit.head_signer import AnchorSignatures, HeadSigner
from logd.audit.signed_note import Verifier
from logd.batch import EXCERPT_BYTES_MAX, REASON_CHARS_MAX, Batch, Producer
from logd.config import settings
from logd.config.table import template
from logd.errors import ConfigError
from logd.ingest.ordering import Intake
from logd.ingest.outbox_reader import DamageSkip, NextRecordSearch, read_available
from logd.serve.access_messages import pack_request
from logd.serve.report_server import Reporter
from logd.storage.mentions import DEFAULT_KEYS
from logd.storage.store import Store
from logd.storage.tree_head import Head
from logd_wire.outbox.layout import HEADER_BYTES, RING_BYTES_MIN, outbox_bytes, parse_header
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.query import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, FrameError, read_frame
from logd_wire.schema import INT64_MAX, Malformed, check_props
from logd_wire.wire import (
    RECORD_HEAD,
    WireError,
    datagram_head,
    decode_farewell,
    decode_record,
    encode_farewell,
    encode_record,
    pack_payload,
    producer_seed,
    unpack_payload,
    unpack_props,
)

PRODUCER = 7
SEED = producer_seed(PRODUCER)
UID = 1001
GAP_EVENTS_MAX = 1000
TRAIL = "9f1c00112233aabb"
HEAD = Head(812, 20417, bytes(32))
HEAD_SIGNER = HeadSigner(TRAIL, bytes(range(32)))
VERIFIER = Verifier.from_vkey(HEAD_SIGNER.vkey)
ANCHOR_SIGNATURES = AnchorSignatures(bytes(range(32)))


def _intake() -> tuple[Intake, Batch]:
    def introduce(uid: int, producer_id: int) -> Producer:
        return Producer(uid, producer_id, producer_seed(producer_id))

    return Intake(introduce, GAP_EVENTS_MAX), Batch(100, 1 << 20, GAP_EVENTS_MAX)


def check_batch(batch: Batch) -> None:
    """Every item can be stored, and none is larger than its counted size."""
    for producer, sequence, event in batch.events:
        assert 1 <= sequence <= producer.taken <= INT64_MAX
        assert 0 <= event.ts_ns <= INT64_MAX
        event.type.encode()
        (event.user or "").encode()
    for refusal in batch.quarantine_entries:
        assert len(refusal.reason) <= REASON_CHARS_MAX, "a reason is short"
        assert len(refusal.excerpt) <= EXCERPT_BYTES_MAX
        refusal.reason.encode()
    for loss in batch.losses:
        assert 1 <= loss.first <= INT64_MAX
        assert loss.last is None or loss.first <= loss.last <= INT64_MAX
        assert loss.events is None or loss.events <= GAP_EVENTS_MAX


def payload(data: bytes) -> None:
    """Whatever is accepted as an event is valid, and packs to the same event again."""
    try:
        event = unpack_payload(data)
    except Malformed:
        return
    props = unpack_props(event.props)
    check_props(props)
    again = unpack_payload(
        pack_payload(msgpack.Packer(), event.type, event.ts_ns, event.user, props)
    )
    assert (again.type, again.ts_ns, again.user) == (event.type, event.ts_ns, event.user)
    assert repr(unpack_props(again.props)) == repr(props)  # as text: nan is not equal to itself


def record(data: bytes) -> None:
    """Whatever is accepted as a record equals the encoding of that record."""
    try:
        sequence, body, end = decode_record(data, 0, SEED)
    except WireError:
        return
    assert encode_record(SEED, sequence, body) == data[:end]


def datagram(data: bytes) -> None:
    """One datagram causes at most one refusal besides its events' and affects no neighbour."""
    intake, batch = _intake()
    neighbour = intake.producer(UID + 1, PRODUCER)
    intake.take_datagram(data, UID, 5, batch)
    check_batch(batch)
    numbered = [r for r in batch.quarantine_entries if r.sequence is not None]
    assert len(batch.quarantine_entries) <= len(numbered) + 1
    assert (len(batch.events) + len(numbered)) * RECORD_HEAD.size <= len(data)
    assert (neighbour.taken, neighbour.ended) == (0, False)


def sealed(data: bytes) -> None:
    """As `datagram`, with every CRC right: a fuzzer finds no CRC by itself."""
    datagram(datagram_head(PRODUCER) + b"".join(_sealed_records(data)))


def _sealed_records(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + 10 <= len(data):
        length, sequence = struct.unpack_from("<HQ", data, offset)
        offset += 10
        yield encode_record(SEED, sequence, data[offset : offset + length])
        offset += length


def farewell(data: bytes) -> None:
    """The counts of a farewell are valid, and a repeated farewell changes nothing."""
    packed = datagram_head(PRODUCER, 1) + encode_record(SEED, 5, data)
    intake, batch = _intake()
    intake.take_datagram(packed, UID, 5, batch)
    check_batch(batch)
    try:
        last, refused = decode_farewell(packed, SEED)
    except WireError:
        return
    assert last == 4
    assert decode_farewell(encode_farewell(PRODUCER, last, refused), SEED) == (last, refused)


@cache
def genuine_outbox() -> bytes:
    """A ring that has wrapped around once, with events waiting in it."""
    buffer = bytearray(outbox_bytes(RING_BYTES_MIN))
    writer = OutboxWriter(memoryview(buffer), PRODUCER, pid=1, now_ns=1)
    words = memoryview(buffer).cast("Q")
    packed = pack_payload(msgpack.Packer(), "page_view", 1, "7", {"text": "x" * 500})
    for number in range(150):
        assert writer.append(packed)
        if number < 100:
            words[16], words[17] = writer.written, writer.bytes_written
    return bytes(buffer)


def outbox(data: bytes) -> None:
    """A genuine outbox, overwritten in places, is read within bounds, and its numbers make sense.

    Input: one byte for the watermark, then patches: a 3-byte offset, a length byte, bytes.
    """
    file = bytearray(genuine_outbox())
    watermark = data[0] if data else 0
    offset = 1
    while offset + 4 <= len(data):
        at = int.from_bytes(data[offset : offset + 3], "little") % len(file)
        patch = data[offset + 4 : offset + 4 + data[offset + 3] % 64]
        file[at : at + len(patch)] = patch[: len(file) - at]
        offset += 4 + len(patch)
    bytes_read = 0

    def read_at(start: int, length: int) -> bytes:
        nonlocal bytes_read
        bytes_read += length
        return bytes(file[start : start + length])

    intake, batch = _intake()
    producer = intake.producer(UID, PRODUCER)
    producer.taken = producer.stored = watermark
    before = watermark
    with contextlib.suppress(WireError):
        header = parse_header(bytes(file[:HEADER_BYTES]), len(file))
        _finish(NextRecordSearch(producer, header, read_at), batch)
        for _ in range(4):
            if read_available(producer, header, read_at, batch, intake) is not None:
                _finish(DamageSkip(producer, header, read_at), batch)
        assert before <= producer.taken <= header.written
        assert producer.position >= 0
    assert before <= producer.taken
    check_batch(batch)
    # A search, and four times two readings and a search; each slice reads a record more.
    assert bytes_read <= 16 * 3 * len(file)


def _finish(search: NextRecordSearch | DamageSkip, batch: Batch) -> None:
    steps = 0
    while not search.step(batch, 64 * 1024):
        steps += 1
        assert steps < 10_000


def _record_access(user: str | None, /, *events: Mapping[str, Any]) -> bool:
    """Accepts what the report process would send to the daemon."""
    try:
        for props in events:
            pack_request(1, 1, user, props)
    except Malformed:
        return False
    return True


@cache
def _reporter() -> Reporter:
    directory = Path(tempfile.mkdtemp(prefix="logd-fuzz-"))
    # Stays for the life of the process, as the cached reporter does; removed by its owner's tests.
    made = Reporter.__new__(Reporter)
    text = 'database = "activity.db"\n'
    made._config = settings.parse(text, directory / "logd.toml")
    made._key = bytes(32)
    made._record_access = _record_access
    made._person_keys = DEFAULT_KEYS
    store = Store(made._config.database, made._key, 1, 100)
    intake, batch = _intake()
    for number, kind in enumerate(("page_view", "task_completed", "quiz_submitted"), start=1):
        props = {"task": 1, "quiz": 2, "score": 0.5}
        packed = pack_payload(msgpack.Packer(), kind, 10**18, "7", props)
        intake.take_datagram_record(intake.producer(UID, PRODUCER), number, packed, batch)
    store.commit(batch, 1)
    batch.mark_committed()
    store.close()
    return made


def reporter_directory() -> Path:
    """The directory of the database that the queries read."""
    return _reporter()._config.path.parent


def frame(data: bytes) -> None:
    """A stream of bytes is frames, the end, or a FrameError; a map is answered by one frame."""
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        part = data[position : position + min(length, 7 + length // 2)]
        position += len(part)
        return part

    try:
        while (message := read_frame(read, REQUEST_BYTES_MAX)) is not None:
            _answered(message)
    except FrameError:
        pass
    assert position <= len(data)


def request(data: bytes) -> None:
    """As `frame`, with the frame's length right."""
    try:
        message = msgpack.unpackb(data, strict_map_key=True) if len(data) < 2000 else None
    except (ValueError, TypeError):
        return
    if isinstance(message, dict):
        _answered({"v": 1, **message})


def _answered(message: dict[Any, Any]) -> None:
    answer = _reporter().answer(message, UID, 5)
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        position += length
        return answer[position - length : position]

    decoded = read_frame(read, RESPONSE_BYTES_MAX)
    assert decoded is not None
    assert set(decoded) in ({"ok", "rows", "next"}, {"ok", "error", "message"})
    assert decoded["ok"] is True or decoded["error"] != "database", decoded


def configuration(data: bytes) -> None:
    """A configuration is refused with ConfigError, or every one of its values can be used."""
    text = data.decode("utf-8", "replace")
    try:
        parsed = settings.parse(text, Path("/srv/logd/logd.toml"))
    except ConfigError as error:
        said = str(error)
    else:
        _usable(parsed)
        return
    assert said.startswith("/srv/logd/logd.toml")
    assert len(said) < 1000, "a message for people"


def _usable(parsed: settings.Config) -> None:
    for path in (
        parsed.database,
        parsed.key_file,
        parsed.signing_key_file,
        parsed.socket,
        parsed.outbox_directory,
    ):
        assert path.is_absolute()
        assert b"\0" not in os.fsencode(path)
    assert sum(settings.memory_parts(parsed).values()) <= parsed.memory_bytes_max


def note(data: bytes) -> None:
    """A note, its checkpoint, and a verifier key have one form each."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(ValueError):
        parsed = signed_note.parse(text)
        assert signed_note.format(parsed) == text
        VERIFIER.verify(parsed)
        text = parsed.text
    with contextlib.suppress(ValueError):
        assert checkpoint.format(checkpoint.parse(text)) == text
    with contextlib.suppress(ValueError):
        Verifier.from_vkey(text)


def anchor(data: bytes) -> None:
    """A log line that is an anchor says the same when it is written again."""
    found = anchors.parse(data.decode("utf-8", "surrogateescape"))
    if found is not None and not found.chained:
        written = anchors.format_anchor(found.head, found.trail_id, found.signature)
        assert anchors.parse(written) == found
        assert ANCHOR_SIGNATURES.is_false(found) in (False, True)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "payload": payload,
    "record": record,
    "datagram": datagram,
    "sealed": sealed,
    "farewell": farewell,
    "outbox": outbox,
    "frame": frame,
    "request": request,
    "configuration": configuration,
    "note": note,
    "anchor": anchor,
}


def begin_with(target: str) -> list[bytes]:
    """Inputs that get a fuzzer past the first checks."""
    packed = pack_payload(msgpack.Packer(), "page_view", 1, "7", {"a": [1, {"b": None}]})
    whole = datagram_head(PRODUCER) + encode_record(SEED, 1, packed)
    asked = {"v": 1, "report": "events", "params": {"limit": 5, "user": "7"}, "asked_by": "9"}
    reports = ("summary", "completions", "timeline", "losses", "score_distribution")
    body = msgpack.packb(asked)
    return {
        "payload": [packed],
        "record": [encode_record(SEED, 1, packed)],
        "datagram": [whole, encode_farewell(PRODUCER, 3, {"outbox_full": 2})],
        "sealed": [struct.pack("<HQ", len(packed), 1) + packed],
        "farewell": [msgpack.packb({"outbox_full": 2})],
        "outbox": [b"\0", b"\x65" + bytes([64, 0, 0, 8]) + (200).to_bytes(8, "little")],
        "frame": [len(body).to_bytes(4, "big") + body],
        "request": [body, *(msgpack.packb({**asked, "report": name}) for name in reports)],
        "note": [HEAD_SIGNER.note(HEAD).encode(), HEAD_SIGNER.vkey.encode()],
        "anchor": [anchors.format_anchor(HEAD, TRAIL, HEAD_SIGNER.signature(HEAD)).encode()],
        "configuration": [template().replace("# ", "").encode(), template().encode()],
    }[target]


def main() -> None:
    atheris = importlib.import_module("atheris")  # not a dependency
    target = sys.argv.pop(1)
    logging.disable()
    for number, data in enumerate(begin_with(target)):
        (Path(sys.argv[1]) / f"begin-{number}").write_bytes(data)
    modules = ("logd", "shared", "tomllib")
    for module in [sys.modules[n] for n in sorted(sys.modules) if n.split(".")[0] in modules]:
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__code__"):
                setattr(module, name, atheris.instrument_func(value))
    atheris.Setup(sys.argv, TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
