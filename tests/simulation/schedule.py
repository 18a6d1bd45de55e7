"""One run from a seed: what happens, in which order, with which faults; then the checks."""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from logd.errors import AlreadyRunning
from logd.ingest.delivery import Delivery
from logd_wire.outbox.writer import OutboxWriter
from tests.simulation.client import SimClient
from tests.simulation.disk import Disk
from tests.simulation.happenings import Happenings
from tests.simulation.machine import (
    Machine,
    SimOutbox,
    run_daemon,
    watermark,
)
from tests.simulation.table import WatchedDelivery
from tests.simulation.truth import Sums, Truth, Violation, check_end
from tests.simulation.web import Web
from tests.simulation.web_actions import WEBS_MAX, WebActions
from tests.simulation.world import Cell, File, Interrupted, Killed, Odds, Process, World

# Kinds of runs. In the first, nothing that was accepted may be missing at the end.
PROFILES = {
    "crashes": Odds(kill=0.003, preempt=0.05),
    "power": Odds(kill=0.001, power_cut=0.0015, without_outbox=0.1),
    "restores": Odds(kill=0.002, restore=True),
    "strangers": Odds(kill=0.0015, strangers=True, without_outbox=0.4, damage=True),
    "broken outboxes": Odds(kill=0.0015, io_errors=0.01),
    "containers": Odds(kill=0.001, strangers=True, without_outbox=0.95),
    "cleaners": Odds(kill=0.001, cleaners=True),
    "everything": Odds(
        power_cut=0.0005,
        restore=True,
        strangers=True,
        without_outbox=0.2,
        damage=True,
        cleaners=True,
    ),
}
ACTIONS_MIN, ACTIONS_MAX = 60, 200
QUIET_STEPS_MAX = 400


@dataclass
class Run:
    """A run's end in numbers. `attempted` = accepted + refused; for `sums` see there."""

    profile: str
    seed: int
    kills: int
    power_cuts: int
    steps: int
    attempted: int
    accepted: int
    refused: int
    silent: int
    unheard: int
    unmoved: int
    sums: Sums
    growths: int = 0
    visits: Counter[Cell] = field(default_factory=Counter)


class Broken(AssertionError):
    """A run in which a promise was broken, with what is needed to see it again."""

    def __init__(self, profile: str, seed: int, why: str, trace: Sequence[tuple[str, str]]) -> None:
        # As they are, so that it can be sent from one process to another.
        super().__init__(profile, seed, why, trace)
        self.why = why

    def __str__(self) -> str:
        profile, seed, why, trace = self.args
        steps = "\n".join(f"{who}: {what}" for who, what in trace)
        return f"{why}\nseen again with: python -m tests.simulation {profile} {seed}\n{steps}"


