"""A process that emits events as fast as it can, or at a rate, and says what each call took."""

from __future__ import annotations

import multiprocessing
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty
from typing import Any

from benchmarks.processes import Failed
from benchmarks.sums import Sums
from shared.client import Client

# A refused call is made again after so long: who must not lose waits.
REFUSED_WAIT_S = 0.001
EMIT_TIMEOUT_S = 120.0
FLUSH_TIMEOUT_S = 60.0
END_TIMEOUT_S = 5.0
PROPS: dict[str, Any] = {"route": "/lesson/<int:lesson>", "method": "GET", "status": 200}


@dataclass(frozen=True)
class Load:
    """Who emits how much: `rate` events/s of all together, 0 for as fast as they can."""

    emitters: int
    events: int  # of all together
    rate: int = 0

    def __str__(self) -> str:
        who = f"{self.emitters} emitter" + ("s" if self.emitters > 1 else "")
        return f"{who}, {self.rate:,}/s" if self.rate else f"{who}, flat out"


@dataclass(frozen=True)
class Emitted:
    """What one emitter saw. `flushed` says that it saw all of it confirmed."""

    calls_ns: array[int]
    attempted: int
    accepted: int
    refused: int
    started_s: float
    confirmed_s: float
    flushed: bool


def emit(socket: str, events: int, rate: float, start: Barrier, results: Queue[Emitted]) -> None:
    """One emitter's life: waits for the others, emits, waits until all of it is stored."""
    calls_ns = array("Q")
    note, clock_ns = calls_ns.append, time.perf_counter_ns
    with Client(socket) as client:
        client.emit("login", user="0", props=PROPS)  # makes the outbox, before the clock runs
        start.wait()
        started_s = time.monotonic()
        deadline_s = started_s + EMIT_TIMEOUT_S
        call = client.emit
        done = 0
        while done < events and time.monotonic() < deadline_s:
            if rate:
                ahead_s = started_s + done / rate - time.monotonic()
                if ahead_s > 0:
                    time.sleep(ahead_s)
            user = str(done % 30)
            start_ns = clock_ns()
            accepted = call("page_view", user=user, props=PROPS)
            took_ns = clock_ns() - start_ns
            if accepted:
                note(took_ns)
                done += 1
            else:
                time.sleep(REFUSED_WAIT_S)
        flushed = client.flush(FLUSH_TIMEOUT_S)
        confirmed_s = time.monotonic()
        stats = client.stats()
    counts = (stats["attempted"], stats["accepted"], stats["refused"])
    results.put(Emitted(calls_ns, *counts, started_s, confirmed_s, flushed))


@contextmanager
def emitters(socket: Path, load: Load) -> Iterator[tuple[Barrier, Queue[Emitted]]]:
    """The processes, waiting at the barrier for one more; ended with the `with`."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(load.emitters + 1), context.Queue()
    share, rate = load.events // load.emitters, load.rate / load.emitters
    processes = [
        context.Process(target=emit, args=(str(socket), share, rate, start, results), daemon=True)
        for _ in range(load.emitters)
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
    """What every emitter has to say. Raises Failed when one says nothing."""
    try:
        return [
            results.get(timeout=EMIT_TIMEOUT_S + FLUSH_TIMEOUT_S + 10) for _ in range(load.emitters)
        ]
    except Empty:
        raise Failed("an emitter did not come to its end") from None


def sums(emitted: list[Emitted], state: dict[str, Any]) -> Sums:
    """The sums of all emitters with what the daemon's `status` says."""
    return Sums(
        attempted=sum(one.attempted for one in emitted),
        accepted=sum(one.accepted for one in emitted),
        refused=sum(one.refused for one in emitted),
        **{key: state[key] for key in ("stored", "quarantined", "pending", "lost")},
    )
