"""The daemon's turns, one at a time, in this process: the order of what it asks, reads and says."""

from __future__ import annotations

import os
import re
import resource
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logd.audit.verify import verify
from logd.batch import LOST_NOT_RECEIVED, LOST_OUTBOX_GONE, Batch, Producer
from logd.errors import StorageBusy
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.ordering import Intake
from logd.ingest.outbox_directory import TEMPORARY_AGE_MAX_S, OutboxDirectory
from logd.ingest.receiver import Receiver, bind
from logd.maintenance.worker import STEP_S
from logd.serve.loop import WORK_INTERVAL_MAX_S, EventLoop
from logd.status.collect import collect_status
from logd.storage import keyfile
from logd.storage.store import Store
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_CONFIRMED_POSITION,
    WORD_CONFIRMED_SEQUENCE,
    WORD_CREATED_NS,
    WORD_FAREWELL,
    WORD_GIVEN_UP,
    WORD_PID,
    WORD_REFUSED,
    WORD_WRITTEN,
    aligned,
    outbox_bytes,
    parse_header,
)
from logd_wire.outbox.names import TEMPORARY_PREFIX, outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.wire import RECORD_HEAD, encode_farewell, pack_payload
from tests.support.instance import Instance, check_sums, emitters, until

PRODUCER = 5
GONE_PID = 2**31 - 1  # more than a kernel gives to any process


class Written:
    """An outbox file as a dead producer leaves it, without a lock."""

    def __init__(self, directory: Path, producer_id: int = PRODUCER) -> None:
        self.path = directory / outbox_name(os.getuid(), producer_id)
        self._buffer = bytearray(outbox_bytes(RING_BYTES_MIN))
        self._writer = OutboxWriter(memoryview(self._buffer), producer_id, GONE_PID, now_ns=1)
        self._payload = pack_payload(msgpack.Packer(), "page_view", 1, None, None)

    def write(self, count: int, confirmed_position: int = 0) -> None:
        for _ in range(count):
            assert self._writer.append(self._payload)
        self._writer._words[WORD_CONFIRMED_POSITION] |= confirmed_position
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.write(self._buffer)

    def spoil(self, number: int) -> None:
        """Changes a byte of that record, counted from 0; all are of the same size."""
        size = aligned(RECORD_HEAD.size + len(self._payload))
        with open(self.path, "r+b") as file:
            file.seek(HEADER_BYTES + number * size + size - 8)
            file.write(b"?" * 8)

    @property
    def confirmed(self) -> int:
        data = self.path.read_bytes()
        return parse_header(data[:HEADER_BYTES], len(data)).confirmed_sequence


@pytest.fixture
def outbox(instance: Instance) -> Written:
    return Written(instance.config.outbox_directory)


def new_daemon(instance: Instance, monotonic_s: Callable[[], float] = time.monotonic) -> EventLoop:
    """A daemon that runs a round only when it is called."""
    config = replace(instance.config, commit_interval_ms=0)  # each turn commits
    store = Store(config.database, keyfile.read(config.key_file), 1, config.quarantine_rows_max)
    outboxes = OutboxDirectory(config.outbox_directory)
    outboxes.prepare(str(config.socket))
    receiver = Receiver(bind(config.socket, socket.SOCK_DGRAM, config.socket_mode))
    return EventLoop(config, store, receiver, outboxes, clock_ns=lambda: 7, monotonic_s=monotonic_s)


@pytest.fixture
def daemon(instance: Instance) -> Iterator[EventLoop]:
    made = new_daemon(instance)
    yield made
    made.close()


def look(daemon: EventLoop) -> None:
    """One turn in which the look is due, and those that it takes to open and search all files."""
    daemon.delivery.turn.poll_due_s = 0.0
    daemon.run_once(timeout_s=0)
    while daemon.delivery.tasks or daemon.delivery.finder.is_listing:
        daemon.run_once(timeout_s=0)


