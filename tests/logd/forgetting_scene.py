"""A machine on which persons are forgotten: real store, delivery core, worker and outbox files; the
queue, the clocks, who lives and when somebody is killed are a seed's. What was made when is kept
beside it, so that the end can be checked.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from logd.audit.verify import verify
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
from logd.storage.boundaries import still_to_come
from logd.storage.database import Connection
from logd.storage.mentions import ERASED
from logd.storage.store import Store
from logd.storage.trail_clock import TrailClock
from logd_wire.outbox.layout import RING_BYTES_MIN, outbox_bytes
from logd_wire.outbox.names import outbox_name
from logd_wire.outbox.writer import OutboxWriter
from logd_wire.schema import INT64_MAX
from logd_wire.wire import datagram_head, encode_record, pack_payload, producer_seed, unpack_props

ANNA = "anna"
KEY = bytes(range(32))
UID = os.getuid()
QUEUE_DATAGRAMS = 40
TIMES = (0, 10**9, 10**18, 4 * 10**18, INT64_MAX)
BEFORE, AFTER = "before", "after"


class Killed(BaseException):
    """The process at work was killed."""


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
    known_at: int | None = None  # the moment at which something of it was stored first

    @property
    def name(self) -> str:
        return outbox_name(UID, self.id)


@dataclass
class Forgotten:
    """A forget: from `began` on it is under way, from `ended` on it is written down."""

    began: int
    offline: bool
    asked_ns: int
    ended: int | None = None


@dataclass(eq=False)
class Scene:
    """One run. The actions are for the caller to choose; `kill` is how often a kill comes."""

    directory: Path
    rng: random.Random
    kill: float = 0.02
    moment: int = 0
    now_s: float = 1000.0
    wall_ns: int = 10**18
    sources: list[Source] = field(default_factory=list)
    queue: deque[Datagram] = field(default_factory=deque)
    forgets: list[Forgotten] = field(default_factory=list)
    store: Store | None = None
    worker: Worker | None = None
    delivery: Delivery[OpenOutbox] | None = None
    outboxes: OutboxDirectory | None = None
    kills: int = 0

    def __post_init__(self) -> None:
        self.outboxes_path = self.directory / "outboxes"
        self.outboxes_path.mkdir()
        file = self.directory / "logd.toml"
        self.config = Config(
            path=file,
            database=self.directory / "a.db",
            key_file=file,
            socket=file,
            query_socket=file,
            outbox_directory=self.outboxes_path,
            backup_directory=self.directory,
            batch_events_max=12,
            batch_bytes_max=64 * 1024,
            look_interval_ms=100,
            commit_interval_ms=4,
        )

    # -- clients -----------------------------------------------------------------------------------

    def new_source(self, *, outbox: bool) -> Source:
        source = Source(self.rng.getrandbits(63), outbox)
        if outbox:
            path = self.outboxes_path / source.name
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.posix_fallocate(fd, 0, outbox_bytes(RING_BYTES_MIN))
            mapped = mmap.mmap(fd, outbox_bytes(RING_BYTES_MIN))
            os.close(fd)
            source.writer = OutboxWriter(memoryview(mapped), source.id, 7, self.wall_ns)
        self.sources.append(source)
        return source

    def emit(self, source: Source) -> None:
        """Emits an event of some user, with any time."""
        rng = self.rng
        user = rng.choice((ANNA, ANNA, "bert"))
        ts_ns = rng.choice((*TIMES, self.wall_ns, self.wall_ns - 10**9, self.wall_ns + 10**9))
        self.make(source, Made(self.moment, user, ts_ns, user != ANNA and rng.random() < 0.5))

    def make(self, source: Source, made: Made) -> None:
        """That event, if there is room for it."""
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

    # -- the daemon, and the command without one ---------------------------------------------------

    def _open(self) -> Store:
        self.now_s += 1
        self.store = store = Store(self.config.database, KEY, self.wall_ns, 10)
        act = store.transact

        def acting(work: Callable[[Connection, Batch], None], now_ns: int, **how: Any) -> None:
            self._may_die()
            act(work, now_ns, **how)
            self._may_die()

        commit = store.commit

        def committing(batch: Batch, now_ns: int) -> None:
            self._may_die()
            commit(batch, now_ns)
            self._may_die()

        store.transact, store.commit = acting, committing  # type: ignore[method-assign]
        return store

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
        """SIGKILL, to whoever has the database."""
        self.kills += 1
        if self.store is not None:
            self.store._connection.close()
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

    def turn(self) -> None:
        """One of the daemon's."""
        assert self.delivery is not None and self.worker is not None
        self.now_s += self.rng.choice((0.001, 0.01, 0.2))
        with self._dying():
            taken = self.rng.choice((1, 3, 10**6))  # so much has reached it so far
            self.delivery.step(self._datagrams(taken), set(), self.now_s)
            self._may_die()
            if self.rng.random() < 0.5:
                self.worker.poll()
                self._work()

    def turn_all(self) -> None:
        """Until nothing has come for a while."""
        for _ in range(20):
            self.turn()

    def _datagrams(self, taken: int) -> Iterator[Datagram]:
        while self.queue:
            if taken == 0 and self.delivery is not None:
                self.delivery.drain.more = True  # as for a queue that is not seen empty
                return
            taken -= 1
            yield self.queue.popleft()

    def _work(self) -> None:
        assert self.worker is not None
        for _ in range(self.rng.choice((1, 2, 8))):
            if self.worker.due_s != float("inf"):
                self.worker.step()
                self._look_how_far()

    def _look_how_far(self) -> None:
        """Whether a forget is written down by now."""
        assert self.store is not None
        open_jobs = self.store.connection.execute(
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
        """The command has the lock, and does a step; it may be killed too."""
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
        """No more kills; the daemon comes, and stores and does all there is."""
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
            busy = bool(self.queue) or self.delivery.has_backlog or self.worker.due_s < float("inf")
            quiet = 0 if busy else quiet + 1
            if quiet == 10:
                return
        raise AssertionError("not quiet after 1000 turns")

    def expected(self, made: Made) -> set[str]:
        """On which side of the forgets it is; both where it was made while one was under way."""
        if any(made.moment < forget.began for forget in self.forgets):
            return {BEFORE}
        if all(f.ended is not None and made.moment > f.ended for f in self.forgets):
            return {AFTER}
        return {BEFORE, AFTER}

    def check(self) -> Counter[str]:
        """What is in the trail is what was made after, and nothing of before."""
        assert self.store is not None
        connection = self.store.connection
        assert verify(connection).findings == []
        stored = {
            (producer, sequence): (user, unpack_props(props))
            for producer, sequence, user, props in connection.execute(
                "SELECT p.key, e.sequence, e.user, e.props FROM event e"
                " JOIN producer p ON p.id = e.producer"
            )
        }
        lost = {
            (key, sequence)
            for key, first, last in connection.execute(
                "SELECT p.key, l.first, l.last FROM loss l JOIN producer p ON p.id = l.producer"
            )
            for sequence in range(first, last + 1)
        }
        watermarks = dict(connection.execute("SELECT key, watermark FROM producer").fetchall())
        seen: Counter[str] = Counter()
        erased = accepted = 0
        for source in self.sources:
            key = f"{source.id:016x}"
            reached = watermarks.get(key, 0)
            assert reached == len(source.made) or not source.has_outbox
            accepted += reached
            for sequence, made in enumerate(source.made[:reached], start=1):
                if (key, sequence) in lost:  # a killed daemon had it, and no outbox
                    assert not source.has_outbox
                    continue
                found = stored.get((key, sequence))
                of_anna = made.user == ANNA
                erased += found is None
                assert found is not None or of_anna, (source, sequence)
                if not (of_anna or made.mention):
                    continue
                gone = found is None if of_anna else found[1]["user"] == ERASED  # type: ignore[index]
                side = BEFORE if gone else AFTER
                allowed = self.expected(made)
                seen["either" if len(allowed) == 2 else side] += 1
                # Without an outbox, what is on its way to no daemon cannot be known.
                online = not any(forget.offline for forget in self.forgets)
                if source.has_outbox or (online and allowed == {BEFORE}):
                    assert side in allowed, (side, allowed, source.id, sequence, made, self.forgets)
        counters = dict(connection.execute("SELECT name, value FROM counter").fetchall())
        assert counters.get("stored", 0) - counters.get("own", 0) + len(lost) == accepted
        assert (counters.get("erased", 0), counters.get("lost", 0)) == (erased, len(lost))
        assert not counters.get("quarantined")
        assert still_to_come(connection) == {"events": 0, "producers": 0, "unreadable": 0}
        return seen

    def check_nothing_is_kept(self) -> None:
        """Once every producer has ended, no boundary is needed any more."""
        for source in self.sources:
            source.alive = False
        self.settle()
        assert self.store is not None
        rows = self.store.connection.execute("SELECT * FROM forget_boundary").fetchall()
        assert rows == [] == list(self.store.erasure_list.boundaries.rows)

    def close(self) -> None:
        if self.store is not None:
            self.end()
        for source in self.sources:
            if source.writer is not None:
                source.writer.release()
        shutil.rmtree(self.directory, ignore_errors=True)
