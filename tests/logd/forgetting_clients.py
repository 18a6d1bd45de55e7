"""The clients of a `Scene`: the events of each, its outbox, and the queued datagrams."""

from __future__ import annotations

import mmap
import os
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from logd.ingest.drain import Datagram
from logd_wire.outbox.layout import RING_BYTES_MIN, outbox_bytes
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.schema import INT64_MAX
from logd_wire.wire import datagram_head, encode_record, pack_payload, producer_seed

ANNA = "anna"
UID = os.getuid()
QUEUE_DATAGRAMS = 40
TIMES = (0, 10**9, 10**18, 4 * 10**18, INT64_MAX)


@dataclass(eq=False)
class Made:
    """An event as it was made. `moment` is in steps of the scene, a clock that is right."""

    moment: int
    user: str
    ts_ns: int
    mention: bool


@dataclass(eq=False)
class Source:
    """A producer, with an outbox or without."""

    id: int
    has_outbox: bool
    made: list[Made] = field(default_factory=list)
    alive: bool = True
    writer: OutboxWriter | None = None

    @property
    def name(self) -> str:
        return outbox_name(UID, self.id)


@dataclass(eq=False)
class Clients:
    """The producers, and the kernel's queue of their datagrams."""

    outboxes: Path
    rng: random.Random
    sources: list[Source] = field(default_factory=list)
    queue: deque[Datagram] = field(default_factory=deque)

    def add(self, now_ns: int, *, outbox: bool) -> Source:
        source = Source(self.rng.getrandbits(63), outbox)
        if outbox:
            path = self.outboxes / source.name
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.posix_fallocate(fd, 0, outbox_bytes(RING_BYTES_MIN))
            mapped = mmap.mmap(fd, outbox_bytes(RING_BYTES_MIN))
            os.close(fd)
            source.writer = OutboxWriter(memoryview(mapped), source.id, 7, now_ns)
        self.sources.append(source)
        return source

    def emit(self, source: Source, moment: int, now_ns: int) -> None:
        """Emits an event of some user, with any time."""
        rng = self.rng
        user = rng.choice((ANNA, ANNA, "bert"))
        ts_ns = rng.choice((*TIMES, now_ns, now_ns - 10**9, now_ns + 10**9))
        self.make(source, Made(moment, user, ts_ns, user != ANNA and rng.random() < 0.5))

    def make(self, source: Source, made: Made) -> None:
        """Emits that event, if there is room for it."""
        props: dict[str, Any] = {"n": len(source.made)}
        if made.mention:
            props["user"] = ANNA
        payload = pack_payload(msgpack.Packer(), "page_view", made.ts_ns, made.user, props)
        sequence = len(source.made) + 1
        record = encode_record(producer_seed(source.id), sequence, payload)
        datagram: Datagram = (datagram_head(source.id) + record, UID, 7, False)
        if source.writer is not None:
            if source.writer.append(payload) is None:
                return
        elif len(self.queue) >= QUEUE_DATAGRAMS:
            return
        if source.writer is None or (self.rng.random() < 0.7 and len(self.queue) < QUEUE_DATAGRAMS):
            self.queue.append(datagram)
        source.made.append(made)

    def lives(self, name: str) -> bool:
        return any(source.alive and source.name == name for source in self.sources)

    def close(self) -> None:
        for source in self.sources:
            if source.writer is not None:
                source.writer.release()
