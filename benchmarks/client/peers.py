"""The peers that `logd` is compared with, each called as its own users call it.

A peer runs in the sending process. Its `call` logs the event once and returns whether it was
accepted; its `received` counts what has arrived at the receiver.
"""

from __future__ import annotations

import importlib.util
import logging
import logging.handlers
import queue
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

import msgpack

from benchmarks.client.receivers import WAKE_UP, Control, Receiving, cpu_ns
from logd_client import Client
from logd_wire.wire import datagram_head, encode_record, pack_payload, producer_seed

EVENT_TYPE = "page_view"
USER = "7"
PROPS: dict[str, Any] = {"route": "/lesson/<int:lesson>", "method": "GET", "status": 200}
FLUSH_TIMEOUT_S = 60.0
# Seconds without an event after which a receiver counts as having received everything.
STILL_S = 0.2
LOOK_INTERVAL_S = 0.001
RING_BYTES = 8 * 1024 * 1024
_PRODUCER_ID = 7


@dataclass(frozen=True)
class Kind:
    """A kind of peer: its label, its receiver and its requirements.

    `receiver` is a kind of `receivers`, "logd", "rsyslog", "file" (written by a thread of the
    sender) or "" for none. `module` and `program` must be installed; `brings` names the package
    that has them.
    """

    label: str
    receiver: str
    module: str = ""
    program: str = ""
    brings: str = ""
    is_peer: bool = True

    @property
    def can_be_awake(self) -> bool:
        """Whether this kind's receiver can be kept awake."""
        return self.receiver in ("datagrams", "stream")

    @property
    def works_in_sender(self) -> bool:
        """Whether a thread of the sending process continues after the call."""
        return self.receiver == "file" or self.module == "fluent.asyncsender"

    def missing(self) -> str | None:
        """Return what is not installed and how to install it; None if nothing is missing."""
        if self.program and shutil.which(self.program) is None:
            return f"{self.label}: {self.program} is not installed; `{self.brings}` brings it"
        package = self.module.partition(".")[0]
        if package and importlib.util.find_spec(package) is None:
            return f"{self.label}: not installed; `{self.brings}` brings it"
        return None


_FLUENT = "pip install fluent-logger"
KINDS: Mapping[str, Kind] = {
    "logd": Kind("logd", "logd", is_peer=False),
    "raw": Kind("raw send, same bytes", "datagrams", is_peer=False),
    "noop": Kind("pack, CRC, copy: no system call", "", is_peer=False),
    "syslog": Kind("SysLogHandler", "datagrams"),
    "rsyslog": Kind(
        "SysLogHandler, rsyslogd", "rsyslog", program="rsyslogd", brings="apt-get install rsyslog"
    ),
    "queue": Kind("QueueHandler to a file", "file"),
    "picologging": Kind(
        "picologging's QueueHandler", "file", module="picologging", brings="pip install picologging"
    ),
    "fluent": Kind("fluent-logger", "stream", module="fluent.sender", brings=_FLUENT),
    "fluent-async": Kind(
        "fluent-logger, asyncsender", "stream", module="fluent.asyncsender", brings=_FLUENT
    ),
    "datadog": Kind(
        "datadog, DogStatsD event", "datagrams", module="datadog", brings="pip install datadog"
    ),
}


@dataclass
class Peer:
    """A peer ready to be called."""

    name: str
    call: Callable[[], bool]
    received: Callable[[], int]
    pid: int | None = None  # process id of the receiver, if it is another process
    control: Control | None = None
    wake_up: Callable[[], None] = field(default=lambda: None)
    wait: Callable[[], bool] | None = None  # the driver waits until all events are stored
    stats: Callable[[], Mapping[str, Any]] | None = None
    close: Callable[[], None] = field(default=lambda: None)

    def set_awake(self, awake: bool) -> None:
        """Make the receiver sleep in `recv`, or never."""
        if self.control is not None and self.control.awake != awake:
            self.control.awake = awake
            self.wake_up()

    def receiver_cpu_ns(self) -> int:
        """Return the CPU time of the receiving process so far; 0 without one."""
        return 0 if self.pid is None else cpu_ns(self.pid)

    def drain(self, expected: int) -> None:
        """Wait until `expected` events have arrived, or until nothing arrives for a while."""
        if self.wait is not None:
            self.wait()
            return
        seen, since_s = self.received(), time.monotonic()
        while seen < expected and time.monotonic() - since_s < STILL_S:
            time.sleep(LOOK_INTERVAL_S)
            if (now := self.received()) != seen:
                seen, since_s = now, time.monotonic()


def make(name: str, place: Path, receiving: Receiving | None) -> Peer:
    """Make the peer called `name`, with its files in `place`."""
    if receiving is None:
        return _noop() if name == "noop" else _MAKE_WITH_FILE[name](place / f"{name}.log")
    return _MAKE[name](receiving)


def datagram() -> bytes:
    """Return the datagram of the event, as a client sends it."""
    payload = pack_payload(msgpack.Packer(), EVENT_TYPE, time.time_ns(), USER, PROPS)
    return datagram_head(_PRODUCER_ID) + encode_record(producer_seed(_PRODUCER_ID), 1, payload)


def _logd(receiving: Receiving) -> Peer:
    client = Client(receiving.socket)
    emit = client.emit

    def call() -> bool:
        return emit(EVENT_TYPE, user=USER, props=PROPS)

    return Peer(
        "logd",
        call,
        lambda: int(client.stats()["confirmed"]),
        receiving.pid,
        wait=lambda: client.flush(FLUSH_TIMEOUT_S),
        stats=client.stats,
        close=client.close,
    )


