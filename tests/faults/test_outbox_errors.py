"""One stranger's file: errors of its I/O end its use and nothing else; its claims cost nobody time.

The daemon turns in this process, beside a sound outbox that must be read whatever the other does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logd.audit.verify import verify
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.receiver import Receiver, bind
from logd.serve.loop import EventLoop
from logd.serve.stats_source import outbox_totals
from logd.storage import keyfile
from logd.storage.store import Store
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_MAGIC,
    WORD_WRITTEN,
    parse_header,
)
from logd_wire.outbox.names import outbox_name
from tests.faults.neighbours import HOSTILE_UID, datagram, plant
from tests.faults.places import small_disk
from tests.support.instance import Instance
from tests.support.namespaces import needs_users
from tests.support.tally import Tally

BAD, GOOD = 5, 9
RECORD = 40  # bytes of an event that `plant` writes
FAILURES = (errno.EIO, errno.ENOSPC, errno.EACCES)
SHORTAGES = (errno.ENOMEM, errno.EINTR, errno.EMFILE)
Start = Callable[..., EventLoop]


@pytest.fixture
def start(instance: Instance) -> Iterator[Start]:
    """Makes a daemon, with settings, that only turns when told to."""
    made: list[EventLoop] = []

    def starting(**settings: object) -> EventLoop:
        instance.configure(**settings)
        config = replace(instance.config, commit_interval_ms=0)  # each turn commits
        store = Store(config.database, keyfile.read(config.key_file), 1, 100)
        outboxes = OutboxDirectory(config.outbox_directory, many_users=config.many_users)
        outboxes.prepare(str(config.socket))
        receiver = Receiver(bind(config.socket, socket.SOCK_DGRAM, config.socket_mode))
        made.append(EventLoop(config, store, receiver, outboxes, clock_ns=lambda: 7))
        return made[-1]

    yield starting
    for daemon in made:
        assert verify(daemon._store._connection).findings == []
        daemon.close()


def look(daemon: EventLoop) -> None:
    """One turn in which the look is due, and those that it takes to open and search all files."""
    daemon.delivery.turn.poll_due_s = 0.0
    daemon.run_once(timeout_s=0)
    while daemon.delivery.tasks or daemon.delivery.finder.is_listing:
        daemon.run_once(timeout_s=0)


def claim(path: Path, words: dict[int, int]) -> None:
    """Writes header words."""
    with open(path, "r+b") as file:
        for index, value in words.items():
            file.seek(index * 8)
            file.write(value.to_bytes(8, sys.byteorder))


def fill_up(place: Path) -> None:
    """Takes all that is left of a file system."""
    with (place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


class Failing:
    """Makes an operation fail on the bad outbox, as long as `now`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, operation: str, number: int) -> None:
        self.now = False
        self.times = 0
        owner: Any = (
            OutboxDirectory if operation in ("owner", "has", "remove", "refuse") else OpenOutbox
        )
        if operation in ("unlink", "pwrite"):
            owner = os
        real = getattr(owner, operation)
        name = outbox_name(os.getuid(), BAD)

        def maybe(*arguments: Any, **named: Any) -> Any:
            about = [getattr(one, "name", one) for one in arguments[:2]]
            if self.now and (name in about or operation == "pwrite"):
                self.times += 1
                raise OSError(number, os.strerror(number))
            return real(*arguments, **named)

        monkeypatch.setattr(owner, operation, maybe)


USES = ("alive", "written", "refresh", "read_at", "confirm")


