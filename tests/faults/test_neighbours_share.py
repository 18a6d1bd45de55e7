"""Users share each step: one user's flood, large outboxes or many files delay no other user.

The daemon's steps one at a time, in this process; who is a hostile neighbour is another user where
the test may give files away.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.batch import Batch
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.refused_files import REFUSED_PER_USER_MAX
from logd.serve.loop import EventLoop
from logd.storage.store import Store
from logd_wire.outbox.layout import HEADER_BYTES, WORD_WRITTEN
from logd_wire.outbox.names import outbox_name
from tests.faults import neighbours
from tests.faults.neighbours import GOOD_UID, HOSTILE_UID, datagram, plant
from tests.faults.stepped import Start, add_earlier_producers, connected, look
from tests.support.instance import Instance, check_streams
from tests.support.namespaces import needs_users
from tests.support.tally import Tally


def look_at_all(daemon: EventLoop) -> None:
    """A look that is due, with as many steps as its listing takes."""
    look(daemon)
    while daemon.delivery.has_backlog:
        daemon.run_once(timeout_s=0)


class Filler:
    """Fills the kernel's queue, and goes on with what it did not take the last time."""

    def __init__(self, sock: socket.socket, flood: Iterator[neighbours.Datagram]) -> None:
        self._sock = sock
        self._flood = flood
        self._next = next(flood)
        self.events = 0  # that the kernel has taken

    def fill(self) -> None:
        while True:
            try:
                self._sock.send(self._next[0])
            except BlockingIOError:
                return
            self.events += self._next[1]
            self._next = next(self._flood)


def account(instance: Instance, tally: Tally, accepted: int) -> dict[str, int]:
    status = instance.status()
    tally.account(status, instance.events(), attempted=accepted, accepted=accepted)
    return status


@pytest.mark.parametrize("kind", ["garbage", "valid", "largest", "producers"])
def test_a_flood_that_fills_every_batch_leaves_the_outboxes_their_part(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The queue is full again at each step, and holds more than a batch takes."""
    daemon = start(batch_events_max=10)
    path = plant(instance.config.outbox_directory, 5, 12)
    flood = neighbours.KINDS[kind](random.Random(1), 10**6)
    with connected(instance) as sock:
        sock.setblocking(False)
        filler = Filler(sock, flood)
        entries: list[int] = []
        commit = Store.commit

        def watched(store: Store, batch: Batch, now_ns: int) -> None:
            entries.append(batch.entries)
            commit(store, batch, now_ns)

        monkeypatch.setattr(Store, "commit", watched)
        for _ in range(8):
            filler.fill()
            look(daemon)
        assert not path.exists(), "all of it is stored, and its file removed, during the flood"
        if kind != "valid":  # of which a single datagram is more than a batch
            assert max(entries) <= 10, "nor is there more in a batch for it"
        stored = [e for e in instance.events() if e["producer"] == f"{os.getuid()}-{5:016x}"]
        assert len(stored) == 12
        for _ in range(100):
            look(daemon)  # what is still queued
    account(instance, tally, 12 + filler.events)


def test_greedy_outboxes_do_not_keep_a_later_one_waiting(
    instance: Instance, start: Start, tally: Tally
) -> None:
    daemon = start(batch_events_max=20)
    directory = instance.config.outbox_directory
    for producer_id in (1, 2, 3):
        plant(directory, producer_id, 500)
        daemon.delivery.opener.open_found(
            outbox_name(os.getuid(), producer_id), os.getuid(), producer_id
        )
    last = plant(directory, 9, 5)
    for _ in range(2):
        look(daemon)
    assert not last.exists(), "the last one is read in the first two steps"
    assert instance.status()["pending"] > 1400, "the others have not been"
    for _ in range(120):
        look(daemon)
    assert account(instance, tally, 1505)["pending"] == 0


@needs_users
def test_a_user_with_many_outboxes_gets_no_more_than_one_with_few(
    instance: Instance, start: Start, tally: Tally
) -> None:
    daemon = start(batch_events_max=100, many_users=True)
    directory = instance.config.outbox_directory
    for producer_id in range(1, 31):
        plant(directory, producer_id, 100, uid=HOSTILE_UID)
    path = plant(directory, 99, 400, uid=GOOD_UID)
    steps = 0
    while path.exists():
        look(daemon)
        steps += 1
        assert steps <= 9, "half of each batch is the good user's"
    for _ in range(60):
        look(daemon)
    assert account(instance, tally, 3400)["lost"] == 0


@needs_users
def test_a_user_who_holds_all_the_files_it_may_keeps_no_other_from_being_read(
    instance: Instance,
    start: Start,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Past its share its outboxes wait: pending, said, neither lost nor given up."""
    alive = True
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: alive)
    daemon = start(many_users=True, outboxes_max=8)
    directory = instance.config.outbox_directory
    for producer_id in range(1, 21):
        plant(directory, producer_id, 3, uid=HOSTILE_UID)
    look(daemon)
    plant(directory, 99, 5, uid=GOOD_UID)
    look(daemon)
    stored = [event["producer"] for event in instance.events()]
    assert stored.count(f"{GOOD_UID}-{99:016x}") == 5
    assert len(stored) == 5 + 4 * 3
    assert account(instance, tally, 65)["pending"] == 16 * 3
    said = [r.message for r in caplog.records if "waits" in r.message]
    assert len(said) == 1, "once, not for each file"
    assert f"4 outboxes of user {HOSTILE_UID} are open already" in said[0]
    alive = False
    for _ in range(8):
        look(daemon)
    status = instance.status()
    assert (status["stored"], status["pending"], status["lost"]) == (65, 0, 0)
    check_streams(instance.events())


