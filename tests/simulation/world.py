"""A simulated machine: memory, a datagram queue, locks, clocks and processes that can die anywhere.

Whatever a process does to the world calls `Process.step`. There the seed decides what happens
next: the process is killed at that very point, the power goes, a signal handler comes, or another
process runs first. So a seed is one interleaving of everything, and repeats it.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from logd_wire.outbox.layout import WORD_WRITTEN
from logd_wire.outbox.names import outbox_name
from tests.simulation.disk import Disk
from tests.simulation.truth import Key, Truth

Cell = tuple[str, str, str]  # producer, outbox, watermark

NESTING_MAX = 3
LAST_ACT = 0.3  # how often a process that was let in between is killed right behind
TRACE_STEPS = 400
TICK_S = 0.0005
# Errors of the outboxes' file system: what this process is short of at the moment, and what says
# that a file is of no use.
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
FAILURES = (errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EACCES, errno.EBUSY)


class Killed(BaseException):
    """The process that was executing has ended."""


class Interrupted(BaseException):
    """A signal handler raised in the middle, as gunicorn's abort does; the process lives on."""


@dataclass(frozen=True)
class Odds:
    """How likely, at each step of a process, and what the run may do besides (see `schedule`)."""

    kill: float = 0.002
    power_cut: float = 0.0
    preempt: float = 0.03
    interrupt: float = 0.002
    restore: bool = False
    disk_faults: bool = True
    strangers: bool = False
    without_outbox: float = 0.0
    cleaners: bool = False
    damage: bool = False
    io_errors: float = 0.0  # of each operation on an outbox


@dataclass(eq=False)
class File:
    """An outbox in memory. `kind` is what the daemon's checks make of it."""

    name: str
    key: Key
    data: bytearray
    lock: Process | None
    kind: str = "ok"  # or "foreign", "newer"
    identity: int = 0  # changes when the file does: inode and ctime

    def word(self, index: int) -> int:
        """One 8-byte word of the header."""
        return int.from_bytes(self.data[index * 8 : index * 8 + 8], sys.byteorder)

    def store(self, index: int, value: int) -> None:
        """One aligned 8-byte store."""
        self.data[index * 8 : index * 8 + 8] = value.to_bytes(8, sys.byteorder)


@dataclass(eq=False)
class Process:
    """Something that can be killed. `busy` while one of its steps is on the stack."""

    world: World
    name: str
    pid: int
    uid: int
    dead: bool = False
    busy: bool = False
    # What a signal handler does in the middle of a call; only web processes have one.
    on_signal: Callable[[], None] | None = None

    def step(self, what: str) -> None:
        """Anything may happen here. Raises Killed when the process does not come out of it."""
        self.world.step(self, what)


def exchange(owner: object, name: str, part: object) -> None:
    """Puts a part or a method of the simulation's own in the place of a real one."""
    assert hasattr(owner, name), f"{owner} has no {name}"
    setattr(owner, name, part)


AProcess = TypeVar("AProcess", bound=Process)