def test_rule_4_whether_it_lives_is_asked_before_its_last_event_is_read(
    instance: Instance, daemon: EventLoop, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes once more and dies between the two questions, in whichever order they come."""
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
    instance: Instance, daemon: EventLoop, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)

    def full(*_: object) -> None:
        raise StorageBusy("full")

    with monkeypatch.context() as context:
        context.setattr(Store, "commit", full)
        daemon.start()
        for _ in range(3):
            daemon.run_once(timeout_s=0)
        assert (outbox.confirmed, instance.status()["stored"]) == (0, 0)
        assert instance.status()["pending"] == 3
    daemon.run_once(timeout_s=0)
    assert (outbox.confirmed, instance.status()["stored"]) == (3, 3)
    check_sums(instance.status(), attempted=3, accepted=3)


def test_while_nothing_can_be_stored_nothing_more_is_read(
    instance: Instance, daemon: EventLoop, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past what it has in hand it stops reading: the outboxes keep, memory stays bounded."""
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


def test_two_sights_of_a_producer_at_start_are_one_producer(
    instance: Instance, daemon: EventLoop
) -> None:
    """It is recorded as ended, since its outbox is missing, and sends in the same step."""
    from tests.logd.test_hostile import datagram, sender

    with sender(instance) as sock:
        sock.send(datagram(1))
        daemon.run_once(timeout_s=0)
        daemon._store._connection.execute("UPDATE producer SET has_outbox = 1")
        for key in list(daemon.delivery.intake.producers):
            del daemon.delivery.intake.producers[key]
        for sequence in (2, 3, 4):
            sock.send(datagram(sequence))
        daemon.start()
    (watermark,) = daemon._store._connection.execute("SELECT watermark FROM producer").fetchone()
    assert watermark == 4
    assert [event["sequence"] for event in instance.events()] == [1, 2, 3, 4]
    instance.cli("verify")


def test_a_stop_past_its_deadline_stores_what_is_no_longer_in_the_queue(
    instance: Instance, daemon: EventLoop
) -> None:
    """A turn takes a part of a large datagram; the rest of it is in no outbox."""
    from tests.logd.test_hostile import datagram, sender

    daemon.start()
    count = 3000
    records = b"".join(datagram(sequence)[16:] for sequence in range(1, count + 1))
    with sender(instance) as sock:
        sock.send(datagram(1)[:16] + records)
    budget = daemon.delivery.drain._budget
    budget.charge = lambda uid, *_: budget.over.add(uid)  # type: ignore[method-assign]
    daemon.stop(deadline_s=time.monotonic() - 1)
    state = instance.status()
    check_sums(state, attempted=count, accepted=count)
    assert state["stored"] == count


_numbers = st.one_of(
    st.integers(0, 5),
    st.sampled_from([2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]),
    st.integers(0, 2**64 - 1),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from(
            [WORD_PID, WORD_CREATED_NS, WORD_WRITTEN, WORD_FAREWELL, WORD_CONFIRMED_SEQUENCE]
            + [WORD_CONFIRMED_POSITION, WORD_REFUSED, WORD_REFUSED + 1]
        ),
        _numbers,
        max_size=5,
    ),
    st.integers(0, 5),
)
def test_no_words_in_a_strangers_header_end_the_daemon_at_this_start_or_the_next(
    instance: Instance, words: dict[int, int], records: int
) -> None:
    """Nor do they break the sums that `status` and `verify` show."""
    config = replace(instance.config, commit_interval_ms=0)
    outbox = Written(config.outbox_directory)
    outbox.write(records)
    with open(outbox.path, "r+b") as file:
        for index, value in words.items():
            file.seek(index * 8)
            file.write(value.to_bytes(8, sys.byteorder))
    for start in (1, 2):
        store = Store(config.database, keyfile.read(config.key_file), start, 10)
        store._connection.execute("UPDATE producer SET boot_id = 'earlier' WHERE ended = 0")
        outboxes = OutboxDirectory(config.outbox_directory)
        outboxes.prepare(str(config.socket))
        receiver = Receiver(bind(config.socket, socket.SOCK_DGRAM, config.socket_mode))
        daemon = EventLoop(config, store, receiver, outboxes, clock_ns=lambda: 7)
        try:
            daemon.start()
            for _ in range(6):
                look(daemon)
            assert verify(store._connection).findings == []
            assert collect_status(config)["lost"] < 2**40
        finally:
            daemon.close()
        outbox.path.unlink(missing_ok=True)


