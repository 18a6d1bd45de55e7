"""Neighbours of the daemon, good and hostile, as processes under users of their own.

    python -m tests.faults.neighbours KIND UID SOCKET COUNTS SEED EVENTS

Each kind but `good` goes on until it is killed. What the kernel took of its events is counted in
the file COUNTS, in memory that outlives the process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgpack

from logd_client import Client
from logd_wire.outbox.layout import WORD_WRITTEN, outbox_bytes
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.rendezvous import read_rendezvous
from logd_wire.wire import (
    DATAGRAM_BYTES_MAX,
    DATAGRAM_HEAD,
    KIND_AWAITED,
    datagram_head,
    encode_farewell,
    encode_record,
    pack_payload,
    producer_seed,
)
from tests.faults.strangers import become_user
from tests.support import client_parts as parts
from tests.support.counter_file import CounterFile, attach
from tests.support.instance import DEADLINE_S, Instance, Process

HOSTILE_UID = 65534
GOOD_UID = 1001
# What a sender with the default SO_SNDBUF can send at most.
LARGEST_BYTES = 212_992 - 32

Datagram = tuple[bytes, int]  # with the number of events in it that logd has to account for


def datagram(producer_id: int, sequence: int, payload: bytes | None = None) -> bytes:
    """One event as a client without an outbox sends it."""
    payload = payload or pack_payload(msgpack.Packer(), "page_view", 1, "7", None)
    record = encode_record(producer_seed(producer_id), sequence, payload)
    return datagram_head(producer_id) + record


def garbage(rng: random.Random, _events: int) -> Iterator[Datagram]:
    """Noise of all lengths, most of it with a head that looks right."""
    while True:
        head = datagram_head(rng.getrandbits(64)) if rng.random() < 0.8 else b""
        yield head + rng.randbytes(rng.randrange(1, 2000)), 0


def largest(rng: random.Random, _events: int) -> Iterator[Datagram]:
    """Datagrams of the largest size: noise, and records too large for a datagram."""
    noise = datagram_head(1) + rng.randbytes(LARGEST_BYTES - 16)
    while True:
        yield noise, 0


def valid(rng: random.Random, events: int) -> Iterator[Datagram]:
    """Good events, a hundred in a datagram; after `events`, the same ones again and again."""
    producer_id = rng.getrandbits(64)
    head, seed = datagram_head(producer_id), producer_seed(producer_id)
    payload = pack_payload(msgpack.Packer(), "page_view", 1, "flood", {"text": "x" * 200})
    for n in itertools.count():
        first = n * 100 % events + 1
        records = (encode_record(seed, first + number, payload) for number in range(100))
        yield head + b"".join(records), 100 if n * 100 < events else 0


def producers(rng: random.Random, events: int) -> Iterator[Datagram]:
    """A new producer with each datagram; after `events`, earlier ones again."""
    first = rng.getrandbits(62)
    for n in itertools.count():
        yield datagram(first + n % events, 1), int(n < events)


def duplicates(rng: random.Random, _events: int) -> Iterator[Datagram]:
    """One good event, then the same event as often as a datagram holds it."""
    producer_id = rng.getrandbits(64)
    once = datagram(producer_id, 1)
    yield once, 1
    head, record = once[: DATAGRAM_HEAD.size], once[DATAGRAM_HEAD.size :]
    again = head + record * ((DATAGRAM_BYTES_MAX - len(head)) // len(record))
    while True:
        yield again, 0


def awaited(rng: random.Random, events: int) -> Iterator[Datagram]:
    """Durable events, each a commit; after `events`, the same ones again."""
    producer_id = rng.getrandbits(64)
    head = datagram_head(producer_id, KIND_AWAITED)
    for n in itertools.count():
        yield head + datagram(producer_id, n % events + 1)[len(head) :], int(n < events)


def malformed(rng: random.Random, events: int) -> Iterator[Datagram]:
    """Complete records of deep, huge and lying msgpack, in turn."""
    deep = b"\x81\xa1a" * 5000 + b"\x80"
    payloads = [
        msgpack.packb(["page_view", 1, None, deep]),
        b"\x91" * 32_000,
        b"\xdc\x7f\xff" * 10_000,  # arrays in arrays, each of which claims 32,767 items
        msgpack.packb(["page_view", 1, None, msgpack.packb({"k" * 20_000: {"l" * 9000: b"x"}})]),
    ]
    producer_id = rng.getrandbits(64)
    for n in itertools.count():
        sequence, payload = n % events + 1, payloads[n % len(payloads)]
        yield datagram(producer_id, sequence, payload), int(n < events)


def numbers(rng: random.Random, _events: int) -> Iterator[Datagram]:
    """Sequences at the ends of 63 and 64 bits, of events and of farewells."""
    producer_id = rng.getrandbits(64)
    yield datagram(producer_id, 1), 1
    while True:
        for sequence in (2**63 - 1, 2**63, 2**64 - 1):
            yield datagram(producer_id, sequence), 0
            yield encode_farewell(producer_id, sequence - 1, {"outbox_full": 2**63 - 1}), 0


KINDS: dict[str, Callable[[random.Random, int], Iterator[Datagram]]] = {
    "garbage": garbage,
    "largest": largest,
    "valid": valid,
    "producers": producers,
    "duplicates": duplicates,
    "awaited": awaited,
    "malformed": malformed,
    "numbers": numbers,
}


def flood(kind: str, path: str, words: memoryview, rng: random.Random, events: int) -> None:
    """Sends as fast as the daemon receives, with descriptors in each tenth datagram."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect(path)
    with open(os.devnull) as file:
        for n, (data, count) in enumerate(KINDS[kind](rng, events)):
            if n % 10 == 0 and len(data) < 100_000:
                socket.send_fds(sock, [data], [file.fileno()] * 3)
            else:
                sock.send(data)
            words[0] += count
            words[1] = n + 1


