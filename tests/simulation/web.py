"""Simulated web processes: the real client and ring, over memory where stores can be cut short."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from logd_client import Client
from logd_client.client import _clients as clients
from logd_client.clock import Clock
from logd_client.environment import Environment
from logd_client.formers import Former
from logd_client.producer import OUTBOX_RETRY_FIRST_S, Producer
from logd_wire.forks import Generation
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    RING_BYTES_MIN,
    WORD_RETIRED,
    WORD_WRITTEN,
    outbox_bytes,
)
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.rendezvous import NoOutbox
from logd_wire.schema import Malformed
from logd_wire.wire import (
    KIND_AWAITED,
    datagram_head,
    producer_seed,
    unpack_payload,
    unpack_props,
)
from tests.simulation.truth import Key, Violation, records_of
from tests.simulation.world import File, Process
from tests.support import client_parts as parts


class SimMark:
    """A page that the kernel wipes in a child: true for the process that made it alone."""

    def __init__(self, owner: Web, asker: Web) -> None:
        self._owner = owner
        self._asker = asker

    def __getitem__(self, _index: int) -> int:
        return int(self._owner is self._asker)

    def inherited_by(self, child: Web) -> SimMark:
        """The same page as that child sees it."""
        return SimMark(self._owner, child)


class SimGeneration:
    """`logd_wire.forks.Generation` of a simulated process."""

    def __init__(self, process: Web) -> None:
        self.mark = SimMark(process, process)
        self.lock = threading.RLock()
        self.busy = False


@dataclass(eq=False)
class Web(Process):
    """A web process with one client."""

    outbox_bytes: int = RING_BYTES_MIN
    has_memory: bool = True  # else it has no outbox, as a container with its own /dev/shm
    went_without: bool = False
    appending: bytes = b""  # the payload that the next store counts
    writer_type: type[OutboxWriter] = OutboxWriter
    client: SimClient = field(init=False)
    accepted: int = 0
    writing_to: _OutboxFile | None = None
    heard: list[bytes] = field(default_factory=list)  # payloads accepted in the present call
    timeouts: int = 0  # ordinary exceptions that signal handlers raised in it
    timeouts_in_all: int = 0
    true: int = 0
    false: int = 0
    cut: int = 0
    sends: int = 0

    @functools.cached_property
    def generation(self) -> SimGeneration:
        """What distinguishes this process from its parent."""
        return SimGeneration(self)

    def call(self, emit: Callable[[], bool]) -> bool:
        """One call of the client's, counted; a kill or a signal handler may cut it short."""
        truth = self.world.truth
        truth.calls += 1
        self.cut += 1
        truth.cut += 1
        self.heard.clear()
        self.writing_to = None
        self.timeouts = 0
        try:
            accepted = emit()
        except BaseException:
            self.excuse_unheard()
            raise
        self.cut -= 1
        truth.cut -= 1
        if accepted:
            if self.went_without and self.timeouts:
                truth.perhaps_unsent += 1
            self.true += 1
            truth.true += 1
        else:
            self.false += 1
            truth.false += 1
        return accepted

    def excuse_unheard(self) -> None:
        """The call is cut short. What it wrote to an outbox that is retired and gone was to be
        moved in the same call, before it returns.
        """
        outbox = self.writing_to
        if outbox is not None and outbox.removed() and outbox.file.word(WORD_RETIRED):
            self.world.truth.excused.add((outbox.file.key, outbox.file.word(WORD_WRITTEN)))

    def close_descriptors(self) -> None:
        """All that the application finds open, ours among them; the mapping stays."""
        self.world.trace.append((self.name, "DESCRIPTORS CLOSED"))
        producer = parts.current(self.client)
        outbox: Any = producer.outbox if producer is not None else None
        if outbox is not None:
            outbox.closed = True
            outbox.release_descriptor()

    def check_claim(self, number: int, claim: str) -> None:
        """Check that the event of that number, which the call accepted, really was.

        Without an outbox its number may be used up and the send cut short: then it is lost by
        number, and counts as accepted all the same.
        """
        if number not in map(_number, self.heard) and not (self.went_without and self.timeouts):
            raise Violation(f"{self.name}: event {number} was called {claim} and never was")

    def check_stats(self) -> None:
        """Check that the client's counts agree with its answers, and with what happened."""
        stats = self.client.stats()
        del stats["outbox"]  # its times are real ones, and no two runs have the same
        # Without an outbox a number is used up before the kernel takes it; a call that is cut short
        # in between is a loss by number.
        unsent = self.cut + self.timeouts_in_all if self.went_without else 0
        if not self.accepted <= stats["accepted"] <= self.accepted + unsent:
            raise Violation(f"{self.name}: {self.accepted} were accepted, stats say {stats}")
        if stats["attempted"] != stats["accepted"] + stats["refused"]:
            raise Violation(f"{self.name}: attempted is not accepted + refused: {stats}")
        if stats["accepted"] < self.true or stats["refused"] < self.false:
            raise Violation(f"{self.name}: true {self.true}, false {self.false}, stats {stats}")


