"""Measure how fast a daemon stores a backlog, with a large trail and with an empty one.

The daemon is paused (SIGSTOP) while the events go into an outbox. From its resumption until all are
confirmed only the daemon works. Both trails get the same events, one after the other.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.processes import Failed, Instance, Running, running
from benchmarks.harness.sums import Sums, change
from logd_client import Client
from logd_wire.wire import Event, unpack_props

OUTBOX_BYTES = 60 * 1024 * 1024
FLUSH_TIMEOUT_S = 300.0
SETTLED_TIMEOUT_S = 30.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class StoredBacklog:
    """The result of storing one backlog: speed, CPU time and sums."""

    events: int
    stored_before: int
    stored_per_s: float
    cpu_s_per_100k: float
    commits: int
    sums: Sums
    problems: list[str]


@contextmanager
def paused(daemon: Running) -> Iterator[None]:
    """Pause the daemon for the length of the `with`."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def store_backlog(instance: Instance, daemon: Running, events: Sequence[Event]) -> StoredBacklog:
    """Let an idle daemon store the events, and measure it. Raises Failed."""
    before = settled(instance)
    with Client(instance.socket, outbox_bytes=OUTBOX_BYTES) as client:
        client.emit("login", user="1")  # so that the daemon knows the producer
        if not client.flush(FLUSH_TIMEOUT_S):
            raise Failed("the daemon does not store an event")
        cpu_s = daemon.cpu_s()
        with paused(daemon):
            for event in events:
                props = unpack_props(event.props)
                if not client.emit(event.type, user=event.user, props=props, ts_ns=event.ts_ns):
                    raise Failed(f"an event was refused: {client.stats()['refused_by_cause']}")
            start_s = time.monotonic()
        if not client.flush(FLUSH_TIMEOUT_S):
            raise Failed(f"a backlog was not stored in {FLUSH_TIMEOUT_S:.0f} s")
        took_s = time.monotonic() - start_s
        cpu_s = daemon.cpu_s() - cpu_s
        stats = client.stats()
    after = settled(instance)
    sums = Sums.of(stats, change(before, after))
    return StoredBacklog(
        events=len(events),
        stored_before=before["stored"],
        stored_per_s=len(events) / took_s,
        cpu_s_per_100k=per_100k(cpu_s, len(events)),
        commits=after["commits"] - before["commits"],
        sums=sums,
        problems=sums.problems(),
    )


def per_100k(cpu_s: float, events: int) -> float:
    """Return the CPU time per 100,000 events.

    The kernel counts in ticks, and a few hundred events may take less than one. At least one tick
    is assumed, because ratios are computed from the result.
    """
    return max(cpu_s, TICK_S) / events * 100_000


def settled(instance: Instance) -> dict[str, Any]:
    """Return the status once nothing is pending. Raises Failed."""
    state = instance.settled_status(SETTLED_TIMEOUT_S)
    if state["pending"]:
        raise Failed(f"{state['pending']:,} events are still pending")
    return state


@dataclass(frozen=True)
class Pair:
    """The same backlog stored by both daemons."""

    empty: StoredBacklog
    full: StoredBacklog

    @property
    def problems(self) -> list[str]:
        """Every wrong sum of either daemon."""
        named = (("empty", self.empty), ("full", self.full))
        return [
            f"ingest, {name} trail: {text}" for name, stored in named for text in stored.problems
        ]


def compare_with_empty(
    full: tuple[Instance, Running],
    directory: Path,
    events: Sequence[Event],
    *,
    empty_first: bool = True,
) -> Pair:
    """Store the same backlog in a new trail, made in `directory`, and in the full one.

    The order should change from round to round. Raises Failed.
    """
    directory.mkdir()
    with Instance(directory) as empty, running("logd", empty.run_arguments()) as daemon:
        daemon.wait_for_line("logd: ready")
        both = [(empty, daemon), full]
        first, second = (
            store_backlog(*one, events) for one in (both if empty_first else both[::-1])
        )
        daemon.stop()
    return Pair(first, second) if empty_first else Pair(second, first)


def ratio(pairs: Sequence[Pair]) -> float:
    """Return events per second with the full trail / with the empty one, the median of rounds."""
    return median(pair.full.stored_per_s / pair.empty.stored_per_s for pair in pairs)


def cpu_ratio(pairs: Sequence[Pair]) -> float:
    """Return the same ratio for the daemon's CPU time per event."""
    return median(pair.full.cpu_s_per_100k / pair.empty.cpu_s_per_100k for pair in pairs)
