"""Every limit of shared/PROTOCOL.md, one below, at it and one past it, on both sides."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.ingest.ordering import Intake
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.storage.database import connect
from logd.storage.migrations import migrate
from logd_wire import query, rendezvous, schema, wire
from logd_wire.outbox import layout
from logd_wire.outbox.reader import read_records
from logd_wire.paths import SOCKET_PATH_BYTES_MAX, check_socket_path
from logd_wire.query import QueryClient, QueryError
from logd_wire.schema import Malformed

SEED = wire.producer_seed(7)
PACKER = msgpack.Packer()


def taken(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        function(*arguments)
    except (ValueError, QueryError, rendezvous.NoOutbox):
        return False
    return True


def packed(event_type: str = "a", user: str | None = None, props: object = None) -> bytes:
    """Without a check, as a foreign client may."""
    return bytes(PACKER.pack([event_type, 5, user, PACKER.pack(props or {})]))


def nested(levels: int) -> dict[str, Any]:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return dict(value)


def filled(size: int) -> dict[str, str]:
    """Props whose payload has that size."""
    short = 32_000 - len(packed(props={"a": "x" * 32_000}))
    return {"a": "x" * (size + short)}


def client_takes(**fields: Any) -> bool:
    """What `Client.emit` checks, in its order."""
    with contextlib.suppress(Malformed):
        kind, user, props = fields.get("event_type", "a"), fields.get("user"), fields.get("props")
        schema.check_event_type(kind)
        schema.check_props(props or {})
        wire.pack_payload(PACKER, kind, 5, schema.check_user(user), props)
        return True
    return False


def daemon_takes(payload: bytes) -> bool:
    """As a datagram, and as a record in an outbox."""
    data = wire.datagram_head(7) + wire.encode_record(SEED, 1, payload)
    batch = Batch(10, 10**6)
    producer = Producer(uid=1, id=7, seed=SEED)
    Intake(lambda _uid, _id: producer, 10).take_datagram(data, 1, 1, batch)
    ring = bytes(layout.HEADER_BYTES) + data[16:].ljust(layout.RING_BYTES_MIN, b"\0")
    page = read_records(
        lambda offset, length: ring[offset : offset + length],
        layout.RING_BYTES_MIN, SEED, 0, after=0, written=1, bytes_max=10**6,
    )  # fmt: skip
    from_ring = bool(page.payloads) and taken(wire.unpack_payload, page.payloads[0])
    assert bool(batch.events) == from_ring
    return from_ring


EVENT_LIMITS: dict[str, tuple[int, Callable[[int], dict[str, Any]]]] = {
    "characters of a type": (schema.EVENT_TYPE_CHARS_MAX, lambda n: {"event_type": "a" * n}),
    "bytes of a user": (schema.USER_BYTES_MAX, lambda n: {"user": "é" * (n // 2) + "u" * (n % 2)}),
    "levels of props": (schema.PROPS_DEPTH_MAX, lambda n: {"props": nested(n)}),
    "bytes of a payload": (schema.PAYLOAD_BYTES_MAX, lambda n: {"props": filled(n)}),
}


@pytest.mark.parametrize("limit", EVENT_LIMITS)
@pytest.mark.parametrize("past", [-1, 0, 1])
def test_an_events_limit_is_the_same_for_client_and_daemon(limit: str, past: int) -> None:
    at, fields = EVENT_LIMITS[limit]
    event = fields(at + past)
    if limit == "bytes of a payload":
        assert len(packed(**event)) == at + past
    assert client_takes(**event) == daemon_takes(packed(**event)) == (past <= 0)


@pytest.mark.parametrize("past", [-1, 0, 1])
def test_asked_by_is_bounded_as_a_user_is(directory: Path, past: int) -> None:
    asked_by = "u" * (schema.USER_BYTES_MAX + past)
    client = QueryClient(str(directory / "q"))
    with pytest.raises(QueryError) as refused:
        client.ask("summary", asked_by=asked_by)
    assert refused.value.code == ("bad_parameter" if past > 0 else "unavailable")


def head_of(**words: int) -> bytes:
    page = bytearray(layout.HEADER_BYTES)
    view = memoryview(page).cast("Q")
    layout.initialise(view, 7, words.pop("ring_bytes", layout.RING_BYTES_MIN), 1, 1)
    for name, value in words.items():
        view[getattr(layout, f"WORD_{name.upper()}")] = value
    return bytes(page)


def parses(page: bytes) -> bool:
    size = layout.HEADER_BYTES + memoryview(page).cast("Q")[layout.WORD_RING_BYTES]
    return taken(layout.parse_header, page, size)


def farewell(**of: int) -> bytes:
    causes = {f"{n:0{of.get('chars', 2)}}": of.get("count", 1) for n in range(of.get("causes", 1))}
    return wire.encode_farewell(7, 5, causes)


def record_of(sequence: int) -> bytes:
    crc = zlib.crc32(struct.pack("<Q", sequence) + b"x", SEED)
    return struct.pack("<IIQ", 1, crc, sequence) + b"x"


def frame(size: int) -> bytes:
    body = b"\x81\xa1a\xc6" + struct.pack(">I", size - 8) + bytes(size - 8)
    return struct.pack("!I", size) + body


def intake_takes(data: bytes) -> bool:
    batch = Batch(10, 10**6)
    producer = Producer(uid=1, id=7, seed=SEED)
    Intake(lambda _uid, _id: producer, 10).take_datagram(data.ljust(20, b"\0"), 1, 1, batch)
    return not batch.quarantine_entries or "oversize" not in batch.quarantine_entries[0].reason


OTHER_LIMITS: dict[str, tuple[int, int, int, Callable[[int], bool]]] = {
    # The highest, from which on (1 less), a step, and whether it is taken.
    "a sequence": (
        wire.SEQUENCE_MAX, 1, 1, lambda n: taken(wire.decode_record, record_of(n), 0, SEED),
    ),
    "bytes of a datagram": (wire.DATAGRAM_BYTES_MAX, 1, 1, lambda n: intake_takes(bytes(n))),
    "written in a header": (wire.SEQUENCE_MAX, 0, 1, lambda n: parses(head_of(written=n))),
    "bytes of a ring": (
        layout.RING_BYTES_MAX, layout.RING_BYTES_MIN, 8, lambda n: parses(head_of(ring_bytes=n)),
    ),
    "causes in a farewell": (
        16, 0, 1, lambda n: taken(wire.decode_farewell, farewell(causes=n), SEED),
    ),
    "characters of a cause": (
        32, 1, 1, lambda n: taken(wire.decode_farewell, farewell(chars=n), SEED),
    ),
    "a count of refusals": (
        2**63 - 1, 0, 1, lambda n: taken(wire.decode_farewell, farewell(count=n), SEED),
    ),
    "bytes of a socket's path": (
        SOCKET_PATH_BYTES_MAX, 1, 1, lambda n: taken(check_socket_path, "/" * n),
    ),
    "bytes of a request": (
        query.REQUEST_BYTES_MAX, 10, 1,
        lambda n: taken(query.read_frame, io.BytesIO(frame(n)).read, query.REQUEST_BYTES_MAX),
    ),
    "bytes of a response": (
        query.RESPONSE_BYTES_MAX, 10, 1,
        lambda n: taken(query.encode_frame, {"a": b"x" * (n - 8)}),
    ),
    "a time in nanoseconds": (2**63 - 1, 0, 1, lambda n: taken(schema.check_ts_ns, n)),
}  # fmt: skip


@pytest.mark.parametrize("limit", OTHER_LIMITS)
def test_a_limit_is_where_the_page_has_it(limit: str) -> None:
    highest, lowest, step, takes = OTHER_LIMITS[limit]
    assert [takes(highest + by * step) for by in (-1, 0, 1)] == [True, True, False]
    assert takes(lowest)
    if lowest:
        assert lowest <= 10 or not takes(lowest - step)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Any:
    connection = connect(tmp_path_factory.mktemp("limits") / "a.db", bytes(32))
    migrate(connection, now_ns=1)
    yield connection
    connection.close()


PARAMETER_LIMITS: dict[str, tuple[str, int, Callable[[int], dict[str, Any]]]] = {
    "days": ("daily_activity", 3_699, lambda n: {"since_day": 1, "until_day": 1 + n}),
    "rows": ("events", 200, lambda n: {"limit": n}),
    "users": ("daily_activity", 1_000,
              lambda n: {"since_day": 1, "until_day": 2, "users": ["u"] * n}),
    "subjects": ("completions", 1_000, lambda n: {"subjects": ["s"] * n}),
    "parts": ("score_distribution", 100, lambda n: {"buckets": n}),
}  # fmt: skip


@pytest.mark.parametrize("limit", PARAMETER_LIMITS)
@pytest.mark.parametrize("past", [-1, 0, 1])
def test_a_parameters_limit_is_the_one_in_its_message(limit: str, past: int, database: Any) -> None:
    report, at, parameters = PARAMETER_LIMITS[limit]
    if past <= 0:
        REPORTS[report].run(database, Parameters(parameters(at + past)))
        return
    with pytest.raises(QueryError) as refused:
        REPORTS[report].run(database, Parameters(parameters(at + past)))
    assert str(at) in str(refused.value)


@pytest.mark.parametrize("past", [-1, 0, 1])
def test_a_request_that_is_too_long_is_not_sent_and_named(directory: Path, past: int) -> None:
    client = QueryClient(str(directory / "q"))
    request = {"v": 1, "report": "timeline", "asked_by": None, "params": {"user": "x" * 65_000}}
    short = query.REQUEST_BYTES_MAX - len(msgpack.packb(request))
    with pytest.raises(QueryError) as refused:
        client.ask("timeline", user="x" * (65_000 + short + past))
    assert refused.value.code == ("bad_request" if past > 0 else "unavailable")
