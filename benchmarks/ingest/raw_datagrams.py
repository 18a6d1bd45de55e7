"""What the kernel's part costs by itself: one process sends datagrams, one receives them.

`python -m benchmarks.ingest.raw_datagrams COUNT` sends the bytes of a site's event, packed before
the clock runs, and receives them into one kept buffer. Neither looks at them.
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
    """Processor time of both sides, in seconds for all of them."""

    sent: int
    received: int
    bytes: int  # of one
    send_cpu_s: float
    receive_cpu_s: float


def datagram() -> bytes:
    """One page view, as a client sends it."""
    page_view = next(event for event in events(0) if event[0] == "page_view")
    event_type, user, props = page_view
    payload = pack_payload(msgpack.Packer(), event_type, time.time_ns(), user, props)
    return datagram_head(_PRODUCER_ID) + encode_record(producer_seed(_PRODUCER_ID), 1, payload)


def measure(count: int) -> Raw:
    """Sends so many to a forked child, flat out: both wait for each other in the kernel."""
    data = datagram()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    said_fd, say_fd = os.pipe()
    child = os.fork()
    if child == 0:
        ours.close()
        os.write(say_fd, json.dumps(_receive(theirs, count)).encode())
        os._exit(0)
    theirs.close()
    os.close(say_fd)
    send = ours.send
    before_s = time.process_time()
    for _ in range(count):
        send(data)
    cpu_s = time.process_time() - before_s
    with open(said_fd, "rb") as pipe:
        received, receive_cpu_s = json.loads(pipe.read())
    os.waitpid(child, 0)
    ours.close()
    return Raw(count, received, len(data), cpu_s, receive_cpu_s)


def _receive(sock: socket.socket, count: int) -> tuple[int, float]:
    # The kernel's own timeout: `settimeout` would have a poll before each receive.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", RECEIVE_TIMEOUT_S, 0))
    receive, buffer = sock.recv_into, bytearray(_BUFFER_BYTES)
    received = 0
    before_s = time.process_time()
    try:
        for _ in range(count):
            receive(buffer)
            received += 1
    except OSError:
        pass  # the sums tell
    return received, time.process_time() - before_s


def main(count: str) -> None:
    """One measurement, told in one line."""
    print(MARK + json.dumps(asdict(measure(int(count)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
