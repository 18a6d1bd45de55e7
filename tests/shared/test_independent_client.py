"""The two clients that shared/PROTOCOL.md gives in pseudo-code, written from it and nothing else.

They import nothing of `shared`; what they send is stored by the real daemon.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.shared.independent_client import Client, ClientOfALongLife, ClientWithOutbox
from tests.support.instance import Instance, check_streams, check_sums, until


def numbers_stored(instance: Instance) -> list[int]:
    return [event["props"]["number"] for event in instance.events("--limit", "100000")]


def test_a_client_without_an_outbox_is_stored_and_its_end_is_known(instance: Instance) -> None:
    instance.start()
    client = Client(instance.socket)
    for number in range(100):
        until(partial(client.emit, number), "room")
    until(lambda: client.emit(*range(100, 150)), "room for a datagram of fifty events")
    client.sequence += 2  # two that the kernel has taken and no daemon has seen
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


def removed(client: ClientWithOutbox) -> None:
    client.path.unlink()


def closed(client: ClientWithOutbox) -> None:
    os.close(client.fd)


def reused(client: ClientWithOutbox) -> None:
    other = os.open("/dev/null", os.O_RDONLY)
    os.dup2(other, client.fd)
    os.close(other)


def impossible(client: ClientWithOutbox) -> None:
    """As another process of this user might: the daemon gives it up, and sets word 20."""
    client.word[17] = 4


@pytest.mark.parametrize("happens", [removed, closed, reused, impossible])
def test_a_client_that_loses_its_outbox_follows_and_loses_nothing(
    instance: Instance, happens: Callable[[ClientWithOutbox], None]
) -> None:
    instance.start()
    client = ClientOfALongLife(instance.socket)
    number = 0

    def emit_until(done: Callable[[], bool], what: str) -> None:
        def emitted() -> bool:
            nonlocal number
            number += client.emit(number)
            return done()

        until(emitted, what)

    emit_until(lambda: number >= 50, "fifty events")
    first = client.present
    until(lambda: first.word[16] == 50, "all are confirmed")
    happens(first)
    emit_until(lambda: client.present is not first, "another outbox")
    second = client.present
    emit_until(lambda: second.word[16] > 20, "its events are confirmed")
    emit_until(lambda: all(old.said for old in client.left), "what became of the first one's")
    client.close()
    until(lambda: not second.path.exists(), "the outbox is removed")
    status = instance.settle()
    check_sums(status, attempted=number, accepted=number)
    # Of an outbox that is given up, what was written after the last check is in the ledger.
    assert status["lost"] <= (happens is impossible)
    assert status["unknown_extent"] == 0
    assert len(numbers_stored(instance)) == number - status["lost"]
    assert happens is impossible or sorted(numbers_stored(instance)) == list(range(number))


def test_a_client_whose_outbox_goes_while_the_daemon_is_away_has_its_loss_in_the_ledger_once(
    instance: Instance,
) -> None:
    instance.start()
    client = ClientOfALongLife(instance.socket)
    assert client.emit(0)
    first = client.present
    until(lambda: first.word[16] == 1, "it is confirmed")
    instance.kill()
    for number in range(1, 11):
        client.sent = False  # as while the daemon watched: nothing is looked at
        assert first.append(first.payload(number))
    first.path.unlink()
    client.sent = True
    assert client.emit(11)
    assert client.present is not first
    instance.start()
    until(lambda: client.emit(12) and not client.left, "its farewell is sent")
    client.close()
    until(lambda: not client.present.path.exists(), "the outbox is removed")
    status = instance.settle()
    accepted = 11 + client.present.sequence
    check_sums(status, attempted=accepted, accepted=accepted)
    assert (status["lost"], status["unknown_extent"]) == (10, 0)


def test_an_event_behind_the_daemons_last_look_is_written_again(instance: Instance) -> None:
    """The daemon has taken it for dead: nothing past word 16 is read in the first outbox."""
    instance.start()
    client = ClientOfALongLife(instance.socket)
    assert client.emit(0)
    first = client.present
    until(lambda: first.word[16] == 1, "it is confirmed")
    os.close(first.fd)  # the lock is gone with it
    until(lambda: not first.path.exists(), "it is retired and removed")
    assert first.word[19] == 1
    client.sent = False
    until(lambda: time.monotonic_ns() > first.word[18], "it is not watched any more")
    assert client.emit(1)
    assert client.present is not first and not client.left
    assert client.emit(2)
    client.close()
    until(lambda: not client.present.path.exists(), "the outbox is removed")
    check_sums(instance.settle(), attempted=3, accepted=3)
    assert numbers_stored(instance) == [0, 1, 2]
