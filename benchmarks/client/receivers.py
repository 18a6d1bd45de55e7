"""Processes that receive and count what the peers of `logd` send.

    python -m benchmarks.client.receivers datagrams SOCKET CONTROL

A receiver shares two words of memory with the sender, in the file CONTROL: whether it must stay
awake (never sleep in `recv`), and how many events it has received.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack

from benchmarks.harness.processes import Failed, running
from webapp.run.process import Child

READY = "receiver: ready"
RSYSLOG_READY_TIMEOUT_S = 20.0
LOOK_INTERVAL_S = 0.01
BUFFER_BYTES = 64 * 1024
# A datagram of one byte is no event: it makes the receiver read again whether to stay awake.
WAKE_UP = b"\0"

_AWAKE = 0
_RECEIVED = 1
_CONTROL_BYTES = mmap.PAGESIZE

_RSYSLOG = """\
global(workDirectory="{place}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{socket}" RateLimit.Interval="0")
action(type="omfile" file="{file}")
"""


@dataclass(frozen=True)
class Receiving:
    """A running receiver, as the sender sees it."""

    pid: int
    socket: str
    counts: str  # the file with the count, or the file whose lines are counted


class Control:
    """The two words of memory that sender and receiver share."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), _CONTROL_BYTES)).cast("Q")

    @property
    def awake(self) -> bool:
        """Whether the receiver must not sleep."""
        return self._words[_AWAKE] != 0

    @awake.setter
    def awake(self, awake: bool) -> None:
        self._words[_AWAKE] = int(awake)

    @property
    def received(self) -> int:
        """The number of events received so far."""
        return self._words[_RECEIVED]

    @received.setter
    def received(self, count: int) -> None:
        self._words[_RECEIVED] = count


def datagrams(path: str, control: Control) -> None:
    """Receive one event per datagram into a reused buffer, forever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        _print_ready()
        buffers, take, received = [bytearray(BUFFER_BYTES)], receiver.recvmsg_into, 0
        while True:
            try:
                length = take(buffers, 0, socket.MSG_DONTWAIT if control.awake else 0)[0]
            except BlockingIOError:
                continue
            if length > len(WAKE_UP):
                received += 1
                control.received = received


def stream(path: str, control: Control) -> None:
    """Receive msgpack values, each an event, over one connection after the other, forever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        _print_ready()
        buffer = bytearray(BUFFER_BYTES)
        while True:
            connection, _ = listener.accept()
            with connection:
                for events in _batches(connection, buffer, control):
                    control.received += events


def _batches(connection: socket.socket, buffer: bytearray, control: Control) -> Iterator[int]:
    """Yield, for each piece received, how many values it completes."""
    unpacker, view = msgpack.Unpacker(), memoryview(buffer)
    while True:
        try:
            length = connection.recv_into(buffer, 0, socket.MSG_DONTWAIT if control.awake else 0)
        except BlockingIOError:
            continue
        if length == 0:
            return
        unpacker.feed(view[:length])
        events = 0
        with contextlib.suppress(msgpack.OutOfData):
            while True:
                unpacker.skip()
                events += 1
        yield events


KINDS: dict[str, Callable[[str, Control], None]] = {"datagrams": datagrams, "stream": stream}


def _print_ready() -> None:
    print(READY, file=sys.stderr, flush=True)


@contextlib.contextmanager
def receiver(kind: str, place: Path, name: str) -> Iterator[Receiving]:
    """Run a receiver of that kind in a process of its own, with files in `place`. Raises Failed."""
    path, control = str(place / f"{name}.sock"), place / f"{name}.control"
    control.write_bytes(bytes(_CONTROL_BYTES))
    arguments = ["-m", "benchmarks.client.receivers", kind, path, str(control)]
    with running(f"receiver {name}", arguments) as process:
        process.wait_for_line(READY)
        yield Receiving(process.pid, path, str(control))


@contextlib.contextmanager
def rsyslog(place: Path) -> Iterator[Receiving]:
    """Run rsyslogd on a socket of its own, writing lines to a file. Raises Failed."""
    program = shutil.which("rsyslogd")
    if program is None:
        raise Failed("rsyslogd: not installed")
    path, file, config = place / "rsyslog.sock", place / "rsyslog.log", place / "rsyslog.conf"
    config.write_text(_RSYSLOG.format(place=place, socket=path, file=file))
    file.touch()
    command = [program, "-n", "-f", str(config), "-i", str(place / "rsyslog.pid")]
    child = Child("rsyslogd", command, queue.SimpleQueue(), os.environ)
    try:
        deadline_s = time.monotonic() + RSYSLOG_READY_TIMEOUT_S
        while not path.exists():
            if not child.running or time.monotonic() > deadline_s:
                child.kill()
                raise Failed("\n".join(["rsyslogd: does not start", *child.last_lines]))
            time.sleep(LOOK_INTERVAL_S)
        yield Receiving(child.pid, str(path), str(file))
    finally:
        child.kill()


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process so far, all its threads, without its children."""
    # The clock id is as clock_getcpuclockid(3) computes it.
    # The clock is exact, while /proc counts ticks. For a process that runs now it
    # has the value of the last tick: a polling receiver may seem to use no time.
    return time.clock_gettime_ns(~pid << 3 | 2)


def pin(pid: int, cores: set[int]) -> None:
    """Restrict every thread of a process to these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2], Control(sys.argv[3]))
