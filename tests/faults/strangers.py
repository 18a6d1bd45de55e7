"""Attacks by a local process that may log events and ask for reports, one for each kind of work.

    python strangers.py ATTACK SOCKET QUERY_SOCKET SECONDS [UID COUNTS]

Runs in the tree and, by the installed logd alone, in the booted machine. ATTACK may be "all". Each
attack goes on for that long, and what it has left in the outboxes' directory is removed. With UID
it first becomes that user; the rounds it has made are counted in the file COUNTS.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import logging
import mmap
import os
import secrets
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgpack

from logd_client import Client
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    MAGIC_WORD,
    OUTBOX_VERSION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_WRITTEN,
)
from logd_wire.outbox.names import outbox_name
from logd_wire.query import QueryClient, QueryError
from logd_wire.rendezvous import read_rendezvous
from logd_wire.wire import datagram_head, encode_record, pack_payload, producer_seed
from tests.support import client_parts as parts
from tests.support.counter_file import attach

MIB = 1024 * 1024
RING_BYTES = 64 * 1024
# Of fallocate(2): a hole in the file's memory, the file as long as before.
_KEEP_SIZE_PUNCH_HOLE = 0x03
_PR_SET_PDEATHSIG = 1
FILLER = "filler"


class Place:
    """The target: an instance's sockets and outbox directory."""

    def __init__(self, socket_path: str, query_path: str, count: Callable[[], None]) -> None:
        self.socket = socket_path
        self.query = query_path
        self.directory = Path(read_rendezvous(socket_path).directory)
        self.count = count  # a round is over

    def own(self, name: str) -> Path:
        return self.directory / f"{name}-{os.getuid()}-{os.getpid()}"


def become_user(uid: int) -> None:
    """Switches this process to that user."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def in_child(act: Callable[[], None]) -> None:
    """Runs in its own process, which the attack may kill."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(Exception):
            act()
        os._exit(0)
    os.waitpid(pid, 0)


def fill(fd: int) -> None:
    """Takes all remaining space of the file system."""
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, bytes(65536))
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, bytes(4096))


def punched(place: Place) -> None:
    """Its own outbox with a hole where the header was, or cut to nothing, on a full tmpfs: what the
    daemon writes there (a confirmation) needs memory that there is not.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def once(cut: bool) -> None:
        client = Client(place.socket, outbox_bytes=RING_BYTES)
        client.emit("page_view", user="stranger")
        client.flush(1)
        outbox = parts.outbox(client)
        filler = os.open(place.own(FILLER), os.O_RDWR | os.O_CREAT, 0o600)
        fill(filler)
        if cut:
            parts.words(outbox)[WORD_WRITTEN] = 2  # something to look at
            os.ftruncate(parts.descriptor(outbox), 0)
        else:
            length = ctypes.c_long(HEADER_BYTES + RING_BYTES)
            libc.fallocate(
                parts.descriptor(outbox), _KEEP_SIZE_PUNCH_HOLE, ctypes.c_long(0), length
            )
            fill(filler)
        time.sleep(1.5)  # so that the daemon meets it
        place.own(FILLER).unlink()

    for cut in itertools.cycle((False, True)):
        in_child(partial(once, cut))
        place.count()


def sparse_outbox(
    directory: Path, uid: int, words: dict[int, int], ring_bytes: int, body: bytes = b""
) -> int:
    """A file of that user's that takes a page of memory, and claims what the words say. Its fd."""
    producer_id = secrets.randbits(64)
    header = [0] * (HEADER_BYTES // 8)
    header[0:6] = MAGIC_WORD, OUTBOX_VERSION, producer_id, ring_bytes, os.getpid(), 1
    for word, value in words.items():
        header[word] = value
    path = directory / outbox_name(uid, producer_id)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o660)
    try:
        os.fchmod(fd, 0o660)
        if uid != os.getuid():
            os.fchown(fd, uid, uid)
        os.write(fd, struct.pack(f"={len(header)}Q", *header) + body)
        os.ftruncate(fd, HEADER_BYTES + ring_bytes)
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


def plant_sparse(directory: Path, uid: int, count: int) -> None:
    """Sparse files of 64 MiB that claim confirmations which no trail has."""
    words = {WORD_WRITTEN: 10**6, WORD_CONFIRMED_SEQUENCE: 10**6}
    for _ in range(count):
        os.close(sparse_outbox(directory, uid, words, 64 * MIB))


def sparse(place: Place) -> None:
    """More and more such files."""
    while True:
        with contextlib.suppress(OSError):  # no room, for a moment
            plant_sparse(place.directory, os.getuid(), 3)
        place.count()
        time.sleep(0.3)