def greedy(path: str, words: memoryview, _rng: random.Random, _events: int) -> None:
    """An honest client that emits without a pause."""
    client = Client(path, outbox_bytes=4 * 1024 * 1024)
    while True:
        if client.emit("page_view", user="greedy", props={"text": "x" * 5000}):
            words[0] += 1
        else:
            words[1] += 1
            time.sleep(0.001)


def endless(path: str, words: memoryview, rng: random.Random, _events: int) -> None:
    """Outboxes that claim more events than they hold; when one is given up, the next is made."""
    while True:
        with contextlib.closing(Client(path, outbox_bytes=65536)) as client:
            client.emit("page_view", user="endless")
            outbox = parts.producer(client).outbox if parts.current(client) else None
            assert outbox is not None, client.stats()
            while not outbox.removed():
                parts.words(outbox)[WORD_WRITTEN] += rng.choice((1, 3, 1000))
                words[1] += 1
                time.sleep(0.001)


def storm(path: str, words: memoryview, rng: random.Random, _events: int) -> None:
    """Files of every kind that are not outboxes, created, swapped and removed."""
    directory = Path(read_rendezvous(path).directory)
    whole = bytearray(outbox_bytes(65536))
    OutboxWriter(memoryview(whole), 1, pid=1, now_ns=1)
    while True:
        names = [directory / outbox_name(os.getuid(), rng.getrandbits(64)) for _ in range(8)]
        other = directory / f".other-{os.getpid()}"
        other.write_bytes(whole)
        names[0].symlink_to(other)
        os.mkfifo(names[1])
        names[2].mkdir()
        os.link(other, names[3])
        names[4].write_bytes(whole[:100])
        names[5].write_bytes(whole)  # of another producer
        names[6].write_bytes(rng.randbytes(5000))
        os.replace(names[6], names[4])
        names[7].write_bytes(whole)
        os.truncate(names[7], 200)
        words[1] += 8
        names[2].rmdir()
        for name in (*names, other):
            name.unlink(missing_ok=True)


LIVING = {"greedy": greedy, "endless": endless, "storm": storm}


