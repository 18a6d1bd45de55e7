"""Cases that kill the client and a real daemon, in every order, and then check the totals."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from logd.conformance.daemon_double import until
from logd.conformance.scene import TYPE, USER, Scene, missing_and_twice
from logd.conformance.temporary_daemon import TemporaryDaemon
from logd.conformance.verdicts import Failed, expect

_EVENTS = 150  # events in one step of a run
_PIPELINED = 600  # as many commands as fit into a pipe, with their answers
_RING_BYTES = 256 * 1024
_EMIT = f"emit {TYPE} {USER} {{}} 20"


class Run:
    """One run of a kill case: what was attempted, and what the driver answered."""

    def __init__(self, scene: Scene, daemon: TemporaryDaemon) -> None:
        self.scene, self.daemon = scene, daemon
        self.attempted: set[int] = set()
        self.kills = 0
        self.chance = random.Random(12)  # noqa: S311 - moments, not secrets

    def open(self) -> None:
        """Starts a new process of the driver, and opens a client of the real daemon in it."""
        self.scene.start_driver()
        self.scene.driver.ask(f"open {self.daemon.socket} {_RING_BYTES}")

    def emit(self, count: int = _EVENTS) -> None:
        """Emits events, and waits for the answer to each."""
        for _ in range(count):
            number = self.scene.number()
            self.attempted.add(number)
            answer = self.scene.driver.ask(_EMIT.format(number))
            self.scene.count(number, answer == "accepted")

    def kill_in_the_middle(self, *also: int) -> None:
        """Sends many commands at once, and kills the driver while it works through them.

        The processes `also` are killed in the same instant.
        """
        numbers = [self.scene.number() for _ in range(_PIPELINED)]
        self.attempted.update(numbers)
        self.scene.driver.send("\n".join(_EMIT.format(number) for number in numbers))
        heard = max(0, self.chance.randrange(-_PIPELINED // 4, _PIPELINED // 4))
        answers = [self.scene.driver.answer("emit") for _ in range(heard)]
        self.scene.driver.signal_kill()
        for pid in also:
            os.kill(pid, signal.SIGKILL)
        self.kill_client()
        answers += self.scene.driver.heard("emit")
        for number, answer in zip(numbers, answers, strict=False):
            self.scene.count(number, answer == "accepted")

    def kill_client(self) -> None:
        """Kills the driver and waits for its end."""
        self.scene.driver.kill()
        self.kills += 1

    def check(self, *, may_lose: bool = False) -> None:
        """Checks the totals, and that every accepted event is stored once and in order."""
        status = self.daemon.settle(len(self.scene.accepted))
        events = self.daemon.events()
        own = [row for row in events if row["type"] == TYPE]
        stored = [row["props"]["n"] for row in own]
        lost = status["lost"] + status["lost_claimed"]
        expect(status["quarantined"] == 0, f"{status['quarantined']} are in quarantine", "Payload")
        expect(status["pending"] == 0, f"{status['pending']} events are pending")
        if not may_lose:
            expect(lost == 0, f"{lost} events are in the loss ledger: {status['losses']}")
        problem = missing_and_twice(self.scene.accepted, stored)
        unheard = sorted(set(stored) - set(self.scene.accepted))
        beyond = set(unheard) - self.attempted
        expect(not beyond, f"{len(beyond)} events are stored that were never attempted")
        missing = set(self.scene.accepted) - set(stored)
        expect(len(stored) == len(set(stored)), f"events are stored twice: {problem}")
        expect(
            len(missing) <= (lost if may_lose else 0),
            f"{len(missing)} of {len(self.scene.accepted)} accepted events are neither stored nor "
            "in the ledger",
        )
        _check_order(own)
        self.scene.notes.append(
            f"{len(self.attempted)} attempted, {len(self.scene.accepted)} accepted, "
            f"{self.scene.refused} refused, {len(unheard)} unheard; {len(stored)} stored, "
            f"{status['quarantined_events']} quarantined, {status['pending']} pending, {lost} lost;"
            f" {self.kills} kills of the client, {self.daemon.kills} of the daemon"
        )


def _check_order(rows: list[dict[str, Any]]) -> None:
    last: dict[str, int] = {}
    for row in rows:
        before = last.get(row["producer"], 0)
        if row["sequence"] <= before:
            raise Failed(f"of {row['producer']} sequence {row['sequence']} comes after {before}")
        last[row["producer"]] = row["sequence"]


def kills(scene: Scene) -> None:
    """Client and daemon are killed in every order: every accepted event is stored once."""
    with closing(TemporaryDaemon(scene.directory)) as daemon:
        run = Run(scene, daemon)
        run.open()
        scene.need_outbox()
        run.emit(20)  # these events are emitted before a daemon has run
        steps: tuple[tuple[str, Callable[[Run], None]], ...] = (
            ("daemon, then client", _daemon_then_client),
            ("client, then daemon", _client_then_daemon),
            ("both in the same instant", _both_at_once),
            ("daemon alone, while the client lives", _daemon_alone),
        )
        for number in range(scene.rounds):
            for what, step in steps:
                scene.progress(f"round {number + 1} of {scene.rounds}: {what}")
                step(run)
        run.emit(20)
        scene.driver.ask("close")
        run.check()


def _daemon_then_client(run: Run) -> None:
    run.daemon.start()
    run.emit()
    run.daemon.kill()
    run.emit()
    run.kill_in_the_middle()
    run.open()
    run.emit()


def _client_then_daemon(run: Run) -> None:
    run.daemon.start()
    run.emit()
    run.kill_in_the_middle()
    run.daemon.kill()
    run.open()
    run.emit()


def _both_at_once(run: Run) -> None:
    run.daemon.start()
    run.emit()
    run.kill_in_the_middle(run.daemon.pid)
    run.daemon.kill()
    run.open()
    run.emit()


def _daemon_alone(run: Run) -> None:
    run.daemon.start()
    run.emit()
    run.daemon.kill()
    run.emit()
    run.daemon.start()
    run.emit()


def kills_without_outbox(scene: Scene) -> None:
    """Without an outbox: each event that the kernel took is stored, or in the loss ledger."""
    with closing(TemporaryDaemon(scene.directory)) as daemon:
        run = Run(scene, daemon)
        # Without the rendezvous file beside the socket, no client finds the outboxes' directory.
        rendezvous = daemon.directory / "logd.sock.outboxes"
        daemon.start()
        rendezvous.unlink()
        run.open()
        run.emit(100)
        run.kill_client()
        # The last sequence of a killed client without an outbox is unknown.
        until(
            lambda: len(daemon.events()) == len(scene.accepted),
            "what the kernel took is not stored",
        )
        run.open()
        run.emit(50)
        daemon.kill()
        run.emit(20)
        daemon.start()
        rendezvous.unlink(missing_ok=True)

        def heard_again() -> bool:
            run.emit(1)
            time.sleep(0.01)
            return scene.accepted[-1] == max(run.attempted)

        until(heard_again, "the daemon is back, and events are still refused")
        scene.driver.ask("close")
        run.check(may_lose=True)