def claims(place: Place) -> None:
    """Headers of live producers that claim 2**62 events, written and confirmed, and then end."""
    words = {WORD_WRITTEN: 2**62, WORD_CONFIRMED_SEQUENCE: 2**62}
    while True:
        with contextlib.suppress(OSError):
            fd = sparse_outbox(place.directory, os.getuid(), words, RING_BYTES)
            fcntl.lockf(fd, fcntl.LOCK_EX)
            time.sleep(0.2)
            os.close(fd)
        place.count()


def duplicates(place: Place) -> None:
    """Datagrams full of one event that is already stored."""
    producer_id = secrets.randbits(64)
    payload = pack_payload(msgpack.Packer(), "a", 1, None, None)
    record = encode_record(producer_seed(producer_id), 1, payload)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    sock.connect(place.socket)
    head = datagram_head(producer_id)
    full = head + record * ((131_072 - len(head)) // len(record))
    sock.send(head + record)
    while True:
        sock.send(full)
        place.count()


def openings(place: Place) -> None:
    """A file of its own opened and closed in a loop, beside two hundred idle outboxes."""
    clients = [Client(place.socket, outbox_bytes=RING_BYTES) for _ in range(200)]
    for client in clients:
        client.emit("page_view", user="stranger")
    path = place.own("opened")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    while True:
        os.close(os.open(path, os.O_RDWR))
        place.count()
        time.sleep(0.0005)


def types(place: Place) -> None:
    """Events of a new type each."""
    with Client(place.socket, outbox_bytes=16 * MIB) as client:
        for number in itertools.count():
            while not client.emit(f"stranger_{number}_{'x' * 40}", user="stranger"):
                time.sleep(0.02)
            place.count()


def damaged(place: Place) -> None:
    """Rings with a gap after each record, one after the other: each gap is worth a log line."""
    payload = pack_payload(msgpack.Packer(), "a", 1, None, None)
    while True:
        seed = producer_seed(secrets.randbits(64))
        body = bytearray(512)
        position = 0
        for sequence in (1, 3, 5, 7, 9):
            record = encode_record(seed, sequence, payload)
            body[position : position + len(record)] = record
            position += (len(record) + 7) & -8
        with contextlib.suppress(OSError):
            words = {WORD_WRITTEN: 9}
            os.close(sparse_outbox(place.directory, os.getuid(), words, RING_BYTES, bytes(body)))
        place.count()
        time.sleep(0.0005)


def silence(place: Place) -> None:
    """More idle connections than there are seats, each replaced when it ends."""

    def hold() -> None:
        while True:
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
            ):
                sock.connect(place.query)
                sock.recv(1)
            place.count()

    for _ in range(200):
        threading.Thread(target=hold, daemon=True).start()
    signal.pause()


def questions(place: Place) -> None:
    """Heavy reports, 32 at a time, whose answers are never read."""

    def ask(number: int) -> None:
        client = QueryClient(place.query, timeout_s=10 if number % 4 else 0.05)
        while True:
            with contextlib.suppress(QueryError):
                if number % 2:
                    client.ask("events", user="nobody", since_ns=1)
                else:
                    client.ask("completions", type="quiz_submitted", after=["", ""])
            place.count()

    for number in range(32):
        threading.Thread(target=ask, args=(number,), daemon=True).start()
    signal.pause()


ATTACKS: dict[str, Callable[[Place], None]] = {
    "punched": punched,
    "sparse": sparse,
    "claims": claims,
    "duplicates": duplicates,
    "openings": openings,
    "types": types,
    "damaged": damaged,
    "silence": silence,
    "questions": questions,
}


def remove_files(directory: Path, uid: int) -> None:
    """Removes the files of a user. Needs the right to list them."""
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_uid == uid:
                path.unlink()


def attack(name: str, place: Place) -> None:
    """Runs for as long as the daemon accepts it."""
    with contextlib.suppress(OSError):  # the daemon has gone
        ATTACKS[name](place)


def main(
    name: str, socket_path: str, query_path: str, seconds: str, uid: str = "", counts: str = ""
) -> None:
    words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    if counts:
        words = attach(counts)
    logging.disable()  # what a client has to say of a full file system
    if uid:
        become_user(int(uid))

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    names = list(ATTACKS) if name == "all" else [name]
    children: list[int] = []
    try:
        for index, one in enumerate(names):
            children.append(start(one, socket_path, query_path, words[index : index + 1]))
        time.sleep(float(seconds))
    except KeyboardInterrupt:
        pass
    finally:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print(dict(zip(names, words.tolist(), strict=False)))


def start(name: str, socket_path: str, query_path: str, word: memoryview) -> int:
    """Starts the attack in a process group that ends with this process; returns its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def count() -> None:
        word[0] += 1

    try:
        attack(name, Place(socket_path, query_path, count))
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
