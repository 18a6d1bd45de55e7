"""The daemon's datagram socket: bound once, and replaced without losing what was sent to it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from logd.errors import CannotCreate
from logd.ingest.receiver import Receiver, bind


def test_a_socket_that_is_replaced_loses_nothing_that_the_kernel_took(tmp_path: Path) -> None:
    path = tmp_path / "logd.sock"
    receiver = Receiver(bind(path, socket.SOCK_DGRAM, 0o600))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as old:
        old.connect(str(path))
        for number in range(3):
            old.send(b"%d" % number)
        former = receiver.socket
        path.unlink()
        receiver.replace(bind(path, socket.SOCK_DGRAM, 0o600))
        with pytest.raises(OSError):
            old.send(b"is not taken, so nobody counts it")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as new:
            new.connect(str(path))
            new.send(b"3")
            reading = receiver.datagrams()
            assert [next(reading)[:3] for _ in range(2)] == [
                (b"0", os.getuid(), os.getpid()), (b"1", os.getuid(), os.getpid()),
            ]  # fmt: skip
            del reading  # no room in the batch: the rest at the next step
            assert former.fileno() >= 0
            assert [data for data, *_ in receiver.datagrams()] == [b"2", b"3"]
            assert former.fileno() == -1
    receiver.close()


def test_a_socket_at_which_another_instance_receives_is_not_taken_from_it(tmp_path: Path) -> None:
    path = tmp_path / "logd.sock"
    with bind(path, socket.SOCK_DGRAM, 0o600) as first:
        with pytest.raises(
            CannotCreate, match="another process, not of this instance, receives there"
        ):
            bind(path, socket.SOCK_DGRAM, 0o600)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(path))
            client.send(b"1")
        assert first.recv(10) == b"1"
    bind(path, socket.SOCK_DGRAM, 0o600).close()  # once its process has ended
