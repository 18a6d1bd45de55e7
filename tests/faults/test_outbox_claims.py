"""What a stranger's outbox claims is booked as claimed, and is searched for a slice at a time."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_MAGIC,
    WORD_WRITTEN,
    parse_header,
)
from tests.faults.neighbours import HOSTILE_UID, claim, datagram, plant
from tests.faults.stepped import Start, add_earlier_producers, connected, look
from tests.support.instance import Instance
from tests.support.namespaces import needs_users
from tests.support.tally import Tally

BAD, GOOD = 5, 9
RECORD = 40  # bytes of an event that `plant` writes


def test_what_headers_claim_is_counted_apart_and_by_user(
    instance: Instance, start: Start, tally: Tally
) -> None:
    """Forty files claim a million events each, and one event is really lost."""
    directory = instance.config.outbox_directory
    for producer_id in range(100, 140):
        claim(
            plant(directory, producer_id, 0), {WORD_WRITTEN: 10**6, WORD_CONFIRMED_SEQUENCE: 10**6}
        )
    claim(plant(directory, 99, 0), {WORD_WRITTEN: 2**62, WORD_CONFIRMED_SEQUENCE: 2**62})
    daemon = start()
    with connected(instance) as sock:
        sock.send(datagram(77, 1))
        sock.send(datagram(77, 3))
        for _ in range(4):
            look(daemon)
    status = instance.status()
    assert (status["stored"], status["lost"], status["unknown_extent"]) == (2, 1, 0)
    assert (status["lost_claimed"], status["unknown_extent_claimed"]) == (40 * 10**6, 1)
    (user,) = status["losses_by_user"]
    assert (user["uid"], user["events"], user["claimed"]) == (os.getuid(), 1, 40 * 10**6)
    assert [loss["cause"] for loss in status["losses"]] == ["not received"]
    tally.account(status, instance.events(), attempted=2 + 1 + 40 * 10**6, accepted=3 + 40 * 10**6)
    found = instance.cli("metrics")
    assert "logd_events_lost_claimed_total 4e+07" in found
    assert 'logd_lost_events_total{cause="not received"} 1.0' in found
    assert 'cause="claimed"' not in found


def test_a_claim_that_turns_out_impossible_after_a_search_is_no_more_than_a_claim(
    instance: Instance, start: Start, tally: Tally
) -> None:
    """It holds record 1, and confirms a position at which that cannot lie."""
    path = plant(instance.config.outbox_directory, BAD, 3, ring_bytes=256 * 1024)
    claim(path, {WORD_WRITTEN: 500, WORD_CONFIRMED_SEQUENCE: 500})
    daemon = start()
    for _ in range(3):
        look(daemon)
    status = instance.status()
    assert (status["lost"], status["lost_claimed"], status["quarantined"]) == (0, 500, 1)
    tally.account(status, instance.events(), attempted=500, accepted=500)
    assert not path.exists()


@pytest.mark.parametrize("claimed", [2**62, 10**6, 4097])
def test_what_waits_in_an_outbox_is_at_most_what_its_ring_can_hold(
    instance: Instance, claimed: int
) -> None:
    """With no daemon, `status` has only the header's word."""
    path = plant(instance.config.outbox_directory, BAD, 0)
    claim(path, {WORD_WRITTEN: claimed, WORD_CONFIRMED_SEQUENCE: claimed})
    status = instance.status()
    assert status["pending"] == RING_BYTES_MIN // 16
    (user,) = status["outboxes_by_user"]
    assert (user["uid"], user["pending"]) == (os.getuid(), RING_BYTES_MIN // 16)


def test_files_without_end_keep_no_daemon_from_its_first_step(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon opens a few outboxes a step, stores what arrives meanwhile, and loses none."""
    directory = instance.config.outbox_directory
    for producer_id in range(1, 41):
        plant(directory, producer_id, 3)
    daemon = start()
    daemon.delivery.start_work_s = daemon.delivery.work_s = 0.0  # one task in each step
    opened: list[str] = []
    real = OutboxDirectory.open

    def noted(self: OutboxDirectory, name: str, uid: int, producer_id: int) -> OpenOutbox | None:
        opened.append(name)
        return real(self, name, uid, producer_id)

    monkeypatch.setattr(OutboxDirectory, "open", noted)
    add_earlier_producers(daemon, os.getuid(), range(1, 41), has_outbox=True)
    with connected(instance) as sock:
        sock.send(datagram(77, 1))
        sock.send(datagram(40, 3))  # of one whose file was not looked at yet
        daemon.start()
        assert 0 < len(opened) <= 5
        state = instance.status()
        assert state["stored"] >= 1
        assert (state["lost"], state["unknown_extent"]) == (0, 0)
        for _ in range(3):
            look(daemon)
    status = instance.status()
    assert [path.name for path in directory.iterdir()] == ["token"]
    tally.account(status, instance.events(), attempted=121, accepted=121)
    assert (status["stored"], status["lost"], status["unknown_extent"]) == (121, 0, 0)


def test_a_search_for_what_a_header_claims_takes_a_slice_of_each_step(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is booked, confirmed or removed before all of its ring was searched."""
    directory = instance.config.outbox_directory
    ring_bytes = 4 * 1024 * 1024
    claiming = plant(directory, BAD, 0, ring_bytes=ring_bytes)
    claim(claiming, {WORD_WRITTEN: 500, WORD_CONFIRMED_SEQUENCE: 500})
    daemon = start()
    daemon.delivery.start_work_s = daemon.delivery.work_s = 0.0
    read: list[int] = []
    read_at = OpenOutbox.read_at

    def counted(self: OpenOutbox, offset: int, length: int) -> bytes:
        if self.producer_id == BAD:
            read[-1] += length
        return read_at(self, offset, length)

    monkeypatch.setattr(OpenOutbox, "read_at", counted)
    read.append(0)
    daemon.delivery.recover(0.0)
    good = plant(directory, GOOD, 3)
    steps = 0
    while daemon.delivery.outboxes.searches:
        read.append(0)
        daemon.delivery.state.poll_due_s = 0.0
        daemon.run_once(timeout_s=0)
        steps += 1
        if daemon.delivery.outboxes.searches:
            assert instance_is_untouched(claiming)
        assert steps < 1000
    assert max(read) <= 3 * daemon.delivery.searches.slice_bytes
    assert steps >= ring_bytes // daemon.delivery.searches.slice_bytes
    assert not good.exists()
    for _ in range(3):
        look(daemon)
    status = instance.status()
    tally.account(status, instance.events(), attempted=503, accepted=503)
    assert (status["stored"], status["lost"], status["lost_claimed"]) == (3, 0, 500)


def instance_is_untouched(path: Path) -> bool:
    page = path.read_bytes()[:HEADER_BYTES]
    header = parse_header(page, path.stat().st_size)
    return (header.confirmed_sequence, header.written) == (500, 500)


@needs_users
def test_searches_of_one_user_make_anothers_wait_for_one_slice(
    instance: Instance, start: Start
) -> None:
    directory = instance.config.outbox_directory
    for producer_id in range(100, 110):
        path = plant(directory, producer_id, 0, uid=HOSTILE_UID, ring_bytes=1024 * 1024)
        claim(path, {WORD_WRITTEN: 500, WORD_CONFIRMED_SEQUENCE: 500})
    own = plant(directory, GOOD, 3)  # as after a restore: the ring has all of it
    claim(own, {WORD_CONFIRMED_SEQUENCE: 3, WORD_CONFIRMED_POSITION: 3 * RECORD})
    daemon = start(many_users=True)
    daemon.delivery.start_work_s = daemon.delivery.work_s = 0.0
    daemon.delivery.recover(0.0)
    for _ in range(30):
        daemon.delivery.state.poll_due_s = 0.0
        daemon.run_once(timeout_s=0)
    assert daemon.delivery.outboxes.searches, "the other user's are not done"
    assert not own.exists()


def test_a_sparse_file_is_not_searched_at_all(instance: Instance, start: Start) -> None:
    """It takes a page of its maker's memory, and would take a minute of the daemon's time."""
    directory = instance.config.outbox_directory
    for producer_id in range(1, 6):
        path = plant(directory, producer_id, 0)
        claim(path, {WORD_WRITTEN: 10**6, WORD_CONFIRMED_SEQUENCE: 10**6})
        words = list(struct.unpack("=512Q", path.read_bytes()[:HEADER_BYTES]))
        words[3] = 64 * 1024 * 1024
        assert words[WORD_MAGIC]
        path.write_bytes(struct.pack("=512Q", *words))
        os.truncate(path, HEADER_BYTES + words[3])
    daemon = start()
    daemon.delivery.recover(0.0)
    assert not daemon.delivery.outboxes.searches
    look(daemon)
    status = instance.status()
    assert (status["quarantined"], status["lost_claimed"]) == (5, 0)
    assert (status["outboxes"], status["outboxes_unreadable"]) == (0, 5)
    assert "sparse file" in status["quarantine_senders"][0]["newest_reason"]
