"""A process that is forked, moved to a user namespace, or loses its descriptors under its client.

    python -m tests.faults.odd_process KIND SOCKET EVENTS DIRECTORY

Each process that emits leaves a file `NAME.json` in DIRECTORY: how many events it has tried, each
once, which of them were refused, and the client's counts. Events are numbered from 0 and have the
process's name for their user.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logd_client import Client

CHILDREN = 3
DESCRIPTORS = 16
OTHER_UID = 1001
SECRET = "secret-of-user-7"
OURS = b"the application's"
STUCK_S = 30

_CLONE_NEWUSER = 0x10000000
_PR_SET_DUMPABLE = 4


class Emitting:
    """Counts of the events that one process has attempted, and of the refused ones."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self.tried = 0
        self.refused: list[int] = []

    def emit(self, count: int) -> None:
        """Emits that many further events, each attempted once."""
        for number in range(self.tried, self.tried + count):
            props = {"number": number, "text": SECRET}
            if not self._client.emit("page_view", user=self._name, props=props):
                self.refused.append(number)
        self.tried += count

    def leave(self, directory: Path, **more: Any) -> None:
        """Writes the counts to a file, atomically."""
        text = json.dumps(
            {"tried": self.tried, "refused": self.refused, "stats": self._client.stats(), **more}
        )
        unfinished = directory / f".{self._name}"
        unfinished.write_text(text)
        unfinished.rename(directory / f"{self._name}.json")


# -- forks that Python is not told of ------------------------------------------------------------


def forks(client: Client, events: int, directory: Path) -> None:
    """C code forks, as an embedding server does; then all processes log at the same time."""
    fork = ctypes.PyDLL(None).fork  # keeps the interpreter's lock, and calls no hook of Python's
    main = Emitting(client, "main")
    main.emit(1)
    if fork() == 0:
        sys.exit()  # logs nothing, and ends as a program ends
    assert os.wait()[1] == 0
    start, started = os.pipe()
    for number in range(CHILDREN):
        if fork() == 0:
            os.close(started)
            os.read(start, 1)  # until all are there
            child = Emitting(client, f"child-{number}")
            child.emit(events)
            client.flush(10)
            child.leave(directory)
            os._exit(0)
    os.close(started)
    main.emit(events)
    for _ in range(CHILDREN):
        assert os.wait()[1] == 0
    main.emit(1)
    client.flush(10)
    main.leave(directory)


# -- user namespaces -----------------------------------------------------------------------------


def namespace(client: Client, events: int, directory: Path, *, mapped: bool) -> None:
    """The process is root in a user namespace of its own, or has no name there at all."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(OTHER_UID)
        os.setuid(OTHER_UID)
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # or its files in /proc are still root's
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        reason = os.strerror(ctypes.get_errno())
        (directory / "skip").write_text(f"no user namespaces here: unshare: {reason}")
        return
    if mapped:
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        except OSError as error:
            (directory / "skip").write_text(f"no mapped user namespace here: {error}")
            return
    assert os.getuid() != uid
    main = Emitting(client, "main")
    main.emit(events)
    client.flush(10)
    main.leave(directory)


# -- descriptors closed and used again -----------------------------------------------------------


def no_descriptors(_directory: Path) -> list[int]:
    """Leaves the descriptor numbers unused."""
    return []


def pairs(kind: socket.SocketKind) -> Callable[[Path], list[int]]:
    """Connected sockets that wait for room, and that are never read."""

    def make(_directory: Path) -> list[int]:
        made: list[int] = []
        for _ in range(DESCRIPTORS // 2):
            made += [end.detach() for end in socket.socketpair(socket.AF_UNIX, kind)]
        return made

    return make


def files(directory: Path) -> list[int]:
    """Files with content, each locked, as the application's own database would be."""
    made = []
    for number in range(DESCRIPTORS):
        made.append(
            os.open(directory / f"app-{os.getpid()}-{number}", os.O_RDWR | os.O_CREAT, 0o600)
        )
        os.write(made[-1], OURS)
        fcntl.lockf(made[-1], fcntl.LOCK_EX)
    return made


REUSES: dict[str, Callable[[Path], list[int]]] = {
    "nothing": no_descriptors,
    "streams": pairs(socket.SOCK_STREAM),
    "datagrams": pairs(socket.SOCK_DGRAM),
    "files": files,
}


def closes(client: Client, events: int, directory: Path, *, reuse: str) -> None:
    """A daemonizer closes all descriptors, and the application's next ones get their numbers."""
    signal.alarm(STUCK_S)  # an emit that waits for ever is killed
    main = Emitting(client, f"main-{reuse}")
    main.emit(1)
    assert client.flush(10)
    os.closerange(3, 256)
    ours = Ours(REUSES[reuse](directory))
    for _ in range(20):  # the daemon sees it die and gives the outbox up, in the middle of this
        main.emit(events // 40)
        time.sleep(0.03)
    _say("half")
    main.emit(events // 2)  # the daemon is away, so each event is sent
    _say("emitted")
    main.emit(1)
    client.flush(10)
    for fork in (os.fork, ctypes.PyDLL(None).fork):
        if fork() == 0:  # what it has inherited is the application's too
            child = Emitting(client, f"child-{os.getpid()}-{reuse}")
            child.emit(1)
            child.leave(directory, **ours.touched())
            client.close()
            os._exit(0)
        assert os.wait()[1] == 0
    client.close()
    main.leave(directory, **ours.touched())
    _say("left")


class Ours:
    """The application's own descriptors, as they were when it opened them."""

    def __init__(self, fds: list[int]) -> None:
        self._were = {fd: _what_it_is(fd) for fd in fds}

    def touched(self) -> dict[str, Any]:
        """Which of them have changed, and content that the application has not written."""
        changed = [fd for fd, was in self._were.items() if _what_it_is(fd) != was]
        found = {fd: _strange_in(fd) for fd in self._were if fd not in changed}
        strange = {fd: text for fd, text in found.items() if text is not None}
        return {"changed": changed, "strange": strange}


def _say(what: str) -> None:
    """Signals the test, and waits until it lets this process continue."""
    print(what, flush=True)
    assert sys.stdin.readline()


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _what_it_is(fd: int) -> tuple[int, ...] | None:
    try:
        status = os.fstat(fd)
        position = os.lseek(fd, 0, os.SEEK_CUR) if _is_file(fd) else 0
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, position, flags


def _strange_in(fd: int) -> str | None:
    """Content that the application has not written, in hexadecimal."""
    if _is_file(fd):
        text = os.pread(fd, 1 << 20, 0)
        return None if text == OURS else text[:80].hex()
    with socket.socket(fileno=os.dup(fd)) as end:
        try:
            return end.recv(1 << 20, socket.MSG_DONTWAIT)[:80].hex()
        except BlockingIOError:
            return None


def main(kind: str, path: str, events: int, directory: Path) -> None:
    what, _, how = kind.partition(" ")
    client = Client(path)
    if what == "forks":
        forks(client, events, directory)
    elif what == "namespace":
        namespace(client, events, directory, mapped=how == "mapped")
    else:
        closes(client, events, directory, reuse=how)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
