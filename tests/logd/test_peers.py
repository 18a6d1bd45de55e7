"""Who connects, as the kernel says it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from logd.request_server import Credentials, RequestServer
from tests.logd.test_request_server import Lines

SO_PEERGROUPS = 59


def test_a_peer_of_more_groups_than_can_be_asked_for_has_none_that_counts(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused or answered by its user; that it connects ends nothing."""

    class OfManyGroups(socket.socket):
        def getsockopt(self, level: int, option: int, *length: int) -> Any:
            if option == SO_PEERGROUPS:
                raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
            return super().getsockopt(level, option, *length)

    asked_by: list[Credentials] = []

    class Noting(Lines):
        def refusal(self, credentials: Credentials) -> bytes | None:
            asked_by.append(credentials)
            return b"forbidden\n"

    monkeypatch.setattr(socket, "socket", OfManyGroups)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / "s.sock"))
        listener.listen()
        server = RequestServer(listener, Noting(), seats_max=8, running_max=2)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.connect(str(directory / "s.sock"))
            peer.sendall(b"a question\n")
            server.run_once(0)
            assert peer.recv(100) == b"forbidden\n"
        server.close()
    assert asked_by == [Credentials(os.getpid(), os.getuid(), frozenset({os.getgid()}))]
