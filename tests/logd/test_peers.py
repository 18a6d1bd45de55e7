"""Peers and senders, identified by the kernel's credentials."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from logd.batch import Producer
from logd.ingest.ordering import Intake
from logd.serve.request_server import Credentials, RequestServer
from logd_wire.wire import producer_seed
from tests.logd.ordering_parts import ID, UID, batch_of, datagram, sequences
from tests.logd.served import Lines

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
        def deny(self, credentials: Credentials) -> bytes | None:
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


def with_outbox(uid: int, producer_id: int) -> Producer:
    """A producer of UID has an outbox, all others none."""
    has_outbox = uid == UID
    return Producer(uid, producer_id, producer_seed(producer_id), has_outbox=has_outbox)


def test_another_user_cannot_send_under_the_id_of_one_that_has_an_outbox() -> None:
    intake, batch = Intake(with_outbox, 100), batch_of()
    producer = intake.producer(UID, ID)
    intake.take_datagram(datagram(1), UID + 1, 5, batch)
    assert (sequences(batch), producer.taken) == ([], 0)
    (refusal,) = batch.quarantine_entries
    assert refusal.reason == f"another user's producer id: it has an outbox of uid {UID}"
    assert (refusal.uid, refusal.pid) == (UID + 1, 5)
    assert set(intake.producers) == {(UID, ID)}
    intake.take_datagram(datagram(1), UID, 5, batch)
    assert sequences(batch) == [1]


def test_once_that_has_ended_its_id_is_free_and_nothing_is_remembered_of_it() -> None:
    intake, batch = Intake(with_outbox, 100), batch_of()
    intake.drop(intake.producer(UID, ID))
    intake.take_datagram(datagram(1), UID + 1, 5, batch)
    assert (sequences(batch), batch.quarantine_entries) == ([1], [])
    assert set(intake.producers) == {(UID + 1, ID)}