def test_a_socket_that_another_process_has_made_waiting_is_drained_all_the_same(
    instance: Instance,
) -> None:
    """systemd clears that flag of the socket whenever it hands it to a service."""
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


@pytest.mark.parametrize("age_s", [0, 10**8, -(10**8)], ids=["now", "3 years ahead", "1970"])
def test_an_unfinished_outbox_is_removed_by_the_time_that_it_was_seen_and_no_clock(
    directory: Path, age_s: int
) -> None:
    """Its time is the wall clock's, which may have been set since it was made."""
    now_s = [0.0]
    outboxes = OutboxDirectory(directory, monotonic_s=lambda: now_s[0])
    outboxes.attach()
    file = directory / f"{TEMPORARY_PREFIX}just-begun"
    file.touch()
    moment_s = time.time() - age_s
    os.utime(file, (moment_s, moment_s))
    for now_s[0] in (0.0, 1.0, TEMPORARY_AGE_MAX_S):
        assert list(outboxes.names()) == []
        assert file.exists()
    file.unlink()
    now_s[0] += 1
    list(outboxes.names())
    file.touch()  # another of that name
    for later_s in (1, TEMPORARY_AGE_MAX_S):
        now_s[0] += later_s
        list(outboxes.names())
        assert file.exists()
    now_s[0] += 1
    list(outboxes.names())
    assert not file.exists()
    outboxes.close()


