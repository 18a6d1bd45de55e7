"""The real client over simulated outboxes and sockets, on simulated clocks."""

from __future__ import annotations

import copy
from typing import cast

from logd_client import Client
from logd_client.client import _clients as clients
from logd_client.clock import Clock
from logd_client.environment import Environment
from logd_client.former_producers import Former
from logd_client.producer import OUTBOX_RETRY_FIRST_S, Producer
from logd_wire.forks import Generation
from logd_wire.outbox.layout import (
    RING_BYTES_MIN,
)
from logd_wire.rendezvous import NoOutbox
from logd_wire.wire import (
    KIND_AWAITED,
    datagram_head,
    producer_seed,
)
from tests.simulation.outbox_file import SimOutboxFile
from tests.simulation.truth import records_of
from tests.simulation.web import SimMark, Web


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

    outbox: SimOutboxFile | None  # type: ignore[assignment] # stands in for an OutboxFile

    def __init__(self, process: Web, ring_bytes: int, follows: int, growth_bytes: int) -> None:
        world = process.world
        self.process = process
        self.mark = process.generation.mark
        self._uid_here = process.uid
        self.sequence_tried = 0
        self.compare_due_s = 0.0
        self.displaced_since_s = None
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
            self.outbox = SimOutboxFile(process, self.id, ring_bytes, follows, growth_bytes)
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
            made.outbox = self.outbox.inherited_by(child)
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
        for former in parents.former:
            mine.former.add(
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