def test_what_waits_in_a_file_that_may_not_be_opened_yet_is_no_loss(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A datagram tells that something is missing: it lies in the outbox that waits."""
    alive = True
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: alive)
    daemon = start(outboxes_max=2)
    for producer_id in (1, 2):
        plant(instance.config.outbox_directory, producer_id, 3)
    look(daemon)
    plant(instance.config.outbox_directory, 50, 5)
    with connected(instance) as sock:
        for sequence in (1, 5):
            sock.send(datagram(50, sequence))
            look(daemon)
    status = account(instance, tally, 11)
    assert (status["stored"], status["pending"], status["lost"]) == (7, 4, 0)
    alive = False
    for _ in range(3):
        look(daemon)
    assert instance.status()["stored"] == 11


def test_what_lies_in_an_outbox_of_a_newer_version_is_no_loss_however_often_it_is_met(
    instance: Instance, start: Start, tally: Tally
) -> None:
    """The simulation found it: refused once, it was taken for no outbox at the next datagram."""
    daemon = start()
    path = plant(instance.config.outbox_directory, 50, 5)
    with open(path, "r+b") as file:
        file.seek(8)
        file.write((2).to_bytes(8, sys.byteorder))
    with connected(instance) as sock:
        for sequence in (1, 5):
            look(daemon)
            sock.send(datagram(50, sequence))
            look(daemon)
    status = account(instance, tally, 1)  # what waits for another daemon is in no sum
    assert (status["stored"], status["lost"], status["quarantined"]) == (1, 0, 0)
    assert (status["pending"], status["outboxes_unreadable"]) == (0, 1)


@needs_users
def test_a_file_named_after_a_strangers_producer_does_not_silence_it(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without an outbox goes on, though another user has put one there under its id."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    daemon = start(many_users=True)
    with connected(instance) as sock:
        sock.send(datagram(77, 1))
        look(daemon)
        plant(instance.config.outbox_directory, 77, 2, uid=HOSTILE_UID)
        look(daemon)
        sock.send(datagram(77, 2))
        look(daemon)
    status = account(instance, tally, 4)
    assert (status["stored"], status["quarantined"]) == (4, 0)


@pytest.mark.parametrize("again", [5, 2])
def test_a_file_put_in_place_of_an_outbox_in_use_is_looked_at_for_itself(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch, again: int
) -> None:
    """Three events are read of the first file; the other, of the same name, has `again`.

    It is never removed unread: it goes on where the first one ended, or it is no outbox of it.
    """
    alive = True
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: alive)
    daemon = start()
    plant(instance.config.outbox_directory, 5, 3)
    look(daemon)
    path = plant(instance.config.outbox_directory, 5, again)
    look(daemon)
    alive = False
    look(daemon)
    assert path.exists(), "it has not been read"
    for _ in range(3):
        look(daemon)
    status = account(instance, tally, max(3, again))
    assert status["stored"] == max(3, again)
    assert path.exists() == (again == 2), "a file behind the watermark is foreign, and stays"


def test_producers_without_end_are_booked_in_batches(
    instance: Instance, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of invented producers, then a new boot: each is a row "tail unknown"."""
    daemon = start(batch_events_max=100)
    batches: list[int] = []
    commit = Store.commit

    def watched(store: Store, batch: Batch, now_ns: int) -> None:
        batches.append(batch.entries)
        commit(store, batch, now_ns)

    monkeypatch.setattr(Store, "commit", watched)
    add_earlier_producers(daemon, 7, range(1, 2501), has_outbox=False)
    daemon.start()
    for _ in range(40):
        daemon.run_once(timeout_s=0)
    assert instance.status()["unknown_extent"] == 2500
    assert max(batches) <= 100
    instance.cli("verify")


def test_files_that_are_no_outboxes_are_booked_up_to_a_bound_and_hide_none(
    instance: Instance, start: Start, tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    directory = instance.config.outbox_directory
    daemon = start()
    for number in range(REFUSED_PER_USER_MAX + 500):
        (directory / outbox_name(os.getuid(), 10_000 + number)).touch()
    look_at_all(daemon)
    path = plant(directory, 5, 3)
    look_at_all(daemon)
    assert not path.exists(), "an outbox among them is read"
    status = account(instance, tally, 3)
    assert status["quarantined"] == REFUSED_PER_USER_MAX
    assert len(daemon.delivery.intake.producers) == 0, "nothing is kept of the rest"
    assert sum("refused as an outbox" in r.message for r in caplog.records) == 1
    assert daemon.closed_files._inotify is not None
    while daemon.closed_files._inotify.names():
        pass
    look_at_all(daemon)
    assert not daemon.closed_files._inotify.names(), (
        "nor does looking into them wake the daemon again"
    )


@needs_users
def test_a_forged_file_is_its_owners_whatever_user_its_name_claims(
    instance: Instance, start: Start
) -> None:
    daemon = start(many_users=True)
    path = plant(instance.config.outbox_directory, 5, 3, uid=GOOD_UID)
    os.chown(path, HOSTILE_UID, HOSTILE_UID)
    look(daemon)
    (sender,) = instance.status()["quarantine_senders"]
    assert (sender["uid"], sender["pid"], sender["rows"]) == (HOSTILE_UID, 0, 1)
    assert "not its owner's" in sender["newest_reason"]


def test_a_file_that_claims_what_it_cannot_hold_is_unreadable_and_not_pending(
    instance: Instance, start: Start, tally: Tally
) -> None:
    daemon = start()
    path = plant(instance.config.outbox_directory, 5, 3)
    with open(path, "r+b") as file:
        file.seek(WORD_WRITTEN * 8)
        file.write((2**62).to_bytes(8, sys.byteorder))
    for _ in range(2):
        look(daemon)
    status = account(instance, tally, 0)
    assert (status["pending"], status["outboxes_unreadable"]) == (0, 1)


def test_damaged_rings_are_searched_in_slices_and_hold_up_nobody(
    instance: Instance, start: Start, tally: Tally
) -> None:
    daemon = start()
    daemon.start()
    daemon.delivery.work_s = 0.0  # a slice in each step
    directory = instance.config.outbox_directory
    for producer_id in range(1, 5):
        path = plant(directory, producer_id, 3, ring_bytes=2 * 1024 * 1024)
        with open(path, "r+b") as file:
            file.seek(HEADER_BYTES)
            file.write(b"\xff" * 64)
    sound = plant(directory, 9, 3)
    for _ in range(6):
        daemon.delivery.state.poll_due_s = 0.0
        daemon.run_once(timeout_s=0)
    assert len(daemon.delivery.outboxes.searches) == 4
    daemon.delivery.state.poll_due_s = 0.0
    daemon.run_once(timeout_s=0)
    assert not sound.exists(), "while they are searched the sound one is read to its end"
    assert len(daemon.delivery.outboxes.searches) == 4
    for _ in range(4):
        look(daemon)
    status = account(instance, tally, 15)
    # A record is about fifty bytes: two of each are damaged, the third is found again.
    assert (status["stored"], status["lost"]) == (3 + 4, 8)
    assert Path(sound).parent == directory
