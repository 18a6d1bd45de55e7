"""A request server that a test steps: one step at a time, by a clock that only the test moves."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logd.serve import request_server
from logd.serve.request_server import Credentials, RequestServer
from tests.support.instance import until

SEATS_MAX = 8
RUNNING_MAX = 2
ATTACKER, GOOD, FORBIDDEN = 1001, 1002, 1003
LARGE = 4 * 1024 * 1024  # more than the kernel keeps for a reader


class Lines:
    """A service: a request is a line, its answer the same in capitals. Some have a meaning."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[bytes] = []

    def take_request(self, received: bytearray, *, ended: bool) -> bytes | None:
        end = received.find(b"\n") + 1 or (len(received) if ended else 0)
        line = bytes(received[:end])
        del received[:end]
        return line or None

    def deny(self, credentials: Credentials) -> bytes | None:
        return b"forbidden\n" if credentials.uid == FORBIDDEN else None

    def answer(self, request: bytes, credentials: Credentials) -> tuple[bytes, bool]:
        self.asked.append(request)
        if request == b"wait\n":
            assert self.go_on.wait(60)
        if request == b"large\n":
            return bytes(LARGE), True
        if request == b"mistake\n":
            raise RuntimeError("a mistake, made by a test")
        return request.upper(), request != b"bye\n"

    def error(self, code: str, message: str) -> bytes:
        return f"{code}: {message}\n".encode()


class Served:
    """A server in this process, and connections to it under users of the test's choice."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service = Lines()
        self.now_s = 1000.0
        self.published: list[list[dict[str, Any]]] = []
        self.uid = GOOD
        self._path = str(directory / "s.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self._path)
        self._listener.listen(64)
        self._clients: list[socket.socket] = []
        monkeypatch.setattr(
            request_server, "_credentials", lambda _: Credentials(1, self.uid, frozenset())
        )
        self.server = RequestServer(
            self._listener, self.service, seats_max=SEATS_MAX, running_max=RUNNING_MAX,
            publish=self.published.append, clock_s=lambda: self.now_s,
        )  # fmt: skip

    def connect(self, uid: int, data: bytes = b"") -> socket.socket:
        """A connection of that user, which has sent these bytes."""
        sock = self.connect_unnoticed(data)
        self.uid = uid
        self.step()
        return sock

    def connect_unnoticed(self, data: bytes = b"") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._clients.append(sock)
        sock.connect(self._path)
        sock.sendall(data)
        sock.setblocking(False)
        return sock

    def listener_waits(self) -> None:
        """Another process with the same socket has changed it."""
        os.set_blocking(self._listener.fileno(), True)

    def step(self) -> None:
        self.server.run_once(0)

    def after(self, seconds: float) -> None:
        """The clock has moved on, and the server has noticed."""
        self.now_s += seconds
        self.step()

    def step_until(self, condition: Callable[[], object], what: str) -> None:
        def turned() -> object:
            self.step()
            return condition()

        until(turned, what)

    def heard(self, sock: socket.socket, length: int = 65536) -> bytes | None:
        """What has come; b"" at the end, None while nothing has."""
        self.step()
        try:
            return sock.recv(length)
        except BlockingIOError:
            return None

    def answer(self, sock: socket.socket) -> bytes:
        """What comes next."""
        found: bytes | None = None

        def came() -> bool:
            nonlocal found
            found = self.heard(sock)
            return found is not None

        until(came, "an answer")
        assert found is not None
        return found

    def ask(self, uid: int, line: bytes) -> bytes:
        return self.answer(self.connect(uid, line))

    def close(self) -> None:
        self.service.go_on.set()
        for sock in self._clients:
            sock.close()
        self.server.close()
        self._listener.close()
