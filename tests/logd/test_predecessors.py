"""From one daemon to the next: what a killed or stopped one left to be stored and confirmed."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from contextlib import closing
from functools import partial

import msgpack
import pytest

from logd.audit.verify import verify
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd.storage.store import Store
from logd_wire.outbox.layout import HEADER_BYTES, aligned, parse_header
from logd_wire.wire import (
    KIND_AWAITED,
    RECORD_HEAD,
    datagram_head,
    encode_record,
    pack_payload,
    producer_seed,
)
from tests.logd.stepped_daemon import PRODUCER, SteppedDaemon, Written, look, new_daemon
from tests.logd.test_hostile import datagram, sender
from tests.support.instance import Instance, check_sums, until

NO_PID = 2**30  # of no process: past the kernel's highest


def known_before(daemon: SteppedDaemon, watermark: int) -> None:
    """What a predecessor has stored of the producer; it did not end."""
    connection = daemon.store.connection
    (boot_id,) = connection.execute("SELECT boot_id FROM run").fetchone()
    connection.execute(
        "INSERT INTO producer VALUES (1, ?, ?, ?, 1, 0, ?, ?, 1, 1)",
        (os.getuid(), f"{PRODUCER:016x}", watermark, boot_id, NO_PID),
    )


def search_slowly(daemon: SteppedDaemon) -> None:
    """A slice of one record a step, also at the start."""
    delivery = daemon.delivery
    delivery.searches.slice_bytes, delivery.work_s, delivery.start_work_s = 64, 0.0, 0.0


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_an_outbox_that_cannot_be_looked_for_at_the_start_is_not_taken_for_gone(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:  # fmt: skip
    """Its producer's end would be booked as lost, and all of it stored as well."""
    outbox.write(3)
    known_before(daemon, watermark=1)

    def failing(*_: object) -> bool:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context:
        context.setattr(OutboxDirectory, "has", failing)
        daemon.start()
        look(daemon)
    look(daemon)
    assert daemon.ledger() == []
    assert [event["sequence"] for event in instance.events()] == [2, 3]
    assert instance.status()["unknown_extent"] == 0


