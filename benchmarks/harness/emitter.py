"""Processes that emit events, flat out or at a rate, and measure the time of each call."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty
from typing import Any

from benchmarks.harness.events import events
from benchmarks.harness.processes import Failed
from benchmarks.harness.sums import CALLS, Sums
from logd_client import Client
from logd_client.client import OUTBOX_BYTES

# Seconds before a refused call is retried.
REFUSED_WAIT_S = 0.001
EMIT_TIMEOUT_S = 120.0
FLUSH_TIMEOUT_S = 60.0
END_TIMEOUT_S = 5.0
_REHEARSED_EVENTS = 5000

Call = Callable[..., bool]


@dataclass(frozen=True)
class Load:
    """How many emitters emit how many events; `rate` is events/s of all together, 0 is flat out."""

    emitters: int
    events: int  # the number of events of all emitters together
    rate: int = 0
    outbox_bytes: int = OUTBOX_BYTES  # the bytes of each emitter's outbox
    refused_wait_s: float = REFUSED_WAIT_S

    def __str__(self) -> str:
        who = f"{self.emitters} emitter" + ("s" if self.emitters > 1 else "")
        return f"{who}, {self.rate:,}/s" if self.rate else f"{who}, flat out"


@dataclass(frozen=True)
class Emitted:
    """The result of one emitter. `flushed`: all of its events were confirmed.

    `cpu_s` is the CPU time of its calls, without the time spent on making the events.
    """

    calls_ns: array[int]
    attempted: int
    accepted: int
    refused: int
    started_s: float
    confirmed_s: float
    flushed: bool
    cpu_s: float
    # Wall-clock times, like those of batches;
    # `full_ns` is when the outbox was first full, if it was.
    started_ns: int
    full_ns: int | None
    emitted_ns: int


def emit(socket: str, load: Load, seed: int, start: Barrier, results: Queue[Emitted]) -> None:
    """Run one emitter: wait for the others, emit, wait until everything is stored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends it on Ctrl-C
    # Refused events are counted, so they need no log line.
    logging.getLogger("logd.client").setLevel(logging.ERROR)
    own_s = rehearsed_s(load, seed)
    with Client(socket, outbox_bytes=load.outbox_bytes) as client:
        client.emit("login", user="0")  # creates the outbox before the clock starts
        start.wait()
        started_s, started_ns, cpu_s = time.monotonic(), time.time_ns(), time.process_time()
        driven = drive(client.emit, load, seed, started_s)
        emitted_ns = time.time_ns()
        flushed = client.flush(FLUSH_TIMEOUT_S)
        confirmed_s, cpu_s = time.monotonic(), time.process_time() - cpu_s
        stats = client.stats()
    results.put(
        Emitted(
            calls_ns=driven.calls_ns,
            attempted=stats["attempted"],
            accepted=stats["accepted"],
            refused=stats["refused"],
            started_s=started_s,
            confirmed_s=confirmed_s,
            flushed=flushed,
            cpu_s=cpu_s - own_s * stats["attempted"],
            started_ns=started_ns,
            full_ns=driven.full_ns,
            emitted_ns=emitted_ns,
        )
    )


def rehearsed_s(load: Load, seed: int) -> float:
    """Return the CPU time per event of the loop in `drive` when nothing is emitted."""
    rehearsal = replace(load, events=load.emitters * _REHEARSED_EVENTS, rate=0)
    before_s = time.process_time()
    drive(lambda *_, **__: True, rehearsal, seed, time.monotonic())
    return (time.process_time() - before_s) / _REHEARSED_EVENTS


@dataclass
class Driven:
    """The times of accepted calls, and when a call was first refused."""

    calls_ns: array[int] = field(default_factory=lambda: array("Q"))
    full_ns: int | None = None


def drive(call: Call, load: Load, seed: int, started_s: float) -> Driven:
    """Make one emitter's calls at the load's rate; retry refused ones."""
    driven = Driven()
    note, clock_ns, clock_s = driven.calls_ns.append, time.perf_counter_ns, time.monotonic
    deadline_s, rate = started_s + EMIT_TIMEOUT_S, load.rate / load.emitters
    share = itertools.islice(events(seed), load.events // load.emitters)
    for done, (event_type, user, props) in enumerate(share):
        if rate:
            ahead_s = started_s + done / rate - clock_s()
            if ahead_s > 0:
                time.sleep(ahead_s)
        start_ns = clock_ns()
        while not call(event_type, user=user, props=props):
            driven.full_ns = driven.full_ns or time.time_ns()
            if clock_s() >= deadline_s:
                return driven
            time.sleep(load.refused_wait_s)
            start_ns = clock_ns()
        note(clock_ns() - start_ns)
    return driven


@contextmanager
def emitters(socket: Path, load: Load) -> Iterator[tuple[Barrier, Queue[Emitted]]]:
    """Start the emitters; they wait at the barrier for the caller, and end with the `with`."""
    # A fork server imports this module once for all emitters, of which there may be many.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    start, results = context.Barrier(load.emitters + 1), context.Queue()
    processes = [
        context.Process(target=emit, args=(str(socket), load, seed, start, results), daemon=True)
        for seed in range(load.emitters)
    ]
    try:
        for process in processes:
            process.start()
        yield start, results
        for process in processes:
            process.join(END_TIMEOUT_S)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def collect(results: Queue[Emitted], load: Load) -> list[Emitted]:
    """Return the result of every emitter. Raises Failed if one does not report."""
    try:
        return [
            results.get(timeout=EMIT_TIMEOUT_S + FLUSH_TIMEOUT_S + 10) for _ in range(load.emitters)
        ]
    except Empty:
        raise Failed("an emitter did not finish") from None


def sums(emitted: list[Emitted], state: dict[str, Any]) -> Sums:
    """Combine the counts of all emitters with the daemon's status."""
    return Sums.of({key: sum(getattr(one, key) for one in emitted) for key in CALLS}, state)