def _raw(receiving: Receiving) -> Peer:
    sender = _connected(receiving.socket)
    sender.setblocking(False)
    send, same_bytes = sender.send, datagram()

    def call() -> bool:
        try:
            send(same_bytes)
        except BlockingIOError:
            return False
        return True

    return _counted("raw", call, receiving, sender.close)


def _connected(path: str) -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(path)
    return sender


def _counted(
    name: str, call: Callable[[], bool], receiving: Receiving, close: Callable[[], None]
) -> Peer:
    """Make a peer with a receiver of this package. A stream's next event is a wake-up."""
    control = Control(receiving.counts)

    def wake_up() -> None:
        with _connected(receiving.socket) as sender:
            sender.send(WAKE_UP)

    return Peer(
        name,
        call,
        lambda: control.received,
        receiving.pid,
        control,
        wake_up if KINDS[name].receiver == "datagrams" else lambda: None,
        close=close,
    )


def _noop() -> Peer:
    """Make the peer with the least work of any client: pack, CRC, copy; no system call.

    Its memory is as large as an outbox, so that the caches are as cold.
    """
    pack, ring, clock_ns = msgpack.Packer().pack, bytearray(RING_BYTES), time.time_ns
    offset = 0

    def call() -> bool:
        nonlocal offset
        payload = pack((EVENT_TYPE, clock_ns(), USER, pack(PROPS)))
        record = crc32(payload).to_bytes(4, "little") + payload
        end = offset + len(record)
        if end > RING_BYTES:
            offset, end = 0, len(record)
        ring[offset:end] = record
        offset = end
        return True

    return Peer("noop", call, lambda: 0)


_MESSAGE = f"{EVENT_TYPE} user=%s route=%s method=%s status=%d"
_FIELDS = (USER, *PROPS.values())


def _logger(name: str, handler: logging.Handler) -> Callable[[], bool]:
    """Return a call that logs one line with the standard library."""
    logger = logging.getLogger(f"benchmarks.client.peers.{name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    info = logger.info

    def call() -> bool:
        info(_MESSAGE, *_FIELDS)
        return True

    return call


def _syslog(receiving: Receiving) -> Peer:
    handler = logging.handlers.SysLogHandler(address=receiving.socket)
    return _counted("syslog", _logger("syslog", handler), receiving, handler.close)


def _rsyslog(receiving: Receiving) -> Peer:
    handler = logging.handlers.SysLogHandler(address=receiving.socket)
    lines = _Lines(Path(receiving.counts))
    call = _logger("rsyslog", handler)
    return Peer("rsyslog", call, lines.count, receiving.pid, close=handler.close)


class _Lines:
    """Counts the lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lines = 0

    def count(self) -> int:
        self._lines += self._file.read().count(b"\n")
        return self._lines


def _queue(path: Path) -> Peer:
    events: queue.Queue[Any] = queue.Queue(-1)
    file = logging.FileHandler(path)
    listener = logging.handlers.QueueListener(events, file)
    listener.start()
    call = _logger("queue", logging.handlers.QueueHandler(events))
    return Peer("queue", call, _Lines(path).count, close=listener.stop)


def _picologging(path: Path) -> Peer:
    picologging = import_module("picologging")
    handlers = import_module("picologging.handlers")
    events: queue.Queue[Any] = queue.Queue(-1)
    listener = handlers.QueueListener(events, picologging.FileHandler(str(path)))
    listener.start()
    logger = picologging.Logger("benchmarks", picologging.INFO)
    logger.addHandler(handlers.QueueHandler(events))
    info = logger.info

    def call() -> bool:
        info(_MESSAGE, *_FIELDS)
        return True

    return Peer("picologging", call, _Lines(path).count, close=listener.stop)


def _fluent(name: str, receiving: Receiving) -> Peer:
    sender = import_module(KINDS[name].module).FluentSender(
        "site", host=f"unix://{receiving.socket}"
    )
    emit, data = sender.emit, {"user": USER, **PROPS}

    def call() -> bool:
        taken: bool = emit(EVENT_TYPE, data)
        return taken

    return _counted(name, call, receiving, sender.close)


def _datadog(receiving: Receiving) -> Peer:
    base = import_module("datadog.dogstatsd.base")
    # The telemetry is never flushed, since a flush would reset its counter of drops.
    client = base.DogStatsd(socket_path=receiving.socket, telemetry_min_flush_interval=10**9)
    event = client.event
    tags = [f"user:{USER}", *(f"{key}:{value}" for key, value in PROPS.items())]

    def call() -> bool:
        dropped = client.packets_dropped_writer
        event(EVENT_TYPE, EVENT_TYPE, tags=tags)
        return bool(client.packets_dropped_writer == dropped)

    return _counted("datadog", call, receiving, client.close_socket)


_MAKE: Mapping[str, Callable[[Receiving], Peer]] = {
    "logd": _logd,
    "raw": _raw,
    "syslog": _syslog,
    "rsyslog": _rsyslog,
    "fluent": partial(_fluent, "fluent"),
    "fluent-async": partial(_fluent, "fluent-async"),
    "datadog": _datadog,
}
_MAKE_WITH_FILE: Mapping[str, Callable[[Path], Peer]] = {
    "queue": _queue,
    "picologging": _picologging,
}
