"""Simulates a machine on which persons are forgotten, for `tests.logd.forgetting_check`.

Store, delivery core, worker and outbox files are real. A seed decides what is queued, what the
clocks show, which producers live and when a process is killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from logd.batch import Batch
from logd.clock.readings import Reading
from logd.config.settings import Config
from logd.ingest.delivery import Delivery
from logd.ingest.drain import Datagram
from logd.ingest.open_outbox import OpenOutbox
from logd.ingest.outbox_directory import OutboxDirectory
from logd.maintenance.outbox_survey import directory_identity
from logd.maintenance.worker import Worker
from logd.storage import job_table
from logd.storage.database import Connection
from logd.storage.store import Store, Work
from logd.storage.trail_clock import TrailClock
from tests.logd.forgetting_clients import ANNA, QUEUE_DATAGRAMS, Clients, Made, Source

KEY = bytes(range(32))
FAR = 4 * 10**18


class Killed(BaseException):
    """The process at work was killed."""


@dataclass
class Forgotten:
    """A forget: under way from the moment `began`, recorded at `ended`."""

    began: int
    offline: bool
    asked_ns: int
    ended: int | None = None


class MortalStore(Store):
    """A store whose process may be killed before and after each transaction."""

    def __init__(self, path: Path, now_ns: int, may_die: Callable[[], None]) -> None:
        super().__init__(path, KEY, now_ns, 10)
        self._may_die = may_die

    def transact(self, work: Work, now_ns: int, *, flush: bool = True) -> None:
        self._may_die()
        super().transact(work, now_ns, flush=flush)
        self._may_die()

    def commit(self, batch: Batch, now_ns: int) -> None:
        self._may_die()
        super().commit(batch, now_ns)
        self._may_die()


@dataclass(eq=False)
class Scene:
    """One run: its caller chooses the actions; `kill` is the probability of each kill."""

    directory: Path
    rng: random.Random
    kill: float = 0.02
    moment: int = 0
    now_s: float = 1000.0
    wall_ns: int = 10**18
    forgets: list[Forgotten] = field(default_factory=list)
    store: Store | None = None
    worker: Worker | None = None
    delivery: Delivery[OpenOutbox] | None = None
    outboxes: OutboxDirectory | None = None

    def __post_init__(self) -> None:
        self.outboxes_path = self.directory / "outboxes"
        self.outboxes_path.mkdir()
        self.clients = Clients(self.outboxes_path, self.rng)
        file = self.directory / "logd.toml"
        self.config = Config(
            path=file,
            database=self.directory / "a.db",
            key_file=file,
            signing_key_file=file,
            socket=file,
            query_socket=file,
            outbox_directory=self.outboxes_path,
            backup_directory=self.directory,
            batch_events_max=12,
            batch_bytes_max=64 * 1024,
            look_interval_ms=100,
            commit_interval_ms=4,
        )

    @property
    def connection(self) -> Connection:
        """The connection of the open store."""
        assert self.store is not None
        return self.store.connection

    def counters(self) -> dict[str, int]:
        return dict(self.connection.execute("SELECT name, value FROM counter").fetchall())

    # -- clients -----------------------------------------------------------------------------------

    def new_source(self, *, outbox: bool) -> Source:
        return self.clients.add(self.wall_ns, outbox=outbox)

    def emit(self, source: Source) -> None:
        """Emits an event of some user, with any time."""
        self.clients.emit(source, self.moment, self.wall_ns)

    def make(self, source: Source, *, user: str = ANNA, ts_ns: int = FAR) -> None:
        """Emits that event, a moment later."""
        self.moment += 1
        self.clients.make(source, Made(self.moment, user, ts_ns, mention=False))

    # -- the daemon, and the command without one ---------------------------------------------------

    def _open(self) -> Store:
        self.now_s += 1
        self.store = MortalStore(self.config.database, self.wall_ns, self._may_die)
        return self.store

    def _may_die(self) -> None:
        if self.rng.random() < self.kill:
            raise Killed

    @contextlib.contextmanager
    def _dying(self) -> Iterator[None]:
        try:
            yield
        except Killed:
            self.end()

    def end(self) -> None:
        """SIGKILL to the process that has the database."""
        if self.store is not None:
            self.store.connection.close()
        for outbox in () if self.delivery is None else self.delivery.outboxes.values():
            os.close(outbox.fd)
        if self.outboxes is not None:
            self.outboxes.close()
        self.store = self.worker = self.delivery = self.outboxes = None

    def start(self) -> None:
        with self._dying():
            store = self._open()
            outboxes = self.outboxes = OutboxDirectory(self.outboxes_path)
            outboxes.attach()
            store.erasure_list.boundaries.outboxes = directory_identity(self.outboxes_path)
            self.worker = self._new_worker(store)
            delivery = Delivery(
                self.config, store, outboxes, lambda: self.wall_ns, 100, lambda: self.now_s
            )
            self.delivery = delivery
            self.worker.attach_daemon(lambda: delivery.mark_queue(QUEUE_DATAGRAMS))
            delivery.recover(self.now_s)

    def _new_worker(self, store: Store) -> Worker:
        return Worker(
            store,
            self.directory / "forgotten",
            TrailClock(store, self._reading, lambda: self.wall_ns),
            monotonic_s=self._ticking,
            outboxes=self.outboxes_path,
        )

    def _reading(self) -> Reading:
        return Reading(self.wall_ns, "boot", int(self.now_s * 1e9))

    def _ticking(self) -> float:
        self.now_s += 0.002
        return self.now_s

    def step(self) -> None:
        """One step of the daemon."""
        assert self.delivery is not None and self.worker is not None
        self.now_s += self.rng.choice((0.001, 0.01, 0.2))
        with self._dying():
            taken = self.rng.choice((1, 3, 10**6))  # what has reached it so far
            self.delivery.step(self._datagrams(taken), set(), self.now_s)
            self._may_die()
            if self.rng.random() < 0.5:
                self.worker.poll()
                self._work()

    def step_all(self) -> None:
        """Enough turns to take all that is queued."""
        for _ in range(20):
            self.step()

    def _datagrams(self, taken: int) -> Iterator[Datagram]:
        while self.clients.queue:
            if taken == 0 and self.delivery is not None:
                self.delivery.drain.more = True  # as for a queue that is not seen empty
                return
            taken -= 1
            yield self.clients.queue.popleft()

    def _work(self) -> None:
        assert self.worker is not None
        for _ in range(self.rng.choice((1, 2, 8))):
            if self.worker.due_s != float("inf"):
                self.worker.step()
                self._record_ended_forgets()

    def _record_ended_forgets(self) -> None:
        """Notes the moment at which a forget was recorded."""
        open_jobs = self.connection.execute(
            "SELECT count(*) FROM job WHERE kind = 'forget' AND phase IN ('asked', 'write down')"
        ).fetchone()[0]
        waiting = [forget for forget in self.forgets if forget.ended is None]
        for forget in waiting[: len(waiting) - open_jobs]:
            forget.ended = self.moment

    def ask(self) -> None:
        """`logd forget anna`, beside the daemon or without one."""
        self.moment += 1
        self.wall_ns = self.rng.randrange(10**17, 4 * 10**18)
        offline = self.store is None
        connection: Connection | None = None
        try:
            store = Store(self.config.database, KEY, 1, 10) if offline else self.store
            assert store is not None
            connection = store.connection
            job_table.add_job(connection, job_table.FORGET, {"users": [ANNA]}, self.wall_ns)
        finally:
            if offline and connection is not None:
                connection.close()
        self.forgets.append(Forgotten(self.moment, offline, self.wall_ns))

    def work_offline(self) -> None:
        """The command takes steps while no daemon runs; it may be killed too."""
        for forget in self.forgets:
            forget.offline = forget.offline or forget.ended is None
        with self._dying():
            if self.store is None:
                self.worker = self._new_worker(self._open())
            assert self.worker is not None
            self.now_s += 6  # over any wait
            self.worker.poll()
            self._work()
            if self.worker.due_s == float("inf") and self.store is not None:
                self.store.close()
                self.store = self.worker = None

    # -- the end -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Runs the daemon, without kills, until everything is stored and every job done."""
        self.kill = 0.0
        if self.delivery is None:
            if self.store is not None:
                self.end()
            self.start()
        assert self.delivery is not None and self.worker is not None and self.store is not None
        quiet = 0
        for _ in range(1000):
            self.now_s += 0.2
            self.delivery.step(self._datagrams(10**6), set(), self.now_s)
            self.worker.poll()
            self._work()
            busy = (
                bool(self.clients.queue)
                or self.delivery.has_backlog
                or self.worker.due_s < float("inf")
            )
            quiet = 0 if busy else quiet + 1
            if quiet == 10:
                return
        raise AssertionError("not quiet after 1000 steps")

    def close(self) -> None:
        if self.store is not None:
            self.end()
        self.clients.close()
        shutil.rmtree(self.directory, ignore_errors=True)
