"""Errors of one stranger's outbox end its use and nothing else.

The daemon steps in this process, beside a sound outbox that must be read whatever the other does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd.serve.stats_source import outbox_totals
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_SEQUENCE,
    WORD_WRITTEN,
)
from logd_wire.outbox.names import outbox_name
from tests.faults.neighbours import HOSTILE_UID, claim, datagram, plant
from tests.faults.places import small_disk
from tests.faults.stepped import Start, connected, look
from tests.support.instance import Instance
from tests.support.namespaces import needs_users
from tests.support.tally import Tally

BAD, GOOD = 5, 9
FAILURES = (errno.EIO, errno.ENOSPC, errno.EACCES)
SHORTAGES = (errno.ENOMEM, errno.EINTR, errno.EMFILE)


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
    with connected(instance) as sock:
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
