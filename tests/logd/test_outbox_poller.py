"""What the daemon polls when a file was closed, a poll is due, or the queue was full: no more.

The real core over a directory and a database in memory, as in the simulation, without its faults.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from logd.batch import Batch
from logd.errors import StorageBusy
from logd.ingest import delivery
from logd_wire.outbox.layout import RING_BYTES_MIN, outbox_bytes
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.wire import KIND_AWAITED, datagram_head, encode_record, producer_seed
from tests.simulation.disk import Disk, SimTrail
from tests.simulation.machine import Machine, SimOutbox
from tests.simulation.truth import Truth
from tests.simulation.world import File, Odds, Process, World

PAYLOAD = b"\x94\xa1x\x01\xc0\xc4\x01\x80"
GOOD, OTHER = 1000, 1001


class Watched:
    """A machine with a daemon, and counts of what the daemon asks of each outbox."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(random.Random(1), Odds(), Truth(), Disk(), act=lambda _: None)
        self.world.calm = True
        self.asked: Counter[str] = Counter()
        self.looked: Counter[str] = Counter()
        alive, written = SimOutbox.alive, SimOutbox.written

        def counted_alive(outbox: SimOutbox) -> bool:
            self.asked[outbox.name] += 1
            return alive(outbox)

        def counted_written(outbox: SimOutbox) -> int:
            self.looked[outbox.name] += 1
            return written(outbox)

        monkeypatch.setattr(SimOutbox, "alive", counted_alive)
        monkeypatch.setattr(SimOutbox, "written", counted_written)
        self.files: list[File] = []

    def outbox(self, uid: int = GOOD) -> File:
        """An outbox of a living producer, empty."""
        key = (uid, len(self.files) + 1)
        data = bytearray(outbox_bytes(RING_BYTES_MIN))
        OutboxWriter(memoryview(data), key[1], pid=1, now_ns=1)
        owner = self.world.process("web", uid, Process)
        file = File(outbox_name(*key), key, data, lock=owner)
        self.world.publish(file)
        self.files.append(file)
        return file

    def start(self) -> Machine:
        machine = self.world.process("logd", 0, Machine)
        machine.start()
        machine.run_once()
        self.world.closed.clear()
        self.forget()
        return machine

    def forget(self) -> None:
        self.asked.clear()
        self.looked.clear()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    # More than OPEN_MAX of the simulation: what is looked at is to be seen.
    monkeypatch.setattr("tests.simulation.machine.OPEN_MAX", 50)
    return Watched(monkeypatch)


def idle(machine: Machine) -> None:
    """Puts off everything that the clock brings."""
    core = machine.delivery
    core.state.poll_due_s = core.state.commit_due_s = machine.world.now_s + 1000


def test_a_file_that_was_closed_has_its_own_outbox_looked_at_and_no_other(
    watched: Watched,
) -> None:
    files = [watched.outbox() for _ in range(6)]
    machine = watched.start()
    idle(machine)
    watched.world.closed = {files[2].name, "1000-00000000000000ff.outbox", "x", ""}
    machine.run_once()
    assert watched.asked == {files[2].name: 1}
    assert watched.looked == {files[2].name: 1}
    watched.world.unlock(files[4])
    machine.run_once()
    machine.delivery.state.commit_due_s = 0.0
    machine.run_once()
    assert files[4].name not in watched.world.files, "a death is noticed at once"
    assert all(file.name in watched.world.files for file in files if file is not files[4])


def test_a_death_that_inotify_did_not_tell_is_found_by_the_next_look(watched: Watched) -> None:
    """Its queue was full of others' files."""
    files = [watched.outbox() for _ in range(3)]
    machine = watched.start()
    watched.world.unlock(files[0])
    watched.world.closed.clear()
    machine.delivery.state.poll_due_s = machine.delivery.state.commit_due_s = 0.0
    machine.run_once()
    assert files[0].name not in watched.world.files