def good(path: str, words: memoryview, events: int) -> None:
    """A few hundred events a second; then the time until all of them are on disk."""
    client = Client(path, outbox_bytes=4 * 1024 * 1024)
    for number in range(1, events + 1):
        while not client.emit("page_view", user="good", props={"number": number}):
            words[1] += 1
            time.sleep(0.001)
        words[0] = number
        time.sleep(0.001)
    start_s = time.monotonic()
    assert client.flush(DEADLINE_S), client.stats()
    words[2] = int((time.monotonic() - start_s) * 1000)
    assert client.stats()["outbox"]["reason"] is None, client.stats()


def main(kind: str, uid: int, path: str, counts: str, seed: int, events: int) -> None:
    words = attach(counts)
    if uid != os.getuid():
        become_user(uid)
    if kind == "good":
        good(path, words, events)
    else:
        with contextlib.suppress(OSError):  # the daemon has gone
            LIVING.get(kind, partial(flood, kind))(path, words, random.Random(seed), events)


class Neighbour:
    """A neighbour process, as the test sees it."""

    def __init__(
        self, instance: Instance, kind: str, uid: int, *, seed: int = 1, events: int = 1000
    ) -> None:
        self._counters = CounterFile()
        self.process = Process(
            "-m", "tests.faults.neighbours", kind, str(uid), instance.socket,
            self._counters.path, str(seed), str(events),
        )  # fmt: skip
        self.pid = self.process.popen.pid

    def count(self, index: int) -> int:
        """0: events accepted; 1: refused, or datagrams of a flood; 2: milliseconds of the flush."""
        return self._counters.words()[index]

    def finish(self) -> None:
        """Waits until it ends by itself."""
        code = self.process.popen.wait(DEADLINE_S)
        self.process.close()
        assert code == 0, self.process.lines

    def close(self) -> None:
        """Kills it; its counters can still be read."""
        self.process.close()


@contextlib.contextmanager
def neighbours(
    instance: Instance, kind: str, count: int, uid: int, *, seed: int = 0, events: int = 1000
) -> Iterator[list[Neighbour]]:
    """Runs `count` neighbours of a kind at once, and kills them at the end."""
    running: list[Neighbour] = []
    try:
        for number in range(seed, seed + count):
            running.append(Neighbour(instance, kind, uid, seed=number, events=events))
        yield running
    finally:
        for one in running:
            one.close()


def for_many_users(instance: Instance, **settings: object) -> None:
    """Lets processes of any user reach the instance."""
    instance.configure(socket_mode="0666", many_users=True, **settings)
    os.chmod(instance.directory.parent, 0o711)
    os.chmod(instance.directory, 0o711)


def plant(
    directory: Path,
    producer_id: int,
    events: int,
    *,
    uid: int | None = None,
    ring_bytes: int = 64 * 1024,
    text_bytes: int = 0,
) -> Path:
    """Creates the outbox of a dead producer, with `events` events waiting."""
    owner = os.getuid() if uid is None else uid
    buffer = bytearray(outbox_bytes(ring_bytes))
    writer = OutboxWriter(memoryview(buffer), producer_id, pid=1, now_ns=1)
    props = {"text": "x" * text_bytes} if text_bytes else None
    payload = pack_payload(msgpack.Packer(), "page_view", 1, "7", props)
    for _ in range(events):
        assert writer.append(payload), "the ring has room"
    path = directory / outbox_name(owner, producer_id)
    temporary = directory / f".{path.name}"
    temporary.write_bytes(buffer)
    if owner != os.getuid():
        os.chown(temporary, owner, owner)
    temporary.rename(path)
    return path


def claim(path: Path, words: dict[int, int]) -> None:
    """Writes header words."""
    with open(path, "r+b") as file:
        for index, value in words.items():
            file.seek(index * 8)
            file.write(value.to_bytes(8, sys.byteorder))


def memory_bytes(pid: int, name: str) -> int:
    """A value of /proc/PID/status: VmRSS is the resident memory, VmHWM its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} of process {pid}")


if __name__ == "__main__":
    _kind, _uid, _path, _counts, _seed, _events = sys.argv[1:]
    main(_kind, int(_uid), _path, _counts, int(_seed), int(_events))
