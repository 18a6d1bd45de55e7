"""Prune, collapse, forget, verify, prove and backup at the same time, beside a daemon that dies."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from logd.audit import proven, verify_processes
from logd.errors import EXIT_NOT_WHOLE
from logd_client import Client
from tests.logd.hundred_days import DAY_NS, fill
from tests.logd.test_verify_beside import instance_command, looping
from tests.support.instance import Instance, check_sums

PAST = 900  # events of before, two in a batch, most of them to be collapsed
EXITS = {0, 69, 75}  # 69: the event, or the head that is asked for, was removed; 75: not now
VERIFICATIONS = (("verify",), ("verify", "--incremental"), ("verify", "--processes", "2"))


class Scene:
    """One seeded run: what is done when is drawn from the seed; how it interleaves is not."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self.instance, self.rng = instance, random.Random(seed)
        self.over = threading.Event()
        self.wrong: list[str] = []
        self.forgotten: list[str] = []
        self._lock = threading.Lock()  # around the generator of random numbers

    def draw(self, number: int) -> int:
        with self._lock:
            return self.rng.randrange(number)

    def run(self, *arguments: str, exits: set[int] = EXITS) -> int:
        """Runs a command; what it must not end with, or say, is kept."""
        code, said = instance_command(self.instance, *arguments)
        if code not in exits or "Traceback" in said or code == EXIT_NOT_WHOLE:
            self.wrong.append(f"{arguments} ended with {code}: {said}")
        return code

    def maintain(self) -> None:
        self.run("prune")
        if self.draw(2):
            self.run("backup")

    def check(self) -> None:
        self.run(*VERIFICATIONS[self.draw(3)])
        self.run("prove", str(1 + self.draw(PAST)))
        self.run("prove", "--growth", str(self.draw(PAST // 4)))
        self.run("checkpoint")

    def disturb(self) -> None:
        """Kills the daemon; a person who has logged is forgotten, late events and all."""
        person = f"person {len(self.forgotten)}"
        with Client(self.instance.socket) as client:
            for number in range(5):
                while not client.emit("login", user=person, props={"n": number}):
                    time.sleep(0.01)
            if self.draw(2):
                client.flush(0.2)
            if self.draw(3):
                self.instance.kill()
            restart = threading.Timer(self.draw(20) / 100, self.start)
            restart.start()
            try:
                while self.run("forget", person, "--yes") != 0 and not self.wrong:
                    time.sleep(0.1)
            finally:
                restart.join()
        self.forgotten.append(person)

    def start(self) -> None:
        """Starts the daemon if it was killed, again while a command holds the instance's lock."""
        while (daemon := self.instance.daemon) is None or daemon.popen.poll() is not None:
            try:
                self.instance.start()
            except AssertionError as error:
                # `prune` and `forget` do their job themselves while no daemon runs.
                if "serves this instance" not in str(error):
                    raise
                time.sleep(0.1)


@contextlib.contextmanager
def all_looping(scene: Scene, *steps: Callable[[], object]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for step in steps:
            stack.enter_context(looping(scene.over, step))
        yield


@pytest.mark.parametrize(
    ("rounds", "seed"),
    [(2, 1), *(pytest.param(40, seed, marks=pytest.mark.long(minutes=5)) for seed in range(2, 8))],
)
@pytest.mark.timeout(1800)
def test_all_maintenance_at_once_loses_nothing_and_is_never_taken_for_tampering(
    rounds: int, seed: int, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proven, "EVENTS_PER_PART_MIN", 200)
    monkeypatch.setattr(verify_processes, "EVENTS_PER_PROCESS_MIN", 200)
    retention = {f"retention.{name}": "50d" for name in ("login", "task_completed")}
    instance.configure(**{"retention.page_view": "2d"}, **retention)
    fill(instance, PAST, per_batch=2)
    instance.start()
    scene = Scene(instance, seed)
    logged = 5 * rounds
    with Client(instance.socket, outbox_bytes=16 * 2**20) as client:

        def emit() -> None:
            """Emits events that a prune removes (of three days ago), and new ones."""
            now_ns = time.time_ns()
            for number in range(20):
                client.emit("page_view", user=f"u{number}", ts_ns=now_ns - number % 2 * 3 * DAY_NS)
            scene.over.wait(0.05)

        with all_looping(scene, emit, scene.maintain, scene.check):
            try:
                for _ in range(rounds):
                    scene.disturb()
                    assert not scene.wrong, scene.wrong[0]
            finally:
                scene.over.set()
        assert client.flush(60)
        stats = client.stats()
    assert not scene.wrong, scene.wrong[0]
    accepted = PAST + stats["accepted"] + logged
    refused = stats["refused"]
    check_sums(instance.settle(), attempted=accepted + refused, accepted=accepted, refused=refused)
    assert scene.run("prune", exits={0}) == 0
    status = instance.settle()
    assert status["erased"] >= logged and status["pruned"] > PAST / 4
    for person in scene.forgotten:
        assert instance.events("--user", person) == []
    old_ns = time.time_ns() - 2 * DAY_NS
    assert all(e["ts_ns"] >= old_ns for e in instance.events("--type", "page_view"))
    assert instance.events("--type", "batches_collapsed") != []
    newest = max(event["id"] for event in instance.events())
    for command in (*VERIFICATIONS, ["checkpoint"], ["prove", str(newest)]):
        assert scene.run(*command, exits={0}) == 0, scene.wrong
    assert instance.stop() == 0