class _Words:
    """A header's words as the writer sees them: each store is seen by others at once, or never."""

    def __init__(self, process: Web, file: File) -> None:
        self._process = process
        self._file = file
        self.released = False

    def cast(self, _: str) -> _Words:
        return self

    def __getitem__(self, index: int) -> int:
        if self.released:
            raise ValueError("released")
        return self._file.word(index)

    def __setitem__(self, index: int, value: int) -> None:
        if self.released:
            raise ValueError("released")
        process = self._process
        process.step(f"store word {index}")
        self._file.store(index, value)
        if index == WORD_WRITTEN:
            process.world.truth.accept(self._file.key, value, process.appending)
            process.accepted += 1
            process.heard.append(process.appending)
        process.step(f"word {index} is {value}")

    def tolist(self) -> list[int]:
        return [self._file.word(index) for index in range(HEADER_BYTES // 8)]

    def release(self) -> None:
        self.released = True


class _Ring:
    """The ring as the writer sees it: what it copies may be seen, or cut short, half way."""

    def __init__(self, process: Web, file: File) -> None:
        self._process = process
        self._file = file
        self.released = False

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self._file.data) - HEADER_BYTES)
        return bytes(self._file.data[HEADER_BYTES + start : HEADER_BYTES + stop])

    def __setitem__(self, part: slice, data: bytes) -> None:
        if self.released:
            raise ValueError("released")
        start, stop, _ = part.indices(len(self._file.data) - HEADER_BYTES)
        start, stop, half = HEADER_BYTES + start, HEADER_BYTES + stop, len(data) // 2
        self._process.step("copy record")
        self._file.data[start : start + half] = data[:half]
        self._process.step("half a record copied")
        self._file.data[start + half : stop] = data[half:]

    def release(self) -> None:
        self.released = True


class _Memory:
    """What `OutboxWriter` takes for the mapping."""

    def __init__(self, process: Web, file: File) -> None:
        self._process = process
        self._file = file

    def __len__(self) -> int:
        return len(self._file.data)

    def __getitem__(self, part: slice) -> _Words | _Ring:
        kind = _Words if part.start is None else _Ring
        return kind(self._process, self._file)


class _OutboxFile:
    """`logd_client.outbox_file.OutboxFile`, its steps one by one."""

    def __init__(
        self, process: Web, producer_id: int, ring_bytes: int, follows: int, growth_bytes: int
    ) -> None:
        world = process.world
        if not process.has_memory:
            raise NoOutbox("another /dev/shm")
        if world.memory_full or (world.no_growth and ring_bytes > RING_BYTES_MIN):
            raise NoOutbox("no space")
        if world.directory_gone:
            raise NoOutbox("the directory is not there")
        self.process = process
        self.uid = process.uid
        self.closed = False  # by the application, which does not know whose descriptor it is
        key: Key = (process.uid, producer_id)
        data = bytearray(outbox_bytes(ring_bytes))
        self.file = File(outbox_name(*key), key, data, lock=process)
        process.step("outbox created and locked")
        memory: Any = _Memory(process, self.file)
        mark = process.generation.mark
        writer = process.writer_type(
            memory, producer_id, process.pid, world.time_ns(), mark, follows, growth_bytes
        )
        self.writer = _noting(writer, process, self)
        process.step("outbox filled in")
        if follows:
            world.truth.follows[key] = (process.uid, follows)
        world.publish(self.file)
        try:
            process.step("outbox has its name")
        except BaseException:
            if not process.dead:
                world.unlock(self.file)
            raise

    def inherited_by(self, child: Web) -> _OutboxFile:
        """A forked child's own descriptor and mapping: not the lock."""
        made = copy.copy(self)
        made.process = child
        made.writer = copy.copy(self.writer)
        made.writer._mapped = made.writer._words = _Words(child, self.file)  # type: ignore
        made.writer._ring = _Ring(child, self.file)  # type: ignore[assignment]
        mark = self.writer._mark
        assert isinstance(mark, SimMark)
        made.writer._mark = mark.inherited_by(child)
        del made.writer.append  # which is the parent's
        made.writer = _noting(made.writer, child, made)
        return made

    def intact(self) -> bool:
        self.process.step("compare descriptors")
        return not self.closed and not self.removed()

    def displaced(self) -> bool:
        return False

    def abandon(self) -> None:
        pass

    def removed(self) -> bool:
        return self.process.world.files.get(self.file.name) is not self.file

    def release_descriptor(self) -> None:
        if self.file.lock is self.process:
            self.process.world.unlock(self.file)

    def close(self) -> None:
        self.writer.release()
        self.release_descriptor()


def _noting(writer: OutboxWriter, process: Web, outbox: _OutboxFile) -> OutboxWriter:
    """Has the process know which payload is being appended, and to what."""
    append = writer.append

    def noted(payload: bytes) -> bytes | None:
        process.appending, process.writing_to = payload, outbox
        return append(payload)

    writer.append = noted  # type: ignore[method-assign]
    return writer