def run(
    profile: str,
    seed: int,
    *,
    delivery: type[Delivery[SimOutbox]] = WatchedDelivery,
    writer: type[OutboxWriter] = OutboxWriter,
    client: type[SimClient] = SimClient,
) -> Run:
    """Raises Broken. `delivery`, `writer` and `client` are exchanged to plant bugs."""
    schedule = Schedule(profile, seed, delivery, writer, client)
    with _quiet():
        try:
            return schedule.run()
        except Exception as error:
            raise Broken(profile, seed, str(error), tuple(schedule.world.trace)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


class Schedule:
    """The actions of one run, chosen by its seed."""

    def __init__(
        self,
        profile: str,
        seed: int,
        delivery: type[Delivery[SimOutbox]],
        writer: type[OutboxWriter],
        client: type[SimClient],
    ) -> None:
        self._profile, self._seed = profile, seed
        self._delivery = delivery
        self._rng = rng = random.Random(f"{profile} {seed}")
        self.odds = PROFILES[profile]
        self.world = World(rng, self.odds, Truth(), Disk(), act=self._act)
        self.world.queue_depth = rng.choice((1, 4, 11, 513))
        self.world.socket_held = rng.random() < 0.5
        self._webs = WebActions(self.world, writer, client)
        self._happenings = Happenings(
            self.world, self._start_second_daemon, self._start_daemon, self._webs.new
        )

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> Run:
        for _ in range(self._rng.randint(ACTIONS_MIN, ACTIONS_MAX)):
            self._one()
        self._calm_down()
        sums = check_end(self.world)
        world, truth = self.world, self.world.truth
        accepted = truth.accepted_total
        unheard = accepted + truth.of_reused - truth.true
        if unheard + truth.perhaps_unsent < 0:
            raise Violation(f"{truth.true} calls were true, {accepted} were accepted")
        return Run(
            profile=self._profile,
            seed=self._seed,
            kills=world.kills,
            power_cuts=world.power_cuts,
            steps=world.steps,
            attempted=accepted + truth.false,
            accepted=accepted,
            refused=truth.false,
            silent=self._webs.silent,
            unheard=unheard,
            unmoved=truth.unmoved,
            sums=sums,
            growths=world.growths,
            visits=world.visits,
        )

    def _one(self) -> None:
        """One action of a process, or of the world."""
        rng, world = self._rng, self.world
        idle = [p for p in world.processes if not p.dead]
        roll = rng.random()
        if world.daemon is None and roll < 0.12:
            self._start_daemon()
        elif len(idle) < WEBS_MAX and roll < 0.2:
            self._webs.new()
        elif roll < 0.3:
            self._happenings.happen()
        elif idle:
            self._act(rng.choice(idle))

    def _act(self, process: Process) -> None:
        """Lets a process do one thing; it may die of it."""
        process.busy = True
        try:
            if isinstance(process, Machine):
                run_daemon(process, start=False)
            elif isinstance(process, Web):
                self._webs.act(process)
        except Killed:
            pass
        except (Interrupted, TimeoutError):
            pass  # the process caught it and lives on
        finally:
            process.busy = False

    def _start_daemon(self) -> None:
        machine = self.world.process("logd", 0, Machine)
        machine.delivery_type = self._delivery
        machine.busy = True
        try:
            run_daemon(machine, start=True)
        except Killed:
            pass
        finally:
            machine.busy = False

    def _start_second_daemon(self) -> None:
        first = self.world.daemon
        if first is None:
            return
        try:
            self._start_daemon()
        except AlreadyRunning:
            if self.world.daemon is not first and not first.dead:
                raise Violation("a second daemon took the place of the first") from None

    # -- quiet -----------------------------------------------------------------------------------

    def _calm_down(self) -> None:
        """Faults stop, a newer daemon comes, web processes end: all must be stored by then."""
        rng, world = self._rng, self.world
        world.calm = True
        disk = world.disk
        disk.full = disk.fails_midway = disk.flush_fails = False
        world.open_faults = world.memory_full = world.no_growth = False
        for file in world.files.values():
            if file.kind == "newer" and rng.random() < 0.7:
                self._happenings.change(file, "ok")
        if world.daemon is None:
            self._start_daemon()
        self._until_all_is_confirmed()
        for process in list(world.processes):
            if isinstance(process, Web):
                process.check_stats()
                if rng.random() < 0.5:
                    process.client.close()
                world.end(process)
        self._until_all_is_confirmed()
        daemon = world.daemon
        assert isinstance(daemon, Machine)
        # One whose reading failed as it was opened is refused, and stays for a person to look at.
        left = [file.name for file in self._readable() if not daemon.refuses(file)]
        if left:
            raise Violation(f"dead producers' outboxes are still there: {left}")

    def _until_all_is_confirmed(self) -> None:
        world = self.world
        quiet = 0
        for _ in range(QUIET_STEPS_MAX):
            assert world.daemon is not None, "the daemon ended without a fault"
            assert isinstance(world.daemon, Machine)
            world.daemon.delivery.work_s = 1.0  # no more steps than it takes to see all files
            self._act(world.daemon)
            world.now_s += 0.2
            waiting = any(
                world.pending(file.key, watermark(world, file.key)) for file in self._readable()
            )
            quiet = 0 if waiting or world.queue else quiet + 1
            if quiet == 4:
                return
        raise Violation(f"faults have stopped, and after {QUIET_STEPS_MAX} steps events still wait")

    def _readable(self) -> list[File]:
        world = self.world
        # As it was opened, reading it failed: it stays for a person to look at.
        daemon = world.daemon if self.odds.io_errors else None
        return [
            file
            for file in world.files.values()
            if file.kind == "ok"
            and file.key not in world.truth.reused
            and not (isinstance(daemon, Machine) and daemon.refuses(file))
        ]