@dataclass(eq=False)
class World:
    """The machine. `calm` ends all faults, for the end of a run."""

    rng: random.Random
    odds: Odds
    truth: Truth
    disk: Disk
    act: Callable[[Process], None]
    queue_depth: int = 11
    socket_held: bool = False  # by a parent, as systemd does: what is queued outlives the daemon
    processes: list[Process] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    queue: deque[tuple[bytes, int, int, bool]] = field(default_factory=deque)
    heard: deque[tuple[bytes, int, int]] = field(default_factory=lambda: deque(maxlen=50))
    closed: set[str] = field(default_factory=set)  # what inotify will tell
    daemon: Process | None = None  # who holds the instance's lock
    open_faults: bool = False  # out of descriptors
    memory_full: bool = False
    no_growth: bool = False  # memory for the smallest outboxes only
    growths: int = 0  # larger rings that followed full ones
    directory_gone: bool = False  # no outbox can be made until a daemon puts it back
    now_s: float = 1000.0
    wall_offset_s: float = 0.0
    owners: dict[Key, Process] = field(default_factory=dict)
    visits: Counter[Cell] = field(default_factory=Counter)  # of the state table, see `table`
    boots: int = 1
    pids: int = 100
    identities: int = 0
    steps: int = 0
    kills: int = 0
    power_cuts: int = 0
    io_errors: int = 0
    depth: int = 0
    calm: bool = False
    thresholds: tuple[float, float, float, float] = field(init=False)
    trace: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=TRACE_STEPS))

    def __post_init__(self) -> None:
        odds = self.odds
        power_cut = odds.kill + odds.power_cut
        self.thresholds = (odds.kill, power_cut, power_cut + odds.preempt, 1 - odds.interrupt)

    # -- processes -------------------------------------------------------------------------------

    def process(self, name: str, uid: int, kind: type[AProcess]) -> AProcess:
        """A new one."""
        self.pids += 1
        made = kind(self, f"{name} {self.pids}", self.pids, uid)
        self.processes.append(made)
        return made

    def step(self, process: Process, what: str) -> None:
        """See the module. Called before and after whatever others can see."""
        if process.dead:
            raise Killed(what)
        self.steps += 1
        self.now_s += TICK_S
        self.trace.append((process.name, what))
        if self.calm:
            return
        kill, power_cut, preempt, interrupt = self.thresholds
        roll = self.rng.random()
        if roll < kill:
            self.kill(process)
        elif roll < power_cut:
            self.power_cut()
        elif roll < preempt:
            self.let_others_run(process)
        elif roll > interrupt and process.on_signal is not None:
            process.on_signal()
        if process.dead:
            raise Killed(what)

    def let_others_run(self, process: Process, chosen: Process | None = None) -> None:
        """Let another process, or the chosen one, do one thing before this one continues."""
        others = [p for p in self.processes if not (p.busy or p.dead or p is process)]
        if others and self.depth < NESTING_MAX and not self.calm:
            self.depth += 1
            try:
                other = chosen if chosen in others else self.rng.choice(others)
                self.act(other)
                # What somebody does last, in a moment that nobody expects, is what is missed.
                if other is not self.daemon and self.rng.random() < LAST_ACT:
                    self.kill(other)
            finally:
                self.depth -= 1

    def kill(self, process: Process) -> None:
        """SIGKILL. What it had open is closed, its locks are gone."""
        if process.dead:
            return
        self.trace.append((process.name, "KILLED"))
        self.kills += 1
        self.end(process)

    def end(self, process: Process) -> None:
        """End the process, killed or by itself."""
        process.dead = True
        self.processes.remove(process)
        for file in list(self.files.values()):
            if file.lock is process:
                self.unlock(file)
        if self.daemon is process:
            self.daemon = None
            self.closed.clear()
            queued = [(data, uid) for data, uid, *_ in self.queue]
            if not self.socket_held:
                queued = []
                self.queue.clear()
            self.truth.daemon_ended(self.disk.view, queued)

    def maybe_fail(self, what: str, file: File | None) -> None:
        """Raises OSError where an operation on an outbox fails in this run."""
        if self.calm or not self.odds.io_errors or self.rng.random() >= self.odds.io_errors:
            return
        number = self.rng.choice(SHORTAGES if self.rng.random() < 0.5 else FAILURES)
        self.trace.append(("world", f"{what}: {errno.errorcode[number]}"))
        self.io_errors += 1
        if file is not None and number in FAILURES:
            self.truth.unreadable.add(file.key)
        raise OSError(number, os.strerror(number))

    def unlock(self, file: File) -> None:
        """Its owner has closed it, which inotify reports."""
        file.lock = None
        if self.daemon is not None and self.files.get(file.name) is file:
            self.closed.add(file.name)

    def power_cut(self) -> None:
        """Memory is empty, the disk has what was flushed and perhaps some of the rest."""
        self.trace.append(("world", "THE POWER GOES"))
        self.power_cuts += 1
        for process in list(self.processes):
            self.end(process)
        self.queue.clear()
        self.files.clear()
        self.boots += 1
        self.disk.lose_power(self.rng)
        self.truth.forgotten(self.disk)

    # -- clocks ----------------------------------------------------------------------------------

    def time_ns(self) -> int:
        """The wall clock, which jumps."""
        return int((1.8e9 + self.now_s + self.wall_offset_s) * 1e9)

    def monotonic_s(self) -> float:
        """The clock that does not."""
        return self.now_s

    def monotonic_ns(self) -> int:
        """The same in nanoseconds."""
        return int(self.now_s * 1e9)

    # -- memory and the socket -------------------------------------------------------------------

    def publish(self, file: File) -> None:
        """The file gets its name; another of that name loses it."""
        self.identities += 1
        file.identity = self.identities
        self.files[file.name] = file
        if self.daemon is not None:
            self.closed.add(file.name)

    def file_of(self, key: Key) -> File | None:
        """The outbox of that producer, whatever the daemon makes of it."""
        return self.files.get(outbox_name(*key))

    def send(self, data: bytes, uid: int, pid: int) -> bool:
        """Whether the kernel took the datagram."""
        if self.daemon is None and not self.socket_held:
            return False
        if len(self.queue) >= self.queue_depth:
            return False
        self.queue.append((data, uid, pid, False))
        self.heard.append((data, uid, pid))
        self.truth.sent(data, uid)
        return True

    def pending(self, key: Key, watermark: int) -> int:
        """How many of that producer's events wait in its outbox."""
        file = self.file_of(key)
        return 0 if file is None else max(0, file.word(WORD_WRITTEN) - watermark)