def _new_id(process: Web) -> int:
    """Random, from the run's seed; seldom one that another producer of that user has had."""
    world = process.world
    if world.odds.strangers and world.rng.random() < 0.03:
        gone = [
            key
            for key, owner in world.owners.items()
            if key[0] == process.uid and owner.dead and world.file_of(key) is None
        ]
        if gone:
            key = world.rng.choice(gone)
            world.truth.reuse(key)
            return key[1]
    return world.rng.getrandbits(64)


class SimProducer(Producer):
    """A producer without files and sockets."""

    def __init__(self, process: Web, ring_bytes: int, follows: int, growth_bytes: int) -> None:
        world = process.world
        self.process = process
        self.mark = process.generation.mark
        self._uid_here = process.uid
        self.sequence_tried = 0
        self.compare_due_s = 0.0
        self.sends = False
        self.id = _new_id(process)
        world.owners[process.uid, self.id] = process
        self.seed = producer_seed(self.id)
        self.head = datagram_head(self.id)
        self.head_awaited = datagram_head(self.id, KIND_AWAITED)
        self.sequence_sent = 0
        self.no_outbox_reason = None
        self.outbox = None
        self.socket = None
        self._outbox_retry_wait_s = OUTBOX_RETRY_FIRST_S
        self.retry_outbox_after_s = world.now_s + self._outbox_retry_wait_s
        try:
            self.outbox = _OutboxFile(  # type: ignore[assignment]
                process, self.id, ring_bytes, follows, growth_bytes
            )
        except NoOutbox as reason:
            self.no_outbox_reason = str(reason)
            process.went_without = True
            world.truth.without_outbox.add((process.uid, self.id))

    @property
    def intact(self) -> bool:
        return self.outbox is None or self.outbox.intact()

    def leave(self) -> None:
        if self.outbox is not None:
            self.outbox.release_descriptor()

    def close(self) -> None:
        if self.outbox is not None:
            self.outbox.close()

    def send(self, datagram: bytes) -> bool:
        process, world = self.process, self.process.world
        process.sends += 1
        process.step("send")
        taken = world.send(datagram, process.uid, process.pid)
        if taken and self.outbox is None:
            for key, sequence, payload in records_of(datagram, process.uid):
                world.truth.accept(key, sequence, payload)
                process.accepted += 1
                process.heard.append(payload)
        process.step("sent" if taken else "not sent")
        return taken

    def inherited_by(self, child: Web) -> SimProducer:
        """What a forked child finds of its parent's."""
        made = copy.copy(self)
        made.process = child
        assert isinstance(self.mark, SimMark)
        made.mark = self.mark.inherited_by(child)
        if self.outbox is not None:
            made.outbox = self.outbox.inherited_by(child)  # type: ignore[attr-defined] # _OutboxFile
        return made


class SimFormer(Former):
    """The real one; the truth follows an event that counts elsewhere now."""

    def mark_moved(self) -> None:
        producer = self.producer
        assert isinstance(producer, SimProducer)
        process = producer.process
        if not self.moved and process.world.truth.move(
            (process.uid, producer.id), self.producer.written
        ):
            process.accepted -= 1
        super().mark_moved()


class SimClient(Client):
    """The real client on simulated clocks."""

    def __init__(self, process: Web) -> None:
        self.process = process
        world = process.world
        environment = Environment(
            clock=Clock(world.time_ns, world.monotonic_s, world.monotonic_ns),
            open_producer=self._open_producer,
            current_generation=lambda: cast(Generation, process.generation),
            former_type=SimFormer,
        )
        super().__init__("/nowhere", outbox_bytes=process.outbox_bytes, environment=environment)
        clients.discard(self)  # so that the end of the test run writes no farewell for it

    def __del__(self) -> None:
        """A process that was killed does nothing any more."""

    def _open_producer(
        self,
        _path: str,
        _directory: str | None,
        ring_bytes: int,
        follows: int,
        growth_bytes: int,
        _clock: Clock,
    ) -> SimProducer:
        made = SimProducer(self.process, ring_bytes, follows, growth_bytes)
        self.process.world.growths += ring_bytes > RING_BYTES_MIN and made.outbox is not None
        return made

    def forked(self, child: Web, *, hooks: bool) -> SimClient:
        """The child's client: reset by the hooks after a fork, or as the parent's was."""
        made = type(self)(child)
        mark = self._guard.mark
        assert isinstance(mark, SimMark)
        made._guard.mark = mark.inherited_by(child)
        made._guard.generation = self._guard.generation
        mine, parents = made._producers, self._producers
        mine.closed = parents.closed
        for former in parents.formers:
            mine.formers.add(
                _inherited(former.producer, child), former.left_s, outgrown=former.outgrown
            )
        if parents.current is not None:
            mine.current = _inherited(parents.current, child)
        if hooks:
            made._guard.renew()
        return made


def _inherited(producer: Producer, child: Web) -> SimProducer:
    assert isinstance(producer, SimProducer)
    return producer.inherited_by(child)


def _number(payload: bytes) -> object:
    """The number that the run gave an event."""
    try:
        return unpack_props(unpack_payload(payload).props).get("n")
    except Malformed:
        return None