def test_an_outbox_that_is_gone_at_the_start_is_a_row_without_an_end(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    """The counterpart of the test before: a missing outbox is recorded."""
    known_before(daemon, watermark=1)
    daemon.start()
    look(daemon)
    assert daemon.ledger() == [(2, None, "outbox gone")]


def test_what_a_killed_predecessor_committed_is_confirmed_at_once_to_an_idle_producer(
    instance: Instance, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed between commit and confirmation, and the producer has nothing more to say:
    no commit comes by which it would learn. Nor does the next look have to be waited for.
    """
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    with closing(SteppedDaemon(instance, look_interval_ms=3_600_000)) as daemon:
        known_before(daemon, watermark=3)
        daemon.start()
        outbox.write(3)  # the file is closed, by which it is found

        def confirmed() -> bool:
            daemon.run_once(timeout_s=0.1)
            return outbox.confirmed == 3

        until(confirmed, "it is confirmed", 10)
    assert instance.status()["stored"] == 0, "nothing was stored again"


def test_while_its_place_is_looked_for_nothing_is_confirmed_at_another_one(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A position that is not the sequence's has the producer write over what was not read."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(60)
    known_before(daemon, watermark=40)
    search_slowly(daemon)
    payload = pack_payload(msgpack.Packer(), "page_view", 1, None, None)
    size = aligned(RECORD_HEAD.size + len(payload))
    daemon.start()
    while_searched = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(instance.socket)
        for sequence in range(41, 61):
            record = encode_record(producer_seed(PRODUCER), sequence, payload)
            sender.send(datagram_head(PRODUCER) + record)
            while_searched += bool(daemon.delivery.outboxes.searches)
            daemon.run_once(timeout_s=0)
            data = outbox.path.read_bytes()
            header = parse_header(data[:HEADER_BYTES], len(data))
            assert header.confirmed_position == header.confirmed_sequence * size
    assert while_searched > 5
    look(daemon)
    assert outbox.confirmed == 60
    state = instance.status()
    assert (state["stored"], state["lost"], state["pending"]) == (20, 0, 0)


def test_a_search_that_a_caller_waits_for_is_not_held_back_for_that_caller(
    instance: Instance, daemon: SteppedDaemon, outbox: Written
) -> None:
    """There is nothing to commit before it is done: one slice a step would only be slow."""
    outbox.write(60)
    known_before(daemon, watermark=40)
    search_slowly(daemon)
    daemon.start()
    assert daemon.delivery.outboxes.searches
    daemon.delivery.work_s = 60.0
    with sender(instance) as sock:
        sock.send(datagram_head(PRODUCER, KIND_AWAITED) + datagram(60, PRODUCER)[16:])
        daemon.run_once(timeout_s=0)
    assert not daemon.delivery.outboxes.searches
    look(daemon)
    state = instance.status()
    assert (state["stored"], state["lost"], state["pending"]) == (20, 0, 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_what_could_not_be_confirmed_when_it_was_committed_is_confirmed_by_the_next_look(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)

    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context:
        context.setattr(OpenOutbox, "confirm", failing)
        daemon.start()
        look(daemon)
    assert (outbox.confirmed, instance.status()["stored"]) == (0, 3)
    look(daemon)
    assert (outbox.confirmed, instance.status()["stored"]) == (3, 3)
    check_sums(instance.status(), attempted=3, accepted=3)


def kill_a_daemon(instance: Instance, owner: type, point: str) -> None:
    """In a child process: a daemon that SIGKILL hits when it gets there."""
    pid = os.fork()
    if pid == 0:
        try:
            # Where an outbox is opened, that nothing of it is stored is confirmed as well.
            kill = partial(os.kill, os.getpid(), signal.SIGKILL)
            setattr(owner, point, lambda _, first=None, *_rest: kill() if first != 0 else None)
            daemon = new_daemon(instance)
            daemon.start()
            look(daemon)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status


@pytest.mark.parametrize(
    ("owner", "point", "committed", "lives"),
    [
        (Store, "commit", 0, True),
        (OpenOutbox, "confirm", 3, True),
        (OpenOutbox, "confirm", 3, False),
        (OpenOutbox, "resume_wakeups", 3, False),
        (OutboxDirectory, "remove", 3, False),
    ],
)
def test_a_daemon_killed_between_commit_and_confirmation_stores_nothing_twice(
    instance: Instance, outbox: Written, monkeypatch: pytest.MonkeyPatch,
    owner: type, point: str, committed: int, lives: bool,
) -> None:  # fmt: skip
    """And killed right before the commit, before the end of a dead producer's outbox is declared,
    and before that is removed.
    """
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: lives)
    outbox.write(3)
    kill_a_daemon(instance, owner, point)
    state = instance.status()
    check_sums(state, attempted=3, accepted=3)
    assert (state["stored"], state["pending"]) == (committed, 3 - committed)
    assert outbox.confirmed == (3 if point in ("resume_wakeups", "remove") else 0)
    with closing(SteppedDaemon(instance)) as daemon:
        daemon.start()
        for _ in range(3):
            look(daemon)
        assert [event["sequence"] for event in instance.events()] == [1, 2, 3]
        if lives:
            assert outbox.confirmed == 3
            outbox.write(1)
            look(daemon)
            assert [event["sequence"] for event in instance.events()] == [1, 2, 3, 4]
        assert outbox.path.exists() is lives
        state = instance.status()
        check_sums(state, attempted=3 + lives, accepted=3 + lives)
        assert (state["lost"], state["unknown_extent"], state["quarantined"]) == (0, 0, 0)
        assert verify(daemon.store.connection).findings == []


def test_a_stop_stores_what_lies_in_files_that_were_closed_just_before_it(
    instance: Instance, daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller waits for the disk, so the first round has no time for opening files."""
    daemon.start()
    daemon.delivery.work_s = 0.0
    written = [Written(instance.config.outbox_directory, number) for number in range(100, 120)]
    with sender(instance) as sock:
        for one in written:
            one.write(3)
        sock.send(datagram(1))
        daemon.stop(deadline_s=time.monotonic() + 30)
    state = instance.status()
    check_sums(state, attempted=61, accepted=61)
    assert (state["stored"], state["pending"]) == (61, 0)


def test_what_is_unknown_of_a_producer_depends_on_the_boot_and_on_its_outbox(
    daemon: SteppedDaemon,
) -> None:
    """Of this boot and without an outbox it may live: nothing is missing as far as is known."""
    connection = daemon.store.connection
    (boot_id,) = connection.execute("SELECT boot_id FROM run").fetchone()
    connection.executemany(
        "INSERT INTO producer VALUES (?, 1000, ?, 4, ?, ?, ?, ?, 1, 1)",
        [
            (number, f"{number:016x}", has_outbox, ended, boot, NO_PID)
            for number, (has_outbox, ended, boot) in enumerate(
                [
                    (0, 0, "an earlier one"), (1, 0, "an earlier one"), (1, 1, "an earlier one"),
                    (0, 0, boot_id), (1, 0, boot_id), (1, 1, boot_id),
                ],
                start=1,
            )
        ],
    )  # fmt: skip
    assert [row for row in daemon.store.unfinished() if row is not None] == [
        (1000, 1, "tail unknown"), (1000, 2, "tail unknown"), (1000, 5, "outbox gone"),
    ]  # fmt: skip
