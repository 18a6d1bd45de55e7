"""The two clients that shared/PROTOCOL.md gives in pseudo-code, written from it and nothing else.

They import nothing of `shared`; what they send is stored by the real daemon.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import socket
import struct
import time
import zlib
from pathlib import Path

from tests.shared.make_vectors import msgpack
from tests.support import Instance, check_streams, check_sums, until


class Client:
    """ "A client without an outbox"."""

    def __init__(self, socket_path: str) -> None:
        self.id = secrets.randbits(64)
        self.seed = zlib.crc32(struct.pack("<Q", self.id))
        self.sequence = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(socket_path)

    def head(self, kind: int = 0) -> bytes:
        return b"LGD" + bytes([1, kind, 0, 0, 0]) + struct.pack("<Q", self.id)

    def record(self, sequence: int, payload: bytes) -> bytes:
        body = struct.pack("<Q", sequence) + payload
        return struct.pack("<II", len(payload), zlib.crc32(body, self.seed)) + body

    def payload(self, number: int) -> bytes:
        return msgpack(["page_view", time.time_ns(), "7", msgpack({"number": number})])

    def send(self, datagram: bytes) -> bool:
        try:
            self.socket.send(datagram)
        except OSError:
            return False
        return True

    def emit(self, *numbers: int) -> bool:
        """One datagram with all of them."""
        records = [
            self.record(sequence, self.payload(number))
            for sequence, number in enumerate(numbers, start=self.sequence + 1)
        ]
        if not self.send(self.head() + b"".join(records)):
            return False
        self.sequence += len(numbers)
        return True

    def close(self, **refused: int) -> None:
        farewell = self.head(kind=1) + self.record(self.sequence + 1, msgpack(refused))
        until(lambda: self.send(farewell), "the daemon's queue has room")
        self.socket.close()


class ClientWithOutbox(Client):
    """ "A client with an outbox"."""

    def __init__(self, socket_path: str, ring_bytes: int) -> None:
        super().__init__(socket_path)
        lines = Path(socket_path + ".outboxes").read_text().splitlines()
        place = dict(line.split("=", 1) for line in lines)
        directory = os.open(place["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        assert os.fstat(directory).st_uid == Path(socket_path + ".outboxes").stat().st_uid
        assert Path(place["directory"], "token").read_text().strip() == place["token"]
        self.ring_bytes = ring_bytes
        name = f"{os.getuid()}-{self.id:016x}.outbox"
        self.path = Path(place["directory"], name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(f".new-{name}", flags, 0o600, dir_fd=directory)
        fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a record lock, by fcntl(2)
        os.posix_fallocate(self.fd, 0, 4096 + ring_bytes)
        os.fchmod(self.fd, 0o660)
        self.map = mmap.mmap(self.fd, 4096 + ring_bytes)
        self.view = memoryview(self.map)
        self.word = self.view[:4096].cast("Q")
        self.ring = self.view[4096:]
        header = (1, self.id, ring_bytes, os.getpid(), time.time_ns())
        for index, value in enumerate(header, start=1):
            self.word[index] = value
        self.word[0] = int.from_bytes(b"LGDOUTBX", "little")
        os.rename(f".new-{name}", name, src_dir_fd=directory, dst_dir_fd=directory)
        os.close(directory)
        self.position = 0

    def emit(self, *numbers: int) -> bool:
        (number,) = numbers
        record = self.record(self.sequence + 1, self.payload(number))
        following = self.position + (len(record) + 7) // 8 * 8
        if following - self.word[17] > self.ring_bytes or self.word[17] > self.position:
            self.word[25] += 1
            return False
        offset = self.position % self.ring_bytes
        first = min(len(record), self.ring_bytes - offset)
        self.ring[offset : offset + first] = record[:first]
        self.ring[: len(record) - first] = record[first:]
        self.word[8] = self.sequence + 1
        self.position, self.sequence = following, self.sequence + 1
        self.send(self.head() + record)
        return True

    def close(self, **refused: int) -> None:
        self.word[9] = 1
        for view in (self.ring, self.word, self.view):
            view.release()
        self.map.close()
        os.close(self.fd)
        self.socket.close()


def numbers_stored(instance: Instance) -> list[int]:
    return [event["props"]["number"] for event in instance.events("--limit", "100000")]


def test_a_client_without_an_outbox_is_stored_and_its_end_is_known(instance: Instance) -> None:
    instance.start()
    client = Client(instance.socket)
    for number in range(100):
        until(lambda number=number: client.emit(number), "room")  # type: ignore[misc]
    until(lambda: client.emit(*range(100, 150)), "room for a datagram of fifty events")
    client.sequence += 2  # two that the kernel has taken and nobody has seen
    client.close(undelivered=3)
    until(lambda: instance.status()["lost"] == 2, "the farewell is booked")
    status = instance.settle()
    check_sums(status, attempted=155, accepted=152, refused=3)
    assert numbers_stored(instance) == list(range(150))


def test_a_client_with_an_outbox_loses_nothing_while_the_daemon_is_away(
    instance: Instance,
) -> None:
    daemon = instance.start()
    client = ClientWithOutbox(instance.socket, ring_bytes=64 * 1024)
    attempted = refused = 0

    def emit(count: int) -> None:
        """Waits when refused: more events than the ring holds."""
        nonlocal attempted, refused
        for number in range(client.sequence, client.sequence + count):
            attempted += 1
            while not client.emit(number):
                attempted, refused = attempted + 1, refused + 1
                until(lambda: client.word[16] == client.sequence, "all is confirmed")

    emit(2000)
    instance.kill()
    assert daemon.popen.poll() is not None
    while client.emit(client.sequence):
        attempted += 1
    attempted, refused = attempted + 1, refused + 1
    assert client.sequence - client.word[16] > 500
    instance.start()
    until(lambda: client.word[16] == client.sequence, "all is confirmed")
    emit(100)
    accepted = client.sequence
    client.close()
    until(lambda: not client.path.exists(), "the outbox is removed")
    check_sums(instance.settle(), attempted=attempted, accepted=accepted, refused=refused)
    assert numbers_stored(instance) == list(range(accepted))
    assert list(check_streams(instance.events("--limit", "100000")).values()) == [accepted]
