"""Outboxes that are gone, moved aside or not listed when the daemon starts."""

from __future__ import annotations

import os

import pytest

from logd.batch import LOST_NOT_RECEIVED, LOST_OUTBOX_GONE, Batch
from logd.errors import StorageBusy
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd_wire.wire import encode_farewell
from tests.logd.stepped_daemon import GONE_PID, PRODUCER, SteppedDaemon, Written, look
from tests.logd.test_hostile import datagram, sender
from tests.support.instance import Instance, check_sums


def known(daemon: SteppedDaemon, pid: int) -> None:
    """A producer of which 3 events are stored, and whose outbox is not there any more."""
    daemon.store.connection.execute(
        "INSERT INTO producer"
        " SELECT 1000, ?, printf('%016x', ?), 3, 1, 0, boot_id, ?, 1, 1 FROM run",
        (os.getuid(), PRODUCER, pid),
    )


def test_two_sights_of_a_producer_at_start_are_one_producer(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    """It is recorded as ended, since its outbox is missing, and sends in the same step."""
    with sender(instance) as sock:
        sock.send(datagram(1))
        daemon.run_once(timeout_s=0)
        daemon.store.connection.execute("UPDATE producer SET has_outbox = 1")
        daemon.delivery.intake.producers.clear()
        for sequence in (2, 3, 4):
            sock.send(datagram(sequence))
        daemon.start()
    (watermark,) = daemon.store.connection.execute("SELECT watermark FROM producer").fetchone()
    assert watermark == 4
    assert [event["sequence"] for event in instance.events()] == [1, 2, 3, 4]
    instance.cli("verify")


def test_a_removed_outbox_is_recorded_once_when_its_living_process_sends_a_farewell(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    """Its process may still send a farewell with numbers: a row without them would count twice."""
    known(daemon, os.getpid())
    daemon.start()
    look(daemon)
    assert daemon.ledger() == []
    with sender(instance) as sock:
        sock.send(encode_farewell(PRODUCER, 8, {}))
    look(daemon)
    assert daemon.ledger() == [(4, 8, LOST_NOT_RECEIVED)]


def test_a_farewell_queued_at_the_start_is_read_before_the_loss_is_recorded(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    known(daemon, GONE_PID)
    with sender(instance) as sock:
        sock.send(datagram(1, PRODUCER + 1))
        sock.send(encode_farewell(PRODUCER, 8, {}))
    daemon.delivery.state.batch = Batch(4, 10**6)  # the first step has room for the first of them
    daemon.start()
    assert daemon.ledger() == []
    look(daemon)
    assert daemon.ledger() == [(4, 8, LOST_NOT_RECEIVED)]


def test_a_removed_outbox_whose_process_has_ended_is_recorded_without_numbers(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    known(daemon, GONE_PID)
    daemon.start()
    look(daemon)
    assert daemon.ledger() == [(4, None, LOST_OUTBOX_GONE)]
    assert instance.status()["unknown_extent"] == 1


def test_an_outbox_that_was_missing_for_a_while_is_read_again(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start with another directory recorded it as gone. Once it is back, it must not be removed
    while its producer lives.
    """
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    daemon.start()
    aside = outbox.path.with_suffix(".aside")
    outbox.path.rename(aside)
    for producer in list(daemon.delivery.outboxes):
        daemon.delivery.intake.drop(producer)
    for opened in daemon.delivery.outboxes.release_all():
        daemon.directory.release(opened)
    daemon.start()
    assert instance.status()["unknown_extent"] == 1, "it is recorded as gone"
    aside.rename(outbox.path)
    outbox.write(2)
    for _ in range(3):
        look(daemon)
    assert outbox.path.exists()
    assert outbox.confirmed == 5
    state = instance.status()
    check_sums(state, attempted=5, accepted=5)
    assert (state["stored"], state["pending"]) == (5, 0)


def test_outboxes_that_cannot_be_listed_at_the_start_are_not_taken_for_none(
    daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_: OutboxDirectory) -> list[tuple[str, int, int]]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(OutboxDirectory, "names", no_descriptor)
    with pytest.raises(StorageBusy, match="Too many open files"):
        daemon.start()
