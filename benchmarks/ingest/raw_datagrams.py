"""Measure the kernel's share alone: one process sends datagrams, another receives them.

`python -m benchmarks.ingest.raw_datagrams COUNT` sends the bytes of a site's event, packed before
the clock starts, and receives them into one reused buffer. Neither side reads them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass

import msgpack

from benchmarks.harness.events import events
from logd_wire.wire import datagram_head, encode_record, pack_payload, producer_seed

MARK = "raw: "
_PRODUCER_ID = 1
_BUFFER_BYTES = 256 * 1024
RECEIVE_TIMEOUT_S = 30


@dataclass(frozen=True)
class Raw:
    """The CPU time of both sides, in seconds for all datagrams."""

    sent: int
    received: int
    bytes: int  # bytes of one datagram
    send_cpu_s: float
    receive_cpu_s: float


def datagram() -> bytes:
    """Return one page view as a client sends it."""
    page_view = next(event for event in events(0) if event[0] == "page_view")
    event_type, user, props = page_view
    payload = pack_payload(msgpack.Packer(), event_type, time.time_ns(), user, props)
    return datagram_head(_PRODUCER_ID) + encode_record(producer_seed(_PRODUCER_ID), 1, payload)


def measure(count: int) -> Raw:
    """Send `count` datagrams to a forked child, flat out."""
    data = datagram()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        ours.close()
        os.write(write_fd, json.dumps(_receive(theirs, count)).encode())
        os._exit(0)
    theirs.close()
    os.close(write_fd)
    send = ours.send
    before_s = time.process_time()
    for _ in range(count):
        send(data)
    cpu_s = time.process_time() - before_s
    with open(read_fd, "rb") as pipe:
        received, receive_cpu_s = json.loads(pipe.read())
    os.waitpid(child, 0)
    ours.close()
    return Raw(count, received, len(data), cpu_s, receive_cpu_s)


def _receive(sock: socket.socket, count: int) -> tuple[int, float]:
    # The kernel's time-out, since `settimeout` would add a poll before each receive.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", RECEIVE_TIMEOUT_S, 0))
    receive, buffer = sock.recv_into, bytearray(_BUFFER_BYTES)
    received = 0
    before_s = time.process_time()
    try:
        for _ in range(count):
            receive(buffer)
            received += 1
    except OSError:
        pass  # a missing datagram shows in the sums
    return received, time.process_time() - before_s


def main(count: str) -> None:
    """Run one measurement and print the result as one line."""
    print(MARK + json.dumps(asdict(measure(int(count)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
