"""The clients that shared/PROTOCOL.md gives in pseudo-code, written from it and nothing else."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import socket
import struct
import time
import zlib
from pathlib import Path

from tests.shared.independent_encoder import msgpack
from tests.support.instance import until


class Client:
    """ "A client without an outbox"."""

    def __init__(self, socket_path: str) -> None:
        self.id = secrets.randbits(64)
        self.seed = zlib.crc32(struct.pack("<Q", self.id))
        self.sequence = 0
        self.socket_path = socket_path
        self.socket: socket.socket | None = None

    def head(self, kind: int = 0) -> bytes:
        return b"LGD" + bytes([1, kind, 0, 0, 0]) + struct.pack("<Q", self.id)

    def record(self, sequence: int, payload: bytes) -> bytes:
        body = struct.pack("<Q", sequence) + payload
        return struct.pack("<II", len(payload), zlib.crc32(body, self.seed)) + body

    def payload(self, number: int) -> bytes:
        return msgpack(["page_view", time.time_ns(), "7", msgpack({"number": number})])

    def send(self, datagram: bytes) -> bool:
        try:
            if self.socket is None:
                self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self.socket.setblocking(False)
                self.socket.connect(self.socket_path)
            self.socket.send(datagram)
        except BlockingIOError:
            return False
        except OSError:
            self.disconnect()
            return False
        return True

    def disconnect(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None

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
        self.disconnect()


class ClientWithOutbox(Client):
    """ "A client with an outbox"."""

    def __init__(self, socket_path: str, ring_bytes: int) -> None:
        super().__init__(socket_path)
        lines = Path(socket_path + ".outboxes").read_text().splitlines()
        place = dict(line.split("=", 1) for line in lines)
        directory = os.open(place["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        assert os.fstat(directory).st_uid == Path(socket_path + ".outboxes").stat().st_uid
        assert Path(place["directory"], "token").read_text().strip() == place["token"]
        self.ring_bytes, self.directory = ring_bytes, Path(place["directory"])
        self.directory_is = identity(self.directory.stat())
        name = f"{os.getuid()}-{self.id:016x}.outbox"
        self.path = Path(place["directory"], name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(f".new-{name}", flags, 0o600, dir_fd=directory)
        fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a record lock, by fcntl(2)
        os.posix_fallocate(self.fd, 0, 4096 + ring_bytes)
        os.fchmod(self.fd, 0o660)
        self.file = identity(os.fstat(self.fd))
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
        self.nameless = self.said = False
        self.since_s = 0.0

    def emit(self, *numbers: int) -> bool:
        (number,) = numbers
        record = self.append(self.payload(number))
        if record is None:
            self.word[25] += 1
            return False
        self.send(self.head() + record)
        return True

    def append(self, payload: bytes) -> bytes | None:
        record = self.record(self.sequence + 1, payload)
        following = self.position + (len(record) + 7) // 8 * 8
        if following - self.word[17] > self.ring_bytes or self.word[17] > self.position:
            return None
        offset = self.position % self.ring_bytes
        first = min(len(record), self.ring_bytes - offset)
        self.ring[offset : offset + first] = record[:first]
        self.ring[: len(record) - first] = record[first:]
        self.word[8] = self.sequence + 1
        self.position, self.sequence = following, self.sequence + 1
        return record

    def is_intact(self) -> bool:
        if self.word[19] or self.word[20]:
            return False
        try:
            status = os.fstat(self.fd)
        except OSError:
            return False
        return identity(status) == self.file and status.st_nlink == 1

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            status = os.fstat(self.fd)
            if identity(status) == self.file:
                self.nameless = status.st_nlink == 0
                os.close(self.fd)
        self.since_s = time.monotonic()

    def has_lost_its_name(self) -> bool:
        if identity(self.directory.stat()) != self.directory_is:
            return False
        try:
            return identity(self.path.lstat()) != self.file
        except FileNotFoundError:
            return True

    def last_payload(self) -> bytes:
        """With one event unconfirmed, it lies where the confirmed ones end."""
        at = self.word[17] % self.ring_bytes
        ring = bytes(self.ring[at:]) + bytes(self.ring[:at])
        return ring[16 : 16 + struct.unpack_from("<I", ring)[0]]

    def send_farewell(self) -> bool:
        return self.send(self.head(kind=1) + self.record(self.word[8] + 1, msgpack({})))

    def unmap(self) -> None:
        self.disconnect()
        for view in (self.ring, self.word, self.view):
            view.release()
        self.map.close()

    def close(self, **refused: int) -> None:
        self.word[9] = 1
        for view in (self.ring, self.word, self.view):
            view.release()
        self.map.close()
        os.close(self.fd)
        self.disconnect()


class ClientOfALongLife:
    """ "Following": `write`, `follow` and `check_former` as the page has them."""

    def __init__(self, socket_path: str, ring_bytes: int = 64 * 1024) -> None:
        self.socket_path, self.ring_bytes = socket_path, ring_bytes
        self.present = self.start()
        self.left: list[ClientWithOutbox] = []
        self.sent = False

    def start(self) -> ClientWithOutbox:
        return ClientWithOutbox(self.socket_path, self.ring_bytes)

    def emit(self, number: int, kind: int = 0) -> bool:
        self.check_former()
        return self.write(self.present.payload(number), kind)

    def write(self, payload: bytes, kind: int = 0) -> bool:
        present = self.present
        if self.sent and not present.is_intact():
            self.follow()
            return self.write(payload, kind)
        record = present.append(payload)
        if record is None:
            if present.is_intact():
                return False
            self.follow()
            return self.write(payload, kind)
        now_ns = time.monotonic_ns()
        if kind == 0 and now_ns < present.word[18] <= now_ns + 10**9:
            self.sent = False
            return True
        if not present.is_intact():
            self.follow()
            self.check_former()
            return True
        self.sent = True
        present.send(present.head(kind) + record)
        return True

    def follow(self) -> None:
        old, self.present = self.present, self.start()
        self.left.append(old)
        old.leave()

    def check_former(self) -> None:
        for old in list(self.left):
            last = old.word[8]
            if old.word[16] >= last:
                self.drop(old)
            elif old.word[20]:
                self.farewell_once(old)
            elif not (old.nameless or old.has_lost_its_name()):
                continue
            elif old.word[19]:
                if old.word[16] + 1 == last:
                    self.write(old.last_payload())
                self.drop(old)
            else:
                self.farewell_once(old)

    def farewell_once(self, old: ClientWithOutbox) -> None:
        old.said = old.said or old.send_farewell()
        if old.said and time.monotonic() > old.since_s + 5:
            self.drop(old)

    def drop(self, old: ClientWithOutbox) -> None:
        old.unmap()
        self.left.remove(old)

    def close(self) -> None:
        self.check_former()
        for old in list(self.left):
            self.drop(old)
        self.present.close()


def identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
