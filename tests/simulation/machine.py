"""The simulated daemon: the real delivery core with directory, database and queue in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from logd.config.settings import Config
from logd.errors import AlreadyRunning, LogdError
from logd.ingest.delivery import Delivery
from logd.ingest.drain import Datagram
from logd.ingest.open_outbox import Foreign, OpenOutbox
from logd.ingest.step_budget import STEP_RECORDS_MAX
from logd_wire.outbox.layout import (
    HEADER_BYTES,
    WORD_GIVEN_UP,
    WORD_RETIRED,
    WORD_WATCHED_UNTIL_NS,
    WORD_WRITTEN,
    parse_header,
)
from logd_wire.outbox.names import parse_name
from logd_wire.wire import OtherVersion
from tests.simulation.disk import SimTrail
from tests.simulation.truth import Key, Violation, label
from tests.simulation.world import File, Process, World

OPEN_MAX = 6
OWNER_RUNS = 0.1
PUT_BACK = 0.3  # the steps after which the directory is looked at
CONFIG = Config(
    path=Path("logd.toml"),
    database=Path("activity.db"),
    key_file=Path("logd.key"),
    signing_key_file=Path("logd-signing.key"),
    socket=Path("logd.sock"),
    query_socket=Path("query.sock"),
    outbox_directory=Path("outboxes"),
    backup_directory=Path("backups"),
    batch_events_max=24,
    batch_bytes_max=64 * 1024,
    gap_events_max=1000,
    look_interval_ms=100,
    commit_interval_ms=4,
)


class SimOutbox(OpenOutbox):
    """The real one but for what it reads, writes and asks."""

    def __init__(self, process: Process, file: File) -> None:
        header = parse_header(bytes(file.data[:HEADER_BYTES]), len(file.data))
        super().__init__(file.name, *file.key, -1, header)
        self.process = process
        self.file = file

    def _maybe_fail(self, what: str) -> None:
        self.process.world.maybe_fail(f"{what} {self.name}", self.file)

    def read_at(self, offset: int, length: int) -> bytes:
        half = offset + length // 2
        self.process.step("read outbox")
        self._maybe_fail("read")
        data = bytes(self.file.data[offset:half])
        if length > 8:  # one word is read at once
            self.process.step("half of it read")
        return data + bytes(self.file.data[half : offset + length])

    def alive(self) -> bool:
        self.process.step("ask who lives")
        self._maybe_fail("ask who lives")
        world = self.process.world
        if world.rng.random() < OWNER_RUNS:
            # Just now it does something, perhaps its last: the moment that the question is about.
            world.let_others_run(self.process, chosen=self.file.lock)
            self.process.step("asked")
        return self.file.lock is not None

    def _size(self) -> int:
        return len(self.file.data)

    def retire(self) -> bool:
        self._maybe_fail("retire")
        self.file.store(WORD_RETIRED, 1)
        self.process.step("retired")
        if self.written() <= self.confirmed:
            return True
        self.file.store(WORD_RETIRED, 0)
        self.process.step("not retired")
        return False

    def give_up(self) -> None:
        self._maybe_fail("give up")
        self.file.store(WORD_GIVEN_UP, 1)
        self.process.step("given up")

    def resume_wakeups(self) -> None:
        self._maybe_fail("resume_wakeups")
        self.file.store(WORD_WATCHED_UNTIL_NS, 0)
        self.process.step("not watched any more")

    def _write_at(self, offset: int, data: bytes) -> None:
        world, key = self.process.world, self.file.key
        confirmed = int.from_bytes(data[:8], "little")
        on_disk = world.disk.durable_watermark(key)
        if confirmed > on_disk:
            raise Violation(f"{label(key)}: confirmed {confirmed}, but only {on_disk} is on disk")
        # Three words in one call of the kernel's: which of them others see first is the processor's
        # choice, but no signal comes in between.
        order = world.rng.sample((0, 8, 16), 3)
        self.process.step("confirm")
        self._maybe_fail("confirm")
        for at in order:
            self.file.data[offset + at : offset + at + 8] = data[at : at + 8]
            if at == order[0]:
                world.let_others_run(self.process)
        self.process.step("confirmed")


class SimDirectory:
    """`logd.ingest.outbox_directory.OutboxDirectory` as the core knows it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.world: World = process.world
        self.refused: dict[str, int] = {}

    def names(self) -> list[tuple[str, int, int]]:
        self._process.step("list outboxes")
        if self.world.open_faults and self.world.rng.random() < 0.2:
            raise OSError(24, "Too many open files")
        self.world.maybe_fail("list", None)
        found = [(name, parse_name(name)) for name in self.world.files]
        return [(name, *parsed) for name, parsed in found if parsed is not None]

    def has(self, name: str) -> bool:
        return self.owner(name) is not None

    def owner(self, name: str) -> int | None:
        file = self.world.files.get(name)
        self.world.maybe_fail("find", file)
        return None if file is None else file.key[0]

    def open(self, name: str, uid: int, producer_id: int) -> SimOutbox | None:
        self._process.step("open outbox")
        file = self.world.files.get(name)
        if file is None:
            self.refused.pop(name, None)
            return None
        if self.refused.get(name) == file.identity:
            if file.kind == "newer":
                raise OtherVersion("other version", "outbox version 2")
            return None
        if self.world.open_faults:
            raise OSError(24, "Too many open files")
        self.world.maybe_fail("open", file)
        if file.kind == "ok":
            if file.word(WORD_RETIRED) or file.word(WORD_GIVEN_UP):
                file.store(WORD_RETIRED, 0)
                file.store(WORD_GIVEN_UP, 0)
                self._process.step("not retired any more")
            return SimOutbox(self._process, file)
        self.refused[name] = file.identity
        if file.kind == "newer":
            raise OtherVersion("other version", "outbox version 2")
        raise Foreign("has other links", name)

    def refuse(self, outbox: SimOutbox) -> None:
        self.world.maybe_fail("refuse", outbox.file)
        outbox.give_up()
        self.refused[outbox.name] = outbox.file.identity

    def release(self, outbox: SimOutbox) -> None:
        self._process.step("close outbox")

    def remove(self, outbox: SimOutbox) -> None:
        """Raises Violation if some of its events are neither on disk nor in the loss ledger.

        A process without its lock may write one more event after the mark RETIRED: it sees the mark
        in the same call, and writes the event again elsewhere. If it is killed before, no caller
        knows of the event. `check_end` decides about the event itself.
        """
        file, world = outbox.file, self.world
        written = file.word(WORD_WRITTEN) - (file.lock is None and file.word(WORD_RETIRED))
        on_disk = world.disk.durable_watermark(file.key)
        losses = (
            self._process.delivery.state.batch.losses if isinstance(self._process, Machine) else []
        )
        unknown = any((p.uid, p.id) == file.key for p in (x.producer for x in losses if not x.last))
        if written > on_disk and not unknown:
            raise Violation(
                f"{outbox.name} removed with {written} written and {on_disk} on the disk"
            )
        self._process.step("remove outbox")
        self.world.maybe_fail("remove", file)
        if world.files.get(outbox.name) is file:
            del world.files[outbox.name]
        self._process.step("outbox removed")