def test_unfinished_outboxes_are_remembered_up_to_a_bound(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.ingest.outbox_directory.TEMPORARY_MAX", 3)
    now_s = [0.0]
    outboxes = OutboxDirectory(directory, monotonic_s=lambda: now_s[0])
    outboxes.attach()
    for number in range(8):
        (directory / f"{TEMPORARY_PREFIX}{number}").touch()
    rounds = 0
    while any(directory.iterdir()):
        list(outboxes.names())
        assert len(outboxes._temporary) <= 3
        now_s[0] += TEMPORARY_AGE_MAX_S + 1
        rounds += 1
    assert rounds <= 8
    outboxes.close()


def test_out_of_descriptors_outboxes_wait_and_nothing_is_lost(instance: Instance) -> None:
    """Sixty producers, and a daemon that may open forty files."""
    import subprocess

    from tests.support.instance import ROOT

    code = (
        "import sys\nfrom logd_client import Client\n"
        "clients = [Client(sys.argv[1], outbox_bytes=65536) for _ in range(60)]\n"
        "assert all(c.emit('page_view') for c in clients for _ in range(3))\n"
    )
    subprocess.run([sys.executable, "-c", code, instance.socket], cwd=ROOT, check=True)

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

    instance.start(preexec_fn=few)
    status_ = instance.settle()
    check_sums(status_, attempted=180, accepted=180)
    assert (status_["stored"], status_["lost"]) == (180, 0)
    until(lambda: instance.status()["outboxes"] == 0, "all are removed")
    assert instance.stop() == 0


def test_a_client_without_an_outbox_is_heard_also_when_no_more_can_be_opened(
    instance: Instance, daemon: EventLoop
) -> None:
    """Its gaps are losses as ever: nothing of it waits in a file that could not be opened."""
    from tests.logd.test_hostile import datagram, sender

    daemon.start()
    daemon.delivery.outboxes.quota.files_max = 0
    with sender(instance) as sock:
        sock.send(datagram(1))
        sock.send(datagram(4))
    daemon.run_once(timeout_s=0)
    state = instance.status()
    check_sums(state, attempted=4, accepted=4)
    assert (state["stored"], state["lost"]) == (2, 2)


def test_an_outbox_given_up_is_removed_behind_the_commit_that_books_its_loss(
    instance: Instance, daemon: EventLoop, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    with open(outbox.path, "r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(bytes(RING_BYTES_MIN))  # its records are zeros now

    def full(*_: object) -> None:
        raise StorageBusy("full")

    daemon.delivery.opener.open_found(outbox.path.name, os.getuid(), PRODUCER)
    for opened in daemon.delivery.outboxes.values():
        opened.scans_left = 0
    with monkeypatch.context() as context:
        context.setattr(Store, "commit", full)
        for _ in range(5):
            look(daemon)
        assert not daemon.delivery.outboxes, "it is given up"
        assert outbox.path.exists()
    look(daemon)
    assert not outbox.path.exists()
    state = instance.status()
    check_sums(state, attempted=3, accepted=3)
    assert (state["stored"], state["lost"], state["pending"]) == (0, 3, 0)


def test_any_number_of_damaged_outboxes_makes_few_lines(
    instance: Instance, daemon: EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is searched past, three times, and given up: a line for each would be 200."""
    for producer_id in range(50):
        outbox = Written(instance.config.outbox_directory, producer_id)
        outbox.write(9)
        for number in range(1, 9, 2):
            outbox.spoil(number)
    daemon.start()
    for _ in range(20):
        look(daemon)
    state = instance.status()
    check_sums(state, attempted=450, accepted=450)
    assert state["lost"] > 0
    assert state["quarantined"] == 50
    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(lines) <= 5


@pytest.mark.parametrize(
    ("per_user", "in_all", "any_user", "most"), [(10, 1000, 16, 20), (1000, 30, 16, 30)]
)
def test_refused_outboxes_are_remembered_up_to_a_bound_and_the_others_wait(
    instance: Instance,
    daemon: EventLoop,
    monkeypatch: pytest.MonkeyPatch,
    per_user: int,
    in_all: int,
    any_user: int,
    most: int,
) -> None:
    """Their headers look right, so that only reading them shows what they are."""
    monkeypatch.setattr("logd.ingest.refused_files.REFUSED_PER_USER_MAX", per_user)
    monkeypatch.setattr("logd.ingest.refused_files.REFUSED_MAX", in_all)
    monkeypatch.setattr("logd.ingest.refused_files.REFUSED_OF_ANY_USER", any_user)
    spoiled = [Written(instance.config.outbox_directory, n) for n in range(100, 160)]
    for outbox in spoiled:
        outbox.write(1, confirmed_position=8)
    good = Written(instance.config.outbox_directory, 7)
    daemon.start()
    good.write(3)
    for _ in range(4):
        look(daemon)
    assert len(daemon._directory.refused) <= most
    assert instance.status()["quarantined"] <= most
    for outbox in spoiled:
        outbox.path.unlink()
    for _ in range(3):
        look(daemon)
    state = instance.status()
    assert (state["stored"], state["lost"], state["pending"]) == (3, 0, 0)
    assert not daemon._directory.refused
    assert not daemon._directory.refused._of_user


def test_the_status_reads_the_watermarks_of_outboxes_only(
    instance: Instance, daemon: EventLoop
) -> None:
    """Of all the producers that there ever were, it would take any amount of memory."""
    daemon.start()
    daemon._store.connection.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM n WHERE n < 51000)"
        " INSERT INTO producer SELECT n, 5, printf('%016x', n), 1, 0, 1, '', 1, 1, 1 FROM n"
    )
    tracemalloc.start()
    try:
        collect_status(instance.config)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1024 * 1024


def test_an_outbox_that_could_not_be_seen_for_a_while_is_its_living_producers_again(
    instance: Instance, daemon: EventLoop, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start with another directory booked it as gone. Back in its place, it must not be removed
    from under its producer as if that had ended.
    """
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    daemon.start()
    aside = outbox.path.with_suffix(".aside")
    outbox.path.rename(aside)
    for opened in list(daemon.delivery.outboxes):
        daemon._directory.release(daemon.delivery.outboxes._open.pop(opened))
        daemon.delivery.intake.forget(opened)
    daemon.start()
    assert instance.status()["unknown_extent"] == 1, "it is booked as gone"
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
    daemon: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_: OutboxDirectory) -> list[tuple[str, int, int]]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(OutboxDirectory, "names", no_descriptor)
    with pytest.raises(StorageBusy, match="Too many open files"):
        daemon.start()


def test_outboxes_that_take_more_memory_than_their_bound_are_said_with_their_user(
    instance: Instance,
) -> None:
    """They are not in the daemon's own memory: it says so, and reads them as ever."""
    instance.configure(outboxes_bytes_max=1024 * 1024)
    daemon = instance.start()
    with emitters(instance, count=1, events=10**9) as (emitter,):
        until(lambda: daemon.says("outboxes_bytes_max is 1048576"), "the surplus is said")
        (line,) = [line for line in daemon.lines if "outboxes_bytes_max" in line]
        # One process: its ring, and those that it has outgrown and that are not removed yet.
        assert re.search(rf"in [123] files, belongs to user {os.getuid()}$", line)
        emitter.close()
        accepted, refused = emitter.accepted, emitter.refused
    status_ = instance.settle()
    check_sums(status_, attempted=accepted + refused, accepted=accepted, refused=refused, killed=1)
    assert status_["lost"] == 0


# -- jobs between the turns


class Worked:
    """Stands for the worker: counts its steps."""

    due_s = 0.0
    steps = looks = 0

    def poll(self) -> None:
        self.looks += 1

    def step(self) -> None:
        self.steps += 1


def test_a_step_at_stored_events_is_taken_between_commits_and_holds_none_up(
    daemon: EventLoop,
) -> None:
    worked = Worked()
    daemon._worker = worked  # type: ignore[assignment] # what the daemon calls of it
    now_s = time.monotonic()
    daemon._worked_s, daemon.delivery.turn.commit_due_s = now_s + 60, now_s + 60
    daemon.work()
    assert (worked.steps, worked.looks) == (1, 1)  # nothing waits
    daemon._worked_s = now_s + 60
    daemon.delivery.turn.batch.touch(Producer(uid=1, id=1, seed=1))
    daemon.work()
    assert worked.steps == 2  # its commit is far enough away
    daemon._worked_s, daemon.delivery.turn.commit_due_s = now_s + 60, time.monotonic() + STEP_S / 2
    daemon.work()
    assert worked.steps == 2
    daemon.delivery.turn.work_left = True
    daemon.work()
    assert worked.steps == 2
    daemon._worked_s = time.monotonic() - 2 * WORK_INTERVAL_MAX_S  # busy for so long
    daemon.work()
    assert worked.steps == 3


def test_while_nothing_can_be_stored_no_step_is_taken(
    daemon: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = Worked()
    daemon._worker = worked  # type: ignore[assignment] # what the daemon calls of it
    daemon.delivery._stalled = StorageBusy("full")
    monkeypatch.setattr(daemon.delivery, "commit", lambda: None)
    daemon.run_once(timeout_s=0)
    assert worked.steps == 0
    daemon.delivery._stalled = None


@pytest.mark.parametrize("batch_events", [2, 20_000])
def test_what_can_be_read_of_an_outbox_that_is_given_up_is_stored_and_its_producer_is_told(
    instance: Instance,
    daemon: EventLoop,
    outbox: Written,
    monkeypatch: pytest.MonkeyPatch,
    batch_events: int,
) -> None:
    """Its header contradicts itself: the records after the last stored one are good."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    monkeypatch.setattr(
        daemon.delivery.turn,
        "new_batch",
        lambda: Batch(batch_events, 10**6, daemon._config.gap_events_max),
    )
    outbox.write(3)
    daemon.start()
    look(daemon)
    assert instance.status()["stored"] == 3
    with open(outbox.path, "rb") as file:
        outbox._writer._words[WORD_CONFIRMED_SEQUENCE] = 1000
        outbox.write(10)
        for _ in range(12):
            look(daemon)
        assert not outbox.path.exists()
        file.seek(WORD_GIVEN_UP * 8)
        assert int.from_bytes(file.read(8), sys.byteorder) == 1
    state = instance.status()
    check_sums(state, attempted=13, accepted=13)
    assert (state["stored"], state["lost"], state["quarantined"]) == (13, 0, 1)


def test_an_outbox_that_is_given_up_is_not_read_for_ever(
    instance: Instance, daemon: EventLoop, outbox: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer keeps writing good records into it, a batch for each that is read."""
    monkeypatch.setattr(OpenOutbox, "alive", lambda _: True)
    outbox.write(3)
    daemon.start()
    look(daemon)
    monkeypatch.setattr(
        daemon.delivery.turn, "new_batch", lambda: Batch(200, 10**6, daemon._config.gap_events_max)
    )
    daemon.delivery.turn.batch = daemon.delivery.turn.new_batch()
    outbox._writer._words[WORD_CONFIRMED_SEQUENCE] = 2**40

    def write(count: int) -> None:
        outbox._writer._words[WORD_CONFIRMED_POSITION] = outbox._writer.bytes_written
        outbox.write(count)

    records = Intake.take_outbox_records

    def and_as_many_more(self: Intake, producer: Producer, payloads: Any, batch: Batch) -> None:
        records(self, producer, payloads, batch)
        if outbox.path.exists():
            write(len(payloads))

    monkeypatch.setattr(Intake, "take_outbox_records", and_as_many_more)
    write(400)
    for _ in range(100):
        look(daemon)
    assert not outbox.path.exists(), "a ring's fill and no more"
    accepted = outbox._writer.written
    check_sums(instance.settle(), attempted=accepted, accepted=accepted)


# -- an outbox that is gone when the daemon starts -----------------------------------------------


def known(daemon: EventLoop, pid: int) -> None:
    """A producer of which 3 events are stored, and whose outbox is not there any more."""
    daemon._store.connection.execute(
        "INSERT INTO producer SELECT 1, ?, printf('%016x', ?), 3, 1, 0, boot_id, ?, 1, 1 FROM run",
        (os.getuid(), PRODUCER, pid),
    )
    daemon._store._load()


def ledger(daemon: EventLoop) -> list[tuple[int, int | None, str]]:
    rows = daemon._store.connection.execute("SELECT first, last, cause FROM loss").fetchall()
    return list(rows)


def test_a_removed_outbox_is_booked_once_where_its_process_lives_and_says_farewell(
    instance: Instance, daemon: EventLoop
) -> None:
    """Within the boot it can still say what is missing: a row without numbers would be another."""
    from tests.logd.test_hostile import sender

    known(daemon, os.getpid())
    daemon.start()
    look(daemon)
    assert ledger(daemon) == []
    with sender(instance) as sock:
        sock.send(encode_farewell(PRODUCER, 8, {}))
    look(daemon)
    assert ledger(daemon) == [(4, 8, LOST_NOT_RECEIVED)]


def test_a_farewell_that_waits_in_the_queue_at_the_start_is_heard_before_the_loss_is_booked(
    instance: Instance, daemon: EventLoop
) -> None:
    from tests.logd.test_hostile import datagram, sender

    known(daemon, GONE_PID)
    with sender(instance) as sock:
        sock.send(datagram(1, PRODUCER + 1))
        sock.send(encode_farewell(PRODUCER, 8, {}))
    daemon.delivery.turn.batch = Batch(4, 10**6)  # the first turn has room for the first of them
    daemon.start()
    assert ledger(daemon) == []
    look(daemon)
    assert ledger(daemon) == [(4, 8, LOST_NOT_RECEIVED)]


def test_a_removed_outbox_whose_process_has_ended_is_booked_without_numbers(
    instance: Instance, daemon: EventLoop
) -> None:
    known(daemon, GONE_PID)
    daemon.start()
    look(daemon)
    assert ledger(daemon) == [(4, None, LOST_OUTBOX_GONE)]
    assert instance.status()["unknown_extent"] == 1