def test_names_of_closed_files_take_a_bounded_time_of_a_step(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = watched.start()
    idle(machine)
    for _ in range(40):
        watched.outbox()
    machine.run_once()  # each one opened takes half a millisecond of this world's time
    opened = len(machine.delivery.outboxes)
    assert 0 < opened < 20
    while machine.delivery.tasks:
        machine.run_once()
    assert len(machine.delivery.outboxes) == 40, "the next steps open the rest"


def test_a_listing_takes_a_bounded_time_of_a_step(watched: Watched) -> None:
    machine = watched.start()
    for _ in range(40):
        watched.outbox()
    watched.world.closed.clear()
    idle(machine)
    machine.delivery.state.poll_due_s = 0.0
    machine.run_once()
    assert 0 < len(machine.delivery.outboxes) < 20
    assert machine.delivery.tasks, "it goes on in the next step"


def test_a_due_look_goes_through_all_outboxes_in_parts(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.ingest.outbox_poller.POLL_FILES_MAX", 4)
    for _ in range(10):
        watched.outbox()
    machine = watched.start()
    while machine.delivery.has_backlog:
        machine.run_once()
    idle(machine)
    watched.forget()
    machine.delivery.state.poll_due_s = 0.0
    per_step: list[int] = []
    while machine.delivery.has_backlog or not per_step:
        before = watched.asked.total()
        machine.run_once()
        per_step.append(watched.asked.total() - before)
    assert per_step == [4, 4, 2]
    assert set(watched.asked.values()) == {1}


def test_the_dead_for_whom_a_step_had_no_room_are_not_taken_for_living(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end in the next steps, not at the next poll."""
    monkeypatch.setattr("logd.ingest.scheduling.SHARED_OUTBOXES_MAX", 2)
    files = [watched.outbox() for _ in range(12)]
    watched.outbox(OTHER)
    machine = watched.start()
    idle(machine)
    for file in files:
        watched.world.unlock(file)
    for _ in range(8):
        machine.run_once()
    machine.delivery.state.commit_due_s = 0.0
    machine.run_once()
    assert len(watched.world.files) == 1


def test_after_a_full_queue_all_outboxes_are_read_and_no_liveness_is_checked(
    watched: Watched,
) -> None:
    """Nor are they read again before as much time has passed as that took."""
    for _ in range(6):
        watched.outbox()
    machine = watched.start()
    core = machine.delivery
    again = awaited(1, OTHER)
    watched.world.queue.append(again)
    machine.run_once()
    idle(machine)
    watched.world.queue.extend([again] * delivery.QUEUE_DEPTH_MIN)
    machine.run_once()
    assert watched.looked.total() == 6
    assert not watched.asked
    due_s = core.poller.poll_all_due_s = watched.world.now_s + 0.1
    watched.world.queue.extend([again] * delivery.QUEUE_DEPTH_MIN)
    machine.run_once()
    assert watched.looked.total() == 6
    assert core.next_due_s() == due_s, "it is not forgotten"
    watched.world.now_s = due_s
    machine.run_once()
    assert watched.looked.total() == 12


@pytest.mark.parametrize("others", [False, True])
def test_a_step_reads_less_than_a_batch_where_several_users_have_outboxes(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    monkeypatch.setattr("logd.ingest.scheduling.SHARED_EVENTS_MAX", 5)
    file = watched.outbox(GOOD)
    watched.outbox(OTHER if others else GOOD)
    machine = watched.start()
    writer = OutboxWriter(memoryview(file.data), file.key[1], pid=1, now_ns=1)
    for _ in range(20):
        assert writer.append(PAYLOAD)
    machine.delivery.state.poll_due_s = machine.delivery.state.commit_due_s = 0.0
    machine.run_once()
    assert len(watched.world.disk.view.events) == (5 if others else 20)


def awaited(sequence: int, uid: int) -> tuple[bytes, int, int, bool]:
    record = encode_record(producer_seed(70 + uid), sequence, PAYLOAD)
    return datagram_head(70 + uid, KIND_AWAITED) + record, uid, 9, False


def test_a_user_whose_events_are_awaited_without_end_does_not_set_the_pace_of_commits(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour's awaited event is stored at once, whatever the flooder has used up."""
    watched.outbox(GOOD)
    machine = watched.start()
    commits: list[set[int]] = []
    commit = SimTrail.commit

    def slow(trail: SimTrail, batch: Batch, now_ns: int) -> None:
        commits.append({producer.uid for producer in batch.producers})
        commit(trail, batch, now_ns)
        watched.world.now_s += 0.1

    monkeypatch.setattr(SimTrail, "commit", slow)
    idle(machine)
    watched.world.queue.append(awaited(1, OTHER))
    machine.run_once()
    assert commits == [{OTHER}], "the first one is stored at once"
    idle(machine)
    watched.world.queue.append(awaited(2, OTHER))
    machine.run_once()
    assert len(commits) == 1, "the next waits as long as that took"
    rest_until_s = machine.delivery.next_due_s()
    assert 0.05 < rest_until_s - watched.world.now_s <= 0.11
    watched.world.queue.append(awaited(1, GOOD))
    machine.run_once()
    assert commits[1:] == [{OTHER, GOOD}]
    idle(machine)
    watched.world.queue.append(awaited(3, OTHER))
    machine.run_once()
    assert len(commits) == 2
    watched.world.now_s += 0.15
    machine.run_once()
    assert len(commits) == 3


def test_where_no_other_user_has_an_outbox_each_awaited_event_is_stored_at_once(
    watched: Watched,
) -> None:
    watched.outbox(GOOD)
    machine = watched.start()
    for sequence in range(1, 6):
        idle(machine)
        watched.world.queue.append(awaited(sequence, GOOD))
        machine.run_once()
        assert not machine.delivery.state.batch


def test_what_was_received_and_not_taken_is_kept_over_a_full_disk(watched: Watched) -> None:
    """It has left the kernel's queue, and may be in no outbox."""
    machine = watched.start()
    core = machine.delivery
    seed = producer_seed(5)
    numbers = range(1, 4001)
    records = b"".join(encode_record(seed, number, PAYLOAD) for number in numbers)
    watched.world.queue.append((datagram_head(5) + records, OTHER, 9, False))
    machine._check_bounds = lambda: None  # type: ignore[method-assign] # its batches are smaller
    watched.world.disk.full = True
    machine.run_once()
    assert core.holds_datagram
    for _ in range(3):
        machine.run_once()
    watched.world.disk.full = False
    while core.has_backlog or isinstance(core.stalled, StorageBusy):
        machine.run_once()
    stored = [sequence for _, sequence in watched.world.disk.view.events]
    assert stored == list(numbers)
