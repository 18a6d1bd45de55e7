"""A store with made-up events of thirty days, a worker, and what must be in it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

from logd.audit.proven import begin_cycle
from logd.audit.recomputed import temporary
from logd.audit.verify import verify
from logd.audit.verify_part import PartVerifier
from logd.batch import Batch, Producer
from logd.clock.readings import Reading
from logd.maintenance.worker import Worker
from logd.storage import job_table
from logd.storage.job_table import Job
from logd.storage.store import Store
from logd.storage.trail_clock import TrailClock
from logd.storage.tree import NotKept
from logd_wire.schema import INTERNAL_TYPES
from logd_wire.wire import Event, producer_seed

KEY = bytes(range(32))
DAY_NS = 86_400 * 10**9
TYPES = ("page_view", "login", "task_completed", "quiz_submitted")
USERS = (*map(str, range(6)), None)


class Trail:
    """A store with made-up events, and what must be in it."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.path = directory / "a.db"
        self.list_file = directory / "forgotten"
        self.rng = rng
        self.producers = [Producer(uid=1, id=n, seed=producer_seed(n)) for n in (1, 2)]
        self.stored: dict[int, Event] = {}
        self.stored_ns: dict[int, int] = {}
        self.open()

    def open(self) -> None:
        self.store = Store(self.path, KEY, 1, 100)
        self.worker = self.new_worker()

    def new_worker(self, monotonic_s: Callable[[], float] = time.monotonic) -> Worker:
        reading = Reading(50 * DAY_NS, "this boot", 0)
        clock = TrailClock(self.store, lambda: reading, lambda: reading.wall_ns)
        return Worker(self.store, self.list_file, clock, monotonic_s)

    def event(self) -> Event:
        rng = self.rng
        props: dict[str, Any] = {
            "task": rng.randrange(4),
            "quiz": rng.choice(("a", "b", None)),
            "score": rng.choice((0.1, 0.5, 1, None)),
            "n": rng.random(),
        }
        if rng.random() < 0.2:
            props["params"] = {"user": rng.choice(USERS)}
        ts_ns = rng.randrange(30) * DAY_NS + rng.randrange(5)
        return Event(rng.choice(TYPES), ts_ns, rng.choice(USERS), msgpack.packb(props))

    def commit(self, events: list[Event], stored_ns: int | None = None) -> None:
        """Stores them at the time of the latest of them, or at the given time."""
        if stored_ns is None:
            stored_ns = max(event.ts_ns for event in events)
        batch = Batch(10**6, 10**9)
        first = self.store.next_event
        for event in events:
            producer = self.rng.choice(self.producers)
            producer.taken += 1
            batch.add(producer, producer.taken, event, 1)
        self.store.commit(batch, stored_ns)
        batch.mark_committed()
        self.stored |= dict(enumerate(events, start=first))
        self.stored_ns |= dict.fromkeys(range(first, first + len(events)), stored_ns)

    def fill(self, events: int, per_batch: int = 30) -> None:
        while events > 0:
            count = min(events, self.rng.randrange(1, per_batch))
            stored_ns = self.rng.choice((None, self.rng.randrange(30) * DAY_NS))
            if self.store.next_event == 1:
                stored_ns = 0  # a block whose first was stored late is left for later
            self.commit([self.event() for _ in range(count)], stored_ns)
            events -= count

    def ask(self, kind: str, **params: Any) -> int:
        job_id = job_table.add_job(self.store.connection, kind, params, 45 * DAY_NS)
        self.worker.poll()
        return job_id

    def job(self, job_id: int) -> Job:
        job = job_table.read_job(self.store.connection, job_id)
        assert job is not None
        return job

    def finish(self, job_id: int, between: Callable[[], None] = lambda: None) -> Job:
        for _ in range(100_000):
            if self.job(job_id).finished_ns is not None:
                assert self.job(job_id).trouble is None
                return self.job(job_id)
            self.worker.step()
            between()
        raise AssertionError("the job comes to no end")

    def rows(self) -> dict[int, Event]:
        """What is stored, without logd's own events."""
        return {
            event_id: Event(*values)
            for event_id, *values in self.store.connection.execute(
                "SELECT e.id, t.name, e.ts_ns, e.user, e.props"
                " FROM event e JOIN event_type t ON t.id = e.type"
            )
            if values[0] not in INTERNAL_TYPES
        }

    def counters(self) -> dict[str, int]:
        return dict(self.store.connection.execute("SELECT name, value FROM counter").fetchall())

    def findings(self) -> list[str]:
        """What a full verification finds, and one by parts, but for damaged pages."""
        connection = self.store.connection
        try:
            state = replace(begin_cycle(connection, 1), page_position=10**9)
        except NotKept:  # no state that was ever proven is of this trail
            return verify(connection).findings
        with temporary(connection):
            verdict, _done = PartVerifier(connection, KEY, lambda _events: None, state, 2).run()
        return verify(connection).findings + verdict.findings
