"""An event that a caller waits for is committed at once, even the first of a process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd_client import Client, Outcome
from logd_wire.wire import KIND_AWAITED, KIND_EVENTS, datagram_head, decode_head
from tests.logd.stepped_daemon import PRODUCER, SteppedDaemon, Written
from tests.logd.test_hostile import datagram, sender
from tests.support.instance import Instance, check_sums

LONG_MS = 3_600_000


@pytest.fixture
def daemon(instance: Instance) -> Iterator[SteppedDaemon]:
    """A daemon whose next commit by its interval is an hour away."""
    made = SteppedDaemon(instance, commit_interval_ms=LONG_MS, look_interval_ms=LONG_MS)
    made.start()
    assert made.delivery.state.commit_due_s > made.delivery.state.now_s + 60
    yield made
    made.close()


def as_awaited(data: bytes) -> bytes:
    return datagram_head(PRODUCER, KIND_AWAITED) + data[16:]


def test_the_first_awaited_event_of_an_unknown_producer_forces_a_commit(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    with sender(instance) as sock:
        sock.send(datagram(1, PRODUCER))
        daemon.run_once(timeout_s=0)
        assert instance.status()["stored"] == 0, "nobody waits for that one"
        sock.send(as_awaited(datagram(2, PRODUCER)))
        daemon.run_once(timeout_s=0)
    status = instance.status()
    check_sums(status, attempted=2, accepted=2)
    assert status["stored"] == 2


@pytest.mark.parametrize("before", [0, 5])
def test_the_first_awaited_event_of_an_outbox_that_is_not_open_yet_forces_a_commit(
    instance: Instance,
    daemon: SteppedDaemon,
    outbox: Written,
    monkeypatch: pytest.MonkeyPatch,
    before: int,
) -> None:
    """Events before it are only in the outbox: it is early, and read from there as well."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(before + 1)
    with sender(instance) as sock:
        sock.send(as_awaited(datagram(before + 1, PRODUCER)))
        daemon.run_once(timeout_s=0)
    assert outbox.confirmed == before + 1
    status = instance.status()
    check_sums(status, attempted=before + 1, accepted=before + 1)
    assert status["stored"] == before + 1


@pytest.mark.parametrize("has_outbox", [True, False])
def test_a_client_marks_its_first_awaited_event(instance: Instance, has_outbox: bool) -> None:
    """Also while no daemon has ever written to its outbox."""
    if has_outbox:
        outboxes = OutboxDirectory(instance.config.outbox_directory)
        outboxes.prepare(instance.socket)
        outboxes.close()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        Client(
            instance.socket, outbox_directory=None if has_outbox else str(instance.directory)
        ) as client,
    ):
        receiver.bind(instance.socket)
        receiver.setblocking(False)
        assert client.emit_durable("quiz_submitted", timeout_s=0) is Outcome.UNKNOWN
        assert client.emit("page_view")
        kinds = [decode_head(receiver.recv(2**17))[0] for _ in range(3)]
        assert client.stats()["outbox"].get("used_bytes") is not None or not has_outbox
    assert kinds == [KIND_AWAITED, KIND_EVENTS, KIND_EVENTS]
    assert Path(instance.socket).exists()
