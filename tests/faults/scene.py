"""A daemon and emitters under faults chosen by a seed; the sums are checked after each."""

from __future__ import annotations

import collections
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from logd.ingest.outbox_directory import OutboxDirectory
from logd.storage import opening
from logd_wire.wire import WireError
from tests.faults.crowd import Crowd
from tests.faults.site import Serving
from tests.support.instance import DEADLINE_S, Instance, Process, until
from tests.support.tally import Tally

# What systemd does: the socket is the manager's, the daemon inherits it as descriptor 3.
_HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='events', LISTEN_PID=str(os.getpid())); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


class HeldInstance(Instance):
    """An instance whose datagram socket the test holds, as systemd does for `logd.socket`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # PassCredentials=yes
        self.held.bind(self.socket)

    def spawn(self, env: dict[str, str] | None = None, **_: Any) -> Process:
        fd = self.held.fileno()
        command = ("-m", "tests.support.daemon", "--config", str(self.config.path))
        self.daemon = Process(
            "-S", "-E", "-c", _HAND_OVER, str(fd), *command, env=env, pass_fds=(fd,)
        )
        return self.daemon

    def close(self) -> None:
        super().close()
        self.held.close()


def check_confirmed(instance: Instance) -> None:
    """Checks, after the daemon has ended, that no outbox confirms an event that is not stored."""
    connection = opening.open_for_reading(instance.config)
    try:
        rows = connection.execute("SELECT uid, key, watermark FROM producer").fetchall()
    finally:
        connection.close()
    watermarks = {(uid, int(key, 16)): watermark for uid, key, watermark in rows}
    outboxes = OutboxDirectory(instance.config.outbox_directory, read_only=True)
    outboxes.attach()
    try:
        for name, uid, producer_id in outboxes.names():
            try:
                outbox = outboxes.open(name, uid, producer_id)
            except WireError as error:
                raise AssertionError(f"{name}: {error}") from error
            assert outbox is not None
            confirmed = outbox.header.confirmed_sequence
            outboxes.release(outbox)
            assert confirmed <= watermarks.get((uid, producer_id), 0), name
    finally:
        outboxes.close()


@dataclass(frozen=True)
class Heard:
    """Bounds on accepted events: at least those reported, at most those begun."""

    at_least: int
    at_most: int
    refused: int

    def __add__(self, other: Heard) -> Heard:
        return Heard(
            self.at_least + other.at_least,
            self.at_most + other.at_most,
            self.refused + other.refused,
        )


class Scene:
    """One instance under faults. Each fault is a method; `seed` decides where it hits."""

    def __init__(
        self,
        instance: Instance,
        seed: int,
        kinds: tuple[str, ...],
        env: dict[str, str] | None = None,
    ) -> None:
        self.instance = instance
        self.seed = seed
        self.kinds = kinds
        self.rng = random.Random(seed)
        self.env = env
        self.kills: collections.Counter[str] = collections.Counter()  # processes, by what they were
        self.together = 0  # times that a daemon died in the same instant as others
        self._dead: list[Process] = []
        instance.start(env)
        self.crowd = Crowd(instance, self.rng, kinds)

    @property
    def daemon(self) -> Process:
        """The present daemon."""
        assert self.instance.daemon is not None
        return self.instance.daemon

    def go_on(self, steps_max: int = 600) -> None:
        """Lets the emitters proceed by a random number of steps, up to `steps_max`."""
        goal = self.steps + self.rng.randint(1, steps_max)
        until(lambda: self.steps >= goal, f"events (seed {self.seed})")

    @property
    def steps(self) -> int:
        """The progress of all emitters."""
        return self.crowd.attempted

    def check_sums_meanwhile(self) -> None:
        """While all go on: what is accounted for lies between two counts of the accepted.

        Not for a crowd with emitters that have no outbox: what they miss is not known yet.
        """
        if any(emitter.kind == "bare" for emitter in self.crowd.everybody):
            return
        at_least = self.crowd.accepted
        status = self.instance.status()
        at_most = self.crowd.accepted_at_most
        accounted = status["stored"] + status["quarantined_events"] + status["pending"]
        assert status["lost"] == status["quarantined"] == 0, (self.seed, status)
        assert at_least <= accounted <= at_most, (self.seed, at_least, at_most, status)

    # -- faults ----------------------------------------------------------------------------------

    def kill_daemon(self) -> None:
        """Kills the daemon and checks what it had confirmed; the caller counts the kill."""
        self.daemon.popen.send_signal(signal.SIGKILL)
        self.daemon.popen.wait(DEADLINE_S)
        check_confirmed(self.instance)

    def restart(self) -> None:
        """Starts the next daemon; the former process is closed at the end."""
        self._dead.append(self.daemon)
        self.instance.start(self.env)
        while self._dead:
            self._dead.pop().close()

    def daemon_killed(self) -> None:
        self.kill_daemon()
        self.kills["daemon"] += 1
        if self.rng.random() < 0.5:
            self.go_on(300)  # they have nobody to send to
        self.restart()

    def emitter_killed(self) -> None:
        emitter = self.crowd.choose()
        emitter.kill()
        self.kills["emitter"] += 1
        self.crowd.bury(emitter)

    def both_killed(self) -> None:
        """Kills both in the same instant; new emitters may start before the new daemon."""
        eligible = [e for e in self.crowd.running if e.kind != "bare" and e.attempted]
        dead = self.rng.sample(eligible, self.rng.randint(min(1, len(eligible)), len(eligible)))
        signals: list[Callable[[], None]] = [
            lambda: self.daemon.popen.send_signal(signal.SIGKILL),
            *(emitter.kill_unwaited for emitter in dead),
        ]
        self.rng.shuffle(signals)
        for send in signals:
            send()
        self.daemon.popen.wait(DEADLINE_S)
        for emitter in dead:
            emitter.kill()
        check_confirmed(self.instance)
        self.kills.update(daemon=1, emitter=len(dead))
        self.together += 1
        if self.rng.random() < 0.5:
            self.crowd.bury(*dead)
            self.restart()
        else:
            self.restart()
            self.crowd.bury(*dead)

    def daemon_killed_while_starting(self) -> None:
        """Kills the daemon, and its successor at a random point of its start."""
        self.kill_daemon()
        self._dead.append(self.daemon)
        self.instance.spawn(self.env)
        # A start takes about half a second; it may have ended its start by then as well.
        time.sleep(self.rng.random() * 0.6)
        self.kill_daemon()
        self.kills["daemon"] += 2
        self.restart()

    def daemon_stopped(self) -> None:
        """Stops the daemon for a while: the queue fills up, the outboxes keep receiving."""
        self.daemon.popen.send_signal(signal.SIGSTOP)
        self.go_on()
        if self.rng.random() < 0.5:
            self.kill_daemon()
            self.kills["daemon"] += 1
            self.restart()
        else:
            self.daemon.popen.send_signal(signal.SIGCONT)

    def emitter_stopped(self) -> None:
        """Stops an emitter at any point, perhaps between a record and the store that counts it."""
        emitter = self.crowd.choose()
        emitter.send(signal.SIGSTOP)
        if len(self.crowd.running) > 1:
            self.go_on()
        if self.rng.random() < 0.5:
            emitter.kill()
            self.kills["emitter"] += 1
            self.crowd.bury(emitter)
        else:
            emitter.send(signal.SIGCONT)

    def daemon_terminated(self) -> None:
        """Sends SIGTERM: the daemon stores what has arrived and exits, or is killed meanwhile."""
        self.daemon.popen.send_signal(signal.SIGTERM)
        if self.rng.random() < 0.5:
            time.sleep(self.rng.random() * 0.1)  # anywhere in its stopping
            if self.daemon.popen.poll() is None:
                self.kills["daemon"] += 1
            self.kill_daemon()
        else:
            assert self.daemon.popen.wait(DEADLINE_S) == 0, (self.seed, self.daemon.lines)
            check_confirmed(self.instance)
        self.restart()

    FAULTS: ClassVar[tuple[Callable[[Any], None], ...]] = (
        *(daemon_killed, daemon_killed, daemon_killed_while_starting, daemon_terminated),
        *(emitter_killed, emitter_killed, emitter_killed, both_killed, both_killed, both_killed),
        *(daemon_stopped, emitter_stopped),
    )

    def fault(self) -> None:
        """Runs one random fault at a random point."""
        self.go_on()
        self.choose_fault()(self)
        self.check_sums_meanwhile()

    def choose_fault(self) -> Callable[[Any], None]:
        """Chooses the next fault."""
        return self.rng.choice(self.FAULTS)

    # -- the end ---------------------------------------------------------------------------------

    def finish(self, tally: Tally) -> None:
        """Ends all in order; then all numbers add up exactly, and the trail verifies."""
        self.end()
        heard = self.heard()

        def accounted() -> bool:
            status = self.instance.status()
            kept = status["stored"] + status["lost"] + status["quarantined_events"]
            return bool(status["pending"] == 0 and kept >= heard.at_least)

        until(accounted, f"all that was accepted is accounted for (seed {self.seed})")
        assert self.instance.stop() == 0
        status, events = self.instance.status(), self.instance.events()
        tally.account(
            status,
            events,
            attempted=heard.at_least + heard.refused,
            accepted=heard.at_least,
            refused=heard.refused,
            killed=heard.at_most - heard.at_least,
            kills=self.kills.total(),
            seeds=1,
        )
        tally.counts["lost without outbox"] += self.check(status, events)
        self.instance.cli("verify")

    def end(self) -> None:
        """Lets all emitters end by themselves."""
        self.crowd.finish()

    def heard(self) -> Heard:
        """The outcomes that all callers got."""
        everybody = self.crowd.everybody
        at_most = sum(emitter.accepted_at_most for emitter in everybody)
        return Heard(
            at_least=sum(emitter.accepted_at_least for emitter in everybody),
            at_most=at_most,
            refused=sum(emitter.refused for emitter in everybody),
        )

    def check(self, status: dict[str, Any], events: list[dict[str, Any]]) -> int:
        """Checks what the sums do not show: each emitter's events, who lost some, and what is left.

        Returns how many events were lost, all of them of clients without an outbox.
        """
        missing = self.crowd.check(events)
        assert status["lost"] == sum(missing.values()), (self.seed, status, missing)
        assert status["quarantined"] == 0, (self.seed, status)
        left = os.listdir(self.instance.config.outbox_directory)
        assert status["outboxes"] == 0, (self.seed, left)
        return sum(missing.values())

    def close(self) -> None:
        """Kills all processes."""
        self.crowd.close()
        for process in self._dead:
            process.close()
        self.instance.close()


class MakeScene(Protocol):
    """The fixture `make_scene`."""

    def __call__(
        self,
        seed: int,
        kinds: tuple[str, ...],
        *,
        held: bool = False,
        env: dict[str, str] | None = None,
        serving: Serving | None = None,
    ) -> Scene: ...