@dataclass(eq=False)
class Machine(Process):
    """A process that runs the daemon: `start`, then `run_once` again and again."""

    delivery_type: type[Delivery[SimOutbox]] = Delivery
    delivery: Delivery[SimOutbox] = field(init=False)

    def start(self) -> None:
        """Raises AlreadyRunning when another one serves the instance."""
        world = self.world
        self.step("take the lock")
        if world.daemon is not None:
            raise AlreadyRunning("another logd serves this instance")
        world.daemon = self
        trail = SimTrail(world.disk, self, world.boots)
        directory = SimDirectory(self)
        self.delivery = self.delivery_type(
            CONFIG, trail, directory, world.time_ns, OPEN_MAX, world.monotonic_s
        )
        world.directory_gone = False
        self.delivery.recover(world.now_s)

    def refuses(self, file: File) -> bool:
        """Whether the file was taken for no outbox when it was last opened."""
        directory = self.delivery._directory
        assert isinstance(directory, SimDirectory)
        return directory.refused.get(file.name) == file.identity

    def _put_directory_back(self) -> None:
        """As the service does between steps, once a second."""
        self.step("put the directory back")
        self.world.directory_gone = False
        self.delivery.use_new_directory()

    def run_once(self) -> None:
        """One step of the core, with what the kernel has for it. Raises LogdError to end."""
        world = self.world
        if world.directory_gone and (world.calm or world.rng.random() < PUT_BACK):
            self._put_directory_back()
        closed: set[str] = set()
        if self.delivery.stalled is None:
            closed, world.closed = world.closed, set()
        ignored = self.delivery.intake.ignored.total
        self.delivery.step(self._datagrams(), sorted(closed), world.now_s)
        self._check_bounds()
        if self.delivery.intake.ignored.total - ignored > STEP_RECORDS_MAX:
            raise Violation("a step takes any number of records that store nothing")

    def _datagrams(self) -> Iterator[Datagram]:
        while self.world.queue:
            self.step("receive")
            if self.world.queue:
                yield self.world.queue.popleft()

    def _check_bounds(self) -> None:
        batch = self.delivery.state.batch
        # A datagram may hold several records, of which the last may come when there is no room.
        if len(batch.events) + len(batch.quarantine_entries) > CONFIG.batch_events_max + 8:
            raise Violation(f"a batch of {len(batch.events)} events")
        if len(self.delivery.outboxes) > OPEN_MAX:
            raise Violation(f"{len(self.delivery.outboxes)} outboxes are open")


def run_daemon(machine: Machine, *, start: bool) -> None:
    """Starts it, or lets it step once; an error of logd's own ends the process, as the service."""
    try:
        if start:
            machine.start()
        else:
            machine.run_once()
    except AlreadyRunning:
        machine.world.end(machine)
        raise
    except LogdError:
        if not machine.dead:
            machine.world.end(machine)


def check_is_seen(world: World, key: Key) -> None:
    """Check that the daemon polls soon for an event whose producer has sent nothing."""
    machine, file = world.daemon, world.file_of(key)
    if not isinstance(machine, Machine) or machine.busy or file is None:
        return
    core = machine.delivery
    producer = core.intake.producers.get(key)
    if core.stalled is not None or producer is None or producer not in core.outboxes:
        return
    if file.word(WORD_WRITTEN) > producer.taken and not core.has_backlog:
        until_s = file.word(WORD_WATCHED_UNTIL_NS) / 1e9 + CONFIG.commit_interval_ms / 1000
        if producer not in core.outboxes.wakeups or core.next_due_s() > max(until_s, world.now_s):
            raise Violation(f"{label(key)}: wake-ups are suppressed, and nothing polls")


def watermark(world: World, key: Key) -> int:
    """What readers of the database see."""
    row = world.disk.view.rows.get(key)
    return row.watermark if row else 0
