"""Messages by which the report process has the daemon store access events (pure).

    request  number u64 | the event's payload, as a client packs it (`logd_wire.wire`)
    answer   number u64 | u8: 1 if the event is on disk, 0 if it cannot be stored now

Each is one message of a socket that keeps messages apart.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import msgpack

from logd_wire.schema import PAYLOAD_BYTES_MAX, REPORT_READ, Malformed
from logd_wire.wire import Event, pack_payload, unpack_payload

_NUMBER = struct.Struct("<Q")
ANSWER = struct.Struct("<Q?")
REQUEST_BYTES_MAX = _NUMBER.size + PAYLOAD_BYTES_MAX


def pack_request(number: int, ts_ns: int, user: str | None, props: Mapping[str, Any]) -> bytes:
    """Packs the request to store a reading. Raises Malformed if the daemon would refuse it."""
    request = _NUMBER.pack(number) + pack_payload(msgpack.Packer(), REPORT_READ, ts_ns, user, props)
    unpack_request(request)
    return request


def unpack_request(request: bytes) -> tuple[int, Event]:
    """Returns the number and the event in a request. Raises Malformed."""
    if not _NUMBER.size < len(request) <= REQUEST_BYTES_MAX:
        raise Malformed("the length is not a request's")
    event = unpack_payload(request[_NUMBER.size :], (REPORT_READ,))
    if event.type != REPORT_READ:
        raise Malformed(f"event type {event.type}: expected {REPORT_READ}")
    return _NUMBER.unpack_from(request)[0], event
