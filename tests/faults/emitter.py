"""A process that emits until it is told to stop or is killed, in one of several ways.

    python -m tests.faults.emitter SOCKET COUNTERS NAME SEED KIND

What it attempted and heard of stands in COUNTERS, a file that outlives it: the attempt is counted
before the call, its outcome after it, so that a call cut short by a kill shows in the difference.
Events come in bursts of random length; refused ones are tried again, as who must not lose does.

`outbox`: nothing but that. `bare`: without an outbox. `handler_emits`, `handler_raises`, `forks`:
what a signal handler does that comes in the middle of an emit, again and again.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import random
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable

from logd_client import Client
from tests.faults.counters import (
    ACCEPTED,
    ACCEPTED_BY_STATS,
    ATTEMPTED,
    CHILDREN_MAX,
    DONE,
    HANDLER_SLOT,
    REFUSED,
    SLOT_WORDS,
    STOP_WORD,
)
from tests.support import client_parts as parts

FORKS_EVERY_S = 0.02


class _Raised(BaseException):
    """What the signal handler raises, as gunicorn's abort does."""


class Emitter:
    """One client's life; a forked child goes on in a slot of its own."""

    def __init__(self, client: Client, words: memoryview, name: str, seed: int, kind: str) -> None:
        self.kind = kind
        self.client = client
        self.words = words
        self.name = name
        self.rng = random.Random(seed)
        self.number = 0
        self.slot = 0
        self.children = 0

    def count(self, word: int, slot: int | None = None) -> None:
        self.words[(self.slot if slot is None else slot) * SLOT_WORDS + word] += 1

    def emit(self) -> None:
        """One attempt, counted before and after."""
        padding = "x" * self.rng.choice((0, 0, 10, 100, 2000))
        self.count(ATTEMPTED)
        accepted = self.client.emit(
            "page_view", user=self.name, props={"number": self.number + 1, "padding": padding}
        )
        self.count(ACCEPTED if accepted else REFUSED)
        self.number += accepted
        if not accepted:
            time.sleep(0.001)

    def burst(self) -> None:
        for _ in range(self.rng.randint(1, 60)):
            self.emit()
        time.sleep(self.rng.random() * 0.05)

    @property
    def stopped(self) -> bool:
        return bool(self.words[STOP_WORD])

    def finish(self) -> None:
        """The client's own count, against which the test holds what was stored."""
        if parts.current(self.client) is not None and parts.producer(self.client).outbox is None:
            self._wait_until_read()
        stats = self.client.stats()
        assert stats["attempted"] == stats["accepted"] + stats["refused"], stats
        if self.kind != "handler_emits":  # however a call ended, the next one is let in
            assert "reentered" not in stats["refused_by_cause"], stats
        self.client.close()
        self.words[self.slot * SLOT_WORDS + ACCEPTED_BY_STATS] = stats["accepted"]
        self.words[self.slot * SLOT_WORDS + DONE] = 1

    def _wait_until_read(self) -> None:
        """A farewell is sent once: there must be a place in the queue for it."""
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            producer = parts.current(self.client)
            if producer is None or producer.socket is None:
                return
            waiting = fcntl.ioctl(producer.socket, termios.TIOCOUTQ, b"\0\0\0\0")
            if struct.unpack("i", waiting)[0] == 0:
                return
            time.sleep(0.001)


def plain(emitter: Emitter) -> None:
    while not emitter.stopped:
        emitter.burst()


def handler_emits(emitter: Emitter) -> None:
    def handler(*_: object) -> None:
        emitter.count(ATTEMPTED, HANDLER_SLOT)
        accepted = emitter.client.emit("login", user=emitter.name)
        emitter.count(ACCEPTED if accepted else REFUSED, HANDLER_SLOT)

    signal.signal(signal.SIGALRM, handler)
    while not emitter.stopped:
        signal.setitimer(signal.ITIMER_REAL, emitter.rng.uniform(0.0001, 0.002))
        emitter.burst()
    signal.setitimer(signal.ITIMER_REAL, 0)


def handler_raises(emitter: Emitter) -> None:
    def handler(*_: object) -> None:
        raise _Raised

    signal.signal(signal.SIGALRM, handler)
    while not emitter.stopped:
        with contextlib.suppress(_Raised):
            try:
                signal.setitimer(signal.ITIMER_REAL, emitter.rng.uniform(0.0001, 0.002))
                emitter.burst()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)


def forks(emitter: Emitter) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getpid()

    def handler(*_: object) -> None:
        if os.getpid() == parent and emitter.children < CHILDREN_MAX:
            emitter.children += 1
            if os.fork() == 0:
                emitter.slot = emitter.children  # at once: the parent's counts are not its own

    signal.signal(signal.SIGALRM, handler)
    while not emitter.stopped:
        signal.setitimer(signal.ITIMER_REAL, emitter.rng.uniform(0.5, 1.5) * FORKS_EVERY_S)
        for _ in range(30):
            padding = "x" * emitter.rng.choice((0, 100, 1000))
            emitter.count(ATTEMPTED)
            accepted = emitter.client.emit("page_view", user=emitter.name, props={"p": padding})
            if emitter.slot:
                _child(emitter)
            emitter.count(ACCEPTED if accepted else REFUSED)
            if not accepted:
                time.sleep(0.001)
        time.sleep(0.01)
    signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(ChildProcessError):
        os.wait()  # for all: they are not waited for one by one


def _child(emitter: Emitter) -> None:
    """Emits a little as the producer that it now is, and ends without a word, or with one."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    # The call that the fork split: whether it counts here or in the parent only, stats() tells.
    emitter.count(ATTEMPTED)
    for _ in range(emitter.rng.randint(1, 20)):
        emitter.emit()
    if emitter.children % 2:
        emitter.finish()
    else:
        accepted = emitter.client.stats()["accepted"]
        emitter.words[emitter.slot * SLOT_WORDS + ACCEPTED_BY_STATS] = accepted
        emitter.words[emitter.slot * SLOT_WORDS + DONE] = 1
    os._exit(0)


KINDS: dict[str, Callable[[Emitter], None]] = {
    "outbox": plain,
    "bare": plain,
    "handler_emits": handler_emits,
    "handler_raises": handler_raises,
    "forks": forks,
}


def main(socket: str, counters: str, name: str, seed: str, kind: str) -> None:
    with open(counters, "r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    rng = random.Random(int(seed))
    outbox_bytes = rng.choice((64, 512, 4096)) * 1024  # the smallest is often full
    directory = "/nonexistent" if kind == "bare" else None
    client = Client(socket, outbox_bytes=outbox_bytes, outbox_directory=directory)
    emitter = Emitter(client, words, name, int(seed), kind)
    KINDS[kind](emitter)
    emitter.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
