"""An outbox that follows another is read after it; and whatever its header claims, it is read."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from logd.batch import Batch, Producer
from logd.ingest.ordering import Intake
from logd.ingest.outbox_opener import PREDECESSORS_MAX
from logd.ingest.succession import Succession
from logd_wire import liveness
from logd_wire.outbox.layout import HEADER_BYTES, RING_BYTES_MIN, WORD_VERSION, outbox_bytes
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.wire import datagram_head, encode_record, pack_payload, producer_seed
from tests.logd.stepped_daemon import SteppedDaemon
from tests.support.instance import Instance, check_sums

FIRST, SECOND, THIRD = 11, 22, 33
EVENTS = 40


class Written:
    """An outbox of another process, whose events have its id and their number as props."""

    def __init__(self, directory: Path, producer_id: int, follows: int = 0) -> None:
        self.id = producer_id
        self.path = directory / outbox_name(os.getuid(), producer_id)
        self.buffer = bytearray(outbox_bytes(RING_BYTES_MIN))
        self._writer = OutboxWriter(
            memoryview(self.buffer), producer_id, pid=1, now_ns=1, follows=follows
        )
        self.count = 0

    def write(self, count: int = EVENTS) -> Written:
        for _ in range(count):
            self.count += 1
            assert self._writer.append(payload(self.id, self.count))
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.write(self.buffer)
        else:
            self.path.write_bytes(self.buffer)
        return self


@contextlib.contextmanager
def living(path: Path) -> Iterator[None]:
    """Another process holds the lock of that outbox meanwhile."""
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        liveness.acquire(os.open(path, os.O_RDWR))
        os.write(tells, b"!")
        while True:
            signal.pause()
    try:
        assert os.read(told, 1) == b"!"
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tells)


def payload(producer_id: int, number: int) -> bytes:
    props = {"id": producer_id, "n": number, "text": "x" * 200}
    return pack_payload(msgpack.Packer(), "page_view", 1, None, props)


Make = Callable[..., SteppedDaemon]


@pytest.fixture
def make(instance: Instance) -> Iterator[Make]:
    """A daemon that runs a round only when it is called."""
    made: list[SteppedDaemon] = []

    def start(**settings: Any) -> SteppedDaemon:
        made.append(SteppedDaemon(instance, **settings))
        return made[0]

    yield start
    for daemon in made:
        daemon.close()


@pytest.fixture
def outbox(instance: Instance) -> Callable[..., Written]:
    directory = instance.config.outbox_directory
    return lambda *arguments, **named: Written(directory, *arguments, **named)


def look(daemon: SteppedDaemon, times: int = 1) -> None:
    """Steps in which a poll is due, until nothing more can be done at once."""
    for _ in range(times):
        daemon.delivery.state.poll_due_s = 0.0
        daemon.run_once(timeout_s=0)
        for _ in range(200):
            if not (
                daemon.delivery.tasks
                or daemon.delivery.finder.is_listing
                or daemon.delivery.has_backlog
            ):
                break
            daemon.run_once(timeout_s=0)


def stored(instance: Instance) -> list[tuple[int, int]]:
    """The events in the order of the trail, as (producer, number)."""
    return [(event["props"]["id"], event["props"]["n"]) for event in instance.events()]


def all_of(*outboxes: Written) -> list[tuple[int, int]]:
    return [(one.id, number) for one in outboxes for number in range(1, one.count + 1)]


def listed(daemon: SteppedDaemon, *outboxes: Written) -> None:
    """Has the directory give their names in this order."""
    found = [(one.path.name, os.getuid(), one.id) for one in outboxes]
    daemon.directory.names = lambda: iter(found)  # type: ignore[method-assign] # in this order


# -- in order ------------------------------------------------------------------------------------


def test_what_a_daemon_finds_at_its_start_is_stored_in_the_order_of_writing(
    instance: Instance, make: Make, outbox: Callable[..., Written]
) -> None:
    daemon = make()
    first = outbox(FIRST).write()
    second = outbox(SECOND, follows=FIRST).write()
    third = outbox(THIRD, follows=SECOND).write()
    listed(daemon, third, second, first)
    daemon.start()
    look(daemon, 2)
    assert stored(instance) == all_of(first, second, third)
    assert list(instance.config.outbox_directory.glob("*.outbox")) == []
    check_sums(instance.status(), attempted=3 * EVENTS, accepted=3 * EVENTS)


def test_order_holds_where_a_batch_takes_only_a_part(
    instance: Instance, make: Make, outbox: Callable[..., Written]
) -> None:
    daemon = make(batch_events_max=7)
    first = outbox(FIRST).write()
    second = outbox(SECOND, follows=FIRST).write(3)
    listed(daemon, second, first)
    daemon.start()
    look(daemon, 2)
    assert stored(instance) == all_of(first, second)


def test_the_first_datagram_of_a_successor_waits_for_what_its_predecessor_wrote_last(
    instance: Instance, make: Make, outbox: Callable[..., Written]
) -> None:
    daemon = make()
    first = outbox(FIRST).write()
    with living(first.path):
        daemon.start()
        look(daemon)
        assert len(stored(instance)) == EVENTS
        first.write(5)  # of which no datagram came
    second = outbox(SECOND, follows=FIRST).write(2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(instance.socket)
        record = encode_record(producer_seed(SECOND), 1, payload(SECOND, 1))
        sender.send(datagram_head(SECOND) + record)
    daemon.delivery.state.poll_due_s = float("inf")
    while len(stored(instance)) < EVENTS + 7:
        daemon.run_once(timeout_s=0)
        assert daemon.delivery.has_backlog or len(stored(instance)) == EVENTS + 7, (
            "at once, without a look"
        )
    assert stored(instance) == all_of(first, second)


# -- whatever a header claims --------------------------------------------------------------------


def test_headers_that_follow_themselves_or_each_other_are_read(
    instance: Instance, make: Make, outbox: Callable[..., Written]
) -> None:
    daemon = make()
    itself = outbox(FIRST, follows=FIRST).write()
    one = outbox(SECOND, follows=THIRD).write()
    other = outbox(THIRD, follows=SECOND).write()
    daemon.start()
    look(daemon, 3)
    assert sorted(stored(instance)) == all_of(itself, one, other)
    check_sums(instance.status(), attempted=3 * EVENTS, accepted=3 * EVENTS)


def test_a_chain_longer_than_any_client_makes_is_read_and_opened_a_part_at_a_time(
    instance: Instance, make: Make, outbox: Callable[..., Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = make()
    chain = [outbox(100 + n, follows=99 + n if n else 0).write(1) for n in range(40)]
    listed(daemon, *reversed(chain))
    deepest = 0
    attach = daemon.delivery.opener.open

    def counted(producer: Producer, name: str) -> None:
        nonlocal deepest
        deepest = max(deepest, len(daemon.delivery.opener.opening))
        attach(producer, name)

    monkeypatch.setattr(daemon.delivery.opener, "open", counted)
    daemon.start()
    look(daemon, 3)
    assert deepest == PREDECESSORS_MAX
    assert sorted(stored(instance)) == all_of(*chain)


@pytest.mark.parametrize("first", ["missing", "foreign", "newer", "a directory", "another user's"])
def test_a_predecessor_that_cannot_be_read_is_not_waited_for(
    instance: Instance, make: Make, outbox: Callable[..., Written], first: str
) -> None:
    daemon = make()
    predecessor = outbox(FIRST)
    if first == "foreign":
        predecessor.path.write_bytes(b"no outbox")
    elif first == "newer":
        predecessor.buffer[WORD_VERSION * 8] = 9
        predecessor.write()
    elif first == "a directory":
        predecessor.path.mkdir()
    elif first == "another user's":
        predecessor.write()
        if os.getuid() != 0:
            pytest.skip("giving a file away needs root")
        os.chown(predecessor.path, 12345, 12345)
    second = outbox(SECOND, follows=FIRST).write()
    daemon.start()
    look(daemon)
    assert stored(instance) == all_of(second)
    assert not second.path.exists()


def test_a_damaged_predecessor_is_read_as_far_as_it_goes_and_then_waited_for_no_longer(
    instance: Instance, make: Make, outbox: Callable[..., Written]
) -> None:
    daemon = make()
    first = outbox(FIRST).write()
    with first.path.open("r+b") as file:
        file.seek(HEADER_BYTES + 300)
        file.write(os.urandom(RING_BYTES_MIN - 400))
    second = outbox(SECOND, follows=FIRST).write()
    listed(daemon, second, first)
    daemon.start()
    look(daemon, 8)
    assert stored(instance)[-EVENTS:] == all_of(second)
    status = instance.status()
    check_sums(status, attempted=2 * EVENTS, accepted=2 * EVENTS)
    assert status["lost"] == EVENTS - 1


def test_a_predecessor_that_lives_is_waited_for_up_to_what_it_had_written(
    instance: Instance, make: Make, outbox: Callable[..., Written]
) -> None:
    """A forged name: the named producer continues, and its later events are not waited for."""
    daemon = make()
    first = outbox(FIRST).write()
    with living(first.path):
        second = outbox(SECOND, follows=FIRST).write()
        listed(daemon, second, first)
        daemon.start()
        look(daemon, 2)
        assert stored(instance) == all_of(first, second)


@pytest.mark.parametrize("files_max", [1, 2, 3])
def test_where_only_few_files_may_be_open_the_predecessor_comes_first(
    instance: Instance,
    make: Make,
    outbox: Callable[..., Written],
    files_max: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = make(outboxes_per_user_max=files_max)
    add = daemon.delivery.outboxes.quota.add

    def counted(uid: int) -> None:
        add(uid)
        assert daemon.delivery.outboxes.quota.held(uid) <= files_max

    monkeypatch.setattr(daemon.delivery.outboxes.quota, "add", counted)
    first = outbox(FIRST).write()
    second = outbox(SECOND, follows=FIRST).write()
    third = outbox(THIRD, follows=SECOND).write()
    listed(daemon, third, second, first)
    daemon.start()
    look(daemon, 6)
    assert stored(instance) == all_of(first, second, third)
    assert list(instance.config.outbox_directory.glob("*.outbox")) == []


def test_a_successor_that_is_given_up_while_it_waits_continues_without_an_outbox(
    instance: Instance, make: Make, outbox: Callable[..., Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = make()
    first = outbox(FIRST).write()
    second = outbox(SECOND, follows=FIRST).write()
    with monkeypatch.context() as context:
        context.setattr(daemon.delivery.poller, "read", lambda *_: None)
        daemon.start()
    held = daemon.delivery.intake.producers[os.getuid(), SECOND]
    assert held.held
    opened = daemon.delivery.outboxes.get(held)
    assert opened is not None
    daemon.delivery.lifecycle.give_up(held, opened, "spoiled")
    assert not held.held
    assert not daemon.delivery.outboxes.succession
    look(daemon, 2)
    assert stored(instance) == all_of(first)
    assert instance.status()["lost"] == second.count


# -- pure ----------------------------------------------------------------------------------------


def producers() -> tuple[Producer, Producer]:
    return Producer(uid=1, id=1, seed=1), Producer(uid=1, id=2, seed=2)


def test_the_wait_ends_when_as_much_is_read_as_was_written_when_it_began() -> None:
    first, second = producers()
    succession = Succession({first: "its outbox"})
    succession.hold(second, first, written=3)
    assert (second.held, second.behind, first.behind) == (True, True, True)
    first.taken = 2
    assert not succession.release()
    assert second.held
    first.taken = 3
    assert succession.release()
    assert not second.held
    assert not succession


def test_whatever_becomes_of_the_predecessors_outbox_ends_the_wait() -> None:
    first, second = producers()
    opened = {first: "its outbox"}
    succession = Succession(opened)
    succession.hold(second, first, written=3)
    opened[first] = "the same file, opened again"
    assert succession.release()
    succession.hold(second, first, written=3)
    del opened[first]
    assert succession.release()
    assert not second.held


def test_what_is_read_already_or_not_open_is_not_waited_for() -> None:
    first, second = producers()
    succession: Succession[str] = Succession({second: "its outbox"})
    succession.hold(second, first, written=3)
    succession.hold(second, second, written=3)
    assert not second.held
    first.taken = 5
    Succession({first: "its outbox"}).hold(second, first, written=5)
    assert not second.held


def test_a_held_producers_datagrams_are_left_to_its_outbox() -> None:
    one = Producer(uid=1, id=SECOND, seed=producer_seed(SECOND), has_outbox=True, held=True)
    intake, batch = Intake(lambda _uid, _id: one, 10), Batch(10, 10_000)
    records = b"".join(encode_record(one.seed, n, payload(SECOND, n)) for n in (1, 2, 3))
    intake.take_datagram(datagram_head(SECOND) + records, 1, 9, batch)
    assert (one.taken, one.behind, len(batch.events)) == (0, True, 0)
    assert batch.duplicates == 0
    one.held = False
    intake.take_datagram(datagram_head(SECOND) + records, 1, 9, batch)
    assert (one.taken, len(batch.events)) == (3, 3)
