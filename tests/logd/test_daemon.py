"""The daemon's rounds, one at a time: the order in which it reads, commits and confirms."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from logd.batch import Producer
from logd.errors import StorageBusy
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.receiver import Receiver, bind
from logd.ingest.step_budget import StepBudget
from logd.maintenance.worker import STEP_S
from logd.serve.loop import WORK_INTERVAL_MAX_S
from logd.storage.store import Store
from tests.logd.stepped_daemon import SteppedDaemon, Written, look, no_space
from tests.logd.test_hostile import datagram, sender
from tests.support.instance import Instance, check_sums, until


def test_rule_4_whether_it_lives_is_asked_before_its_last_event_is_read(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer writes once more and dies between the two checks, in either order."""
    outbox.write(3)
    questions: list[str] = []

    def asked(name: str) -> None:
        questions.append(name)
        if len(questions) == 1:
            outbox.write(1)

    refresh = OpenOutbox.refresh

    def watched_alive(_: OpenOutbox) -> bool:
        alive = len(questions) == 0
        asked("alive")
        return alive

    def watched_refresh(self: OpenOutbox) -> Any:
        header = refresh(self)
        asked("refresh")
        return header

    monkeypatch.setattr(OpenOutbox, "alive", watched_alive)
    monkeypatch.setattr(OpenOutbox, "refresh", watched_refresh)
    daemon.start()
    for _ in range(3):
        look(daemon)
    assert not outbox.path.exists(), "its producer is dead and all of it is stored"
    check_sums(instance.status(), attempted=4, accepted=4)
    assert instance.status()["stored"] == 4


def test_nothing_is_confirmed_until_it_is_committed(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)

    with monkeypatch.context() as context:
        context.setattr(Store, "commit", no_space)
        daemon.start()
        for _ in range(3):
            daemon.run_once(timeout_s=0)
        assert (outbox.confirmed, instance.status()["stored"]) == (0, 0)
        assert instance.status()["pending"] == 3
    daemon.run_once(timeout_s=0)
    assert (outbox.confirmed, instance.status()["stored"]) == (3, 3)
    check_sums(instance.status(), attempted=3, accepted=3)


def test_while_nothing_can_be_stored_nothing_more_is_read(
    instance: Instance, daemon: SteppedDaemon, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon stops reading: outboxes keep the events, and memory stays bounded."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    batches: list[int] = []

    def full(_: Store, batch: Any, now_ns: int) -> None:
        batches.append(len(batch.events))
        raise StorageBusy("full")

    with monkeypatch.context() as context:
        context.setattr(Store, "commit", full)
        daemon.start()
        outbox.write(100)
        for _ in range(5):
            look(daemon)
    assert set(batches) == {3}
    for _ in range(3):
        look(daemon)
    assert instance.status()["stored"] == 103
    assert instance.status()["pending"] == 0


def test_a_backlog_larger_than_a_batch_is_stored_in_several(
    instance: Instance, outbox: Written
) -> None:
    instance.configure(batch_events_max=50)
    outbox.write(420)
    instance.start()
    collect_status = instance.settle()
    check_sums(collect_status, attempted=420, accepted=420)
    assert (collect_status["stored"], collect_status["commits"]) == (420, 9)
    until(lambda: not outbox.path.exists(), "the file is removed behind the last commit")


def test_a_stop_past_its_deadline_stores_what_is_no_longer_in_the_queue(
    instance: Instance, daemon: SteppedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a part of a large datagram; the rest of it is in no outbox."""
    daemon.start()
    count = 3000
    records = b"".join(datagram(sequence)[16:] for sequence in range(1, count + 1))
    with sender(instance) as sock:
        sock.send(datagram(1)[:16] + records)
    monkeypatch.setattr(StepBudget, "charge", lambda self, uid, *_: self.over.add(uid))
    daemon.stop(deadline_s=time.monotonic() - 1)
    state = instance.status()
    check_sums(state, attempted=count, accepted=count)
    assert state["stored"] == count


def test_a_socket_that_another_process_has_made_blocking_is_drained_all_the_same(
    instance: Instance,
) -> None:
    """systemd clears the non-blocking flag when it passes a socket to a service."""
    receiver = Receiver(bind(instance.config.socket, socket.SOCK_DGRAM, 0o600))
    os.set_blocking(receiver.socket.fileno(), True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(instance.socket)
        sender.send(b"one")
        taken: list[bytes] = []
        draining = threading.Thread(
            target=lambda: taken.extend(data for data, *_ in receiver.datagrams()), daemon=True
        )
        draining.start()
        draining.join(10)
        assert not draining.is_alive()
    receiver.close()
    assert taken == [b"one"]


# -- jobs between the steps


class Worked:
    """Takes the place of the worker, and counts its steps."""

    due_s = 0.0
    steps = looks = 0

    def attach_daemon(self, _mark_queue: object) -> None:
        pass

    def poll(self) -> None:
        self.looks += 1

    def step(self) -> None:
        self.steps += 1


@pytest.fixture
def worked() -> Worked:
    return Worked()


@pytest.fixture
def now_s() -> list[float]:
    """The clock of `working`, as the only element: 0 at the last step of a job."""
    return [0.0]


@pytest.fixture
def working(instance: Instance, worked: Worked, now_s: list[float]) -> Iterator[SteppedDaemon]:
    """A stepped daemon with the counting worker."""
    made = SteppedDaemon(instance, worker=worked, monotonic_s=lambda: now_s[0])
    yield made
    made.close()


def test_a_job_step_is_taken_between_commits_and_delays_none(
    working: SteppedDaemon, worked: Worked, now_s: list[float]
) -> None:
    state = working.delivery.state
    state.commit_due_s = 60.0
    working.work()
    assert (worked.steps, worked.looks) == (1, 1)  # nothing waits
    state.batch.touch(Producer(uid=1, id=1, seed=1))
    working.work()
    assert worked.steps == 2  # its commit is far enough away
    state.commit_due_s = STEP_S / 2
    working.work()
    assert worked.steps == 2
    state.work_left = True
    working.work()
    assert worked.steps == 2
    now_s[0] = 2 * WORK_INTERVAL_MAX_S  # busy for so long
    working.work()
    assert worked.steps == 3


def test_while_nothing_can_be_stored_no_step_is_taken(
    working: SteppedDaemon, worked: Worked, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    with monkeypatch.context() as context:
        context.setattr(Store, "commit", no_space)
        working.start()
        assert working.stalled is not None
        working.run_once(timeout_s=0)
        assert worked.steps == 0
    working.run_once(timeout_s=0)
    working.run_once(timeout_s=0)
    assert worked.steps == 1, "now it is"