@pytest.mark.parametrize("operation", USES)
@pytest.mark.parametrize("number", FAILURES, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("lives", [True, False], ids=["live", "dead"])
def test_an_outbox_whose_io_fails_is_given_up_and_nobody_else_notices(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch,
    operation: str, number: int, lives: bool,
) -> None:  # fmt: skip
    """Its owner is named, its loss booked, and its file removed: a living producer finds out."""
    directory = instance.config.outbox_directory
    bad = plant(directory, BAD, 6)
    failing = Failing(monkeypatch, operation, number)
    alive = OpenOutbox.alive
    monkeypatch.setattr(OpenOutbox, "alive", lambda self: alive(self) or lives)
    # Not all of it is read when its first confirmation fails.
    daemon = start(batch_events_max=8)
    daemon.delivery.recover(0.0)
    assert daemon.delivery.outboxes
    failing.now = True
    good = plant(directory, GOOD, 3)
    for _ in range(5):
        look(daemon)
    assert failing.times > 0
    assert not daemon.delivery.outboxes or lives
    assert BAD not in {producer.id for producer in daemon.delivery.outboxes}
    status = instance.status()
    tally.account(status, instance.events(), attempted=9, accepted=9)
    assert not bad.exists() and (lives or not good.exists())
    stored = {e["producer"]: e["sequence"] for e in instance.events()}
    assert stored[f"{os.getuid()}-{GOOD:016x}"] == 3
    if operation == "confirm":
        assert status["lost"] == 0, "what can be read is not lost"
        if not lives:
            return  # all of it was stored, and its end: it went as ever
    (row,) = instance.status()["quarantine_senders"]
    assert (row["uid"], row["newest_reason"]) == (
        os.getuid(),
        f"outbox: system error: {os.strerror(number)}",
    )


@pytest.mark.parametrize("operation", [*USES, "resume_wakeups", "owner"])
@pytest.mark.parametrize("number", SHORTAGES, ids=lambda number: errno.errorcode[number])
def test_what_this_process_is_short_of_gives_no_outbox_up(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch,
    operation: str, number: int,
) -> None:  # fmt: skip
    bad = plant(instance.config.outbox_directory, BAD, 6)
    failing = Failing(monkeypatch, operation, number)
    failing.now = operation in ("owner", "resume_wakeups")
    daemon = start()
    daemon.delivery.recover(0.0)
    failing.now = True
    for _ in range(3):
        look(daemon)
    assert failing.times > 0
    status = instance.status()
    tally.account(status, instance.events(), attempted=6, accepted=6)
    assert (status["lost"], status["unknown_extent"], status["quarantined"]) == (0, 0, 0)
    failing.now = False
    for _ in range(4):
        look(daemon)
    assert not bad.exists(), "then it is read to its end, and removed"
    assert instance.status()["stored"] == 6


@pytest.mark.parametrize("number", [*FAILURES, errno.EBUSY, errno.EROFS, *SHORTAGES])
def test_a_file_that_cannot_be_removed_is_left_alone_and_all_of_it_stored(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    bad = plant(instance.config.outbox_directory, BAD, 6)
    failing = Failing(monkeypatch, "unlink", number)
    failing.now = True
    daemon = start()
    commits = []
    for _ in range(5):
        look(daemon)
        commits.append(instance.status()["commits"])
    assert bad.exists() and failing.times == 1
    assert commits[-1] == 1, "it is not met again and again"
    status = instance.status()
    tally.account(status, instance.events(), attempted=6, accepted=6)
    assert (status["stored"], status["quarantined"]) == (6, 0)


@pytest.mark.parametrize("operation", ["refuse", "owner", "has", "remove", "resume_wakeups"])
def test_whatever_else_fails_at_an_outbox_ends_nothing(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """It claims what it cannot hold, and letting go of it fails as well."""
    directory = instance.config.outbox_directory
    bad = plant(directory, BAD, 3)
    daemon = start()
    daemon.delivery.recover(0.0)
    failing = Failing(monkeypatch, operation, errno.EIO)
    failing.now = True
    claim(bad, {WORD_WRITTEN: 2**40})
    good = plant(directory, GOOD, 3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(instance.socket)
        sock.send(datagram(77, 1))
        for _ in range(4):
            daemon.closed_files._inotify = None
            daemon.delivery.step((), {bad.name}, 0.0)
            look(daemon)
    assert not good.exists()
    assert instance.status()["stored"] >= 4
    failing.now = False


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM])
def test_a_header_that_cannot_be_read_when_it_is_opened_is_refused_or_tried_again(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    bad = plant(instance.config.outbox_directory, BAD, 3)
    pread = os.pread
    failing = True

    def failed(fd: int, length: int, offset: int) -> bytes:
        if failing:
            raise OSError(number, os.strerror(number))
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", failed)
    daemon = start()
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        look(daemon)
    assert len(os.listdir("/proc/self/fd")) == open_before, "and closed"
    failing = False
    status = instance.status()
    assert status["quarantined"] == (number == errno.EIO)
    for _ in range(3):
        look(daemon)
    assert bad.exists() == (number == errno.EIO)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM])
def test_a_ring_that_cannot_be_searched_when_it_is_opened_is_refused_or_tried_again(
    instance: Instance, start: Start, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    bad = plant(instance.config.outbox_directory, BAD, 0)
    claim(bad, {WORD_WRITTEN: 500, WORD_CONFIRMED_SEQUENCE: 500})
    failing = Failing(monkeypatch, "read_at", number)
    failing.now = True
    daemon = start()
    open_before = len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        look(daemon)
    assert failing.times == (1 if number == errno.EIO else 4)
    assert len(os.listdir("/proc/self/fd")) == open_before
    failing.now = False
    status = instance.status()
    assert (status["quarantined"], status["lost"]) == (number == errno.EIO, 0)
    for _ in range(3):
        look(daemon)
    assert instance.status()["lost_claimed"] == (0 if number == errno.EIO else 500)


def test_the_outboxes_of_a_daemon_that_ends_are_closed_whatever_fails(
    instance: Instance, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    plant(instance.config.outbox_directory, BAD, 3)
    daemon = start()
    look(daemon)
    (outbox,) = daemon.delivery.outboxes.values()
    failing = Failing(monkeypatch, "written", errno.EIO)
    failing.now = True
    assert outbox_totals(daemon.delivery.outboxes.items(), 1.0).backlog == 0
    os.close(outbox.fd)  # so that closing it fails


@needs_users
@pytest.mark.parametrize("how", ["punched", "cut"])
def test_a_hole_that_a_full_memory_cannot_fill_ends_one_outbox_and_not_the_daemon(
    instance: Instance, start: Start, tally: Tally, tmp_path: Path, how: str
) -> None:
    """The daemon's own write into it needs a page, and gets ENOSPC."""
    with small_disk(tmp_path / "shm", 1024) as place:
        directory = place / "outboxes"
        daemon = start(outbox_directory=str(directory))
        good = plant(directory, GOOD, 3)
        bad = plant(directory, BAD, 3, uid=HOSTILE_UID)
        daemon.delivery.recover(0.0)
        fd = os.open(bad, os.O_RDWR)
        try:
            if how == "cut":
                os.ftruncate(fd, 0)
            else:
                hole = ctypes.c_long(HEADER_BYTES + RING_BYTES_MIN)
                assert ctypes.CDLL(None).fallocate(fd, 3, ctypes.c_long(0), hole) == 0
            fill_up(place)
            for _ in range(4):
                look(daemon)
        finally:
            os.close(fd)
        status = instance.status()
        assert not good.exists() and not bad.exists()
        tally.account(status, instance.events(), attempted=6, accepted=6)
        assert (status["stored"], status["lost"]) == (3, 3)
        assert [one["uid"] for one in status["quarantine_senders"]] == [HOSTILE_UID]


# -- claims --------------------------------------------------------------------------------------


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
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(instance.socket)
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


def test_an_outbox_that_was_given_up_is_not_opened_again_before_it_is_removed(
    instance: Instance, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    path = plant(instance.config.outbox_directory, BAD, 3)
    daemon = start()
    look(daemon)
    ((producer, outbox),) = daemon.delivery.outboxes.items()
    daemon.delivery.lifecycle.give_up(producer, outbox, "a test")
    daemon.delivery.finder.find(path.name, os.getuid(), BAD)
    daemon.delivery.tasks.run(lambda: 0.0, 0.0)
    assert not daemon.delivery.outboxes
    look(daemon)
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


# -- the start, and searches ---------------------------------------------------------------------


def test_files_without_end_keep_no_daemon_from_its_first_turn(
    instance: Instance, start: Start, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens some of them, takes what arrives, and goes on; none of them is lost meanwhile."""
    directory = instance.config.outbox_directory
    for producer_id in range(1, 41):
        plant(directory, producer_id, 3)
    daemon = start()
    daemon.delivery.start_work_s = daemon.delivery.work_s = 0.0  # one task in each turn
    opened: list[str] = []
    real = OutboxDirectory.open

    def noted(self: OutboxDirectory, name: str, uid: int, producer_id: int) -> OpenOutbox | None:
        opened.append(name)
        return real(self, name, uid, producer_id)

    monkeypatch.setattr(OutboxDirectory, "open", noted)
    store = daemon._store._connection
    store.executemany(
        "INSERT INTO producer VALUES (?, ?, ?, 0, 0, 1, 'an earlier boot', 1, 1, 1)",
        [(row, os.getuid(), f"{row:016x}") for row in range(1, 41)],
    )
    daemon._store._load()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(instance.socket)
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


def test_a_search_for_what_a_header_claims_takes_a_slice_of_each_turn(
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
    turns = 0
    while daemon.delivery.outboxes.searches:
        read.append(0)
        daemon.delivery.turn.poll_due_s = 0.0
        daemon.run_once(timeout_s=0)
        turns += 1
        if daemon.delivery.outboxes.searches:
            assert instance_is_untouched(claiming)
        assert turns < 1000
    assert max(read) <= 3 * daemon.delivery.searches.slice_bytes
    assert turns >= ring_bytes // daemon.delivery.searches.slice_bytes
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
        daemon.delivery.turn.poll_due_s = 0.0
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
