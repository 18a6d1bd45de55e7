"""Measure one restart under load: `kill -9` or SIGTERM, and the start of the next daemon.

Emitters run all the time. Another client, the probe, emits an event while no daemon runs; its
confirmation shows when the next daemon has stored something new.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier

from benchmarks.growth.backlog import settled
from benchmarks.growth.history import Trail
from benchmarks.harness import emitter
from benchmarks.harness.emitter import Load, collect, emitters
from benchmarks.harness.processes import Failed, Running, running
from benchmarks.harness.sums import Sums, change
from logd.ingest.outbox_directory import OutboxDirectory
from logd_client import Client

KILL, STOP = "kill -9", "clean stop"
STEADY = Load(emitters=2, events=12_000, rate=10_000)
FLAT_OUT = Load(emitters=2, events=60_000)
LOAD_S = 0.3  # seconds of load before the daemon is ended
START_TIMEOUT_S = 60.0
# An installed program has bytecode; a start without it takes 1.5 times as long.
AS_INSTALLED = {"PYTHONDONTWRITEBYTECODE": ""}
PROBE_TIMEOUT_S = 60.0
PROBE_EVENTS = 2


@dataclass(frozen=True)
class Restart:
    """The end of a daemon and the start of the next. Times are wall time.

    `ready_s` and `first_commit_s` count from the start of the next daemon. `waiting` is how many
    events lay unconfirmed in outboxes while no daemon ran.
    """

    how: str
    load: str
    stored_before: int
    ended_s: float
    waiting: int
    ready_s: float
    first_commit_s: float
    sums: Sums
    problems: list[str]


def measure(trail: Trail, how: str, load: Load) -> Restart:
    """Start a daemon, end it under load, start the next and stop that one. Raises Failed."""
    instance, arguments = trail.instance, trail.instance.run_arguments()
    with running("logd", arguments, AS_INSTALLED) as daemon, Client(instance.socket) as probe:
        daemon.wait_for_line("logd: ready")
        before = settled(instance)
        _emit(probe, "login")
        if not probe.flush(PROBE_TIMEOUT_S):
            raise Failed("the daemon does not store an event")
        with emitters(instance.socket, load) as (start, results):
            _start_emitters(start)
            time.sleep(LOAD_S)
            ended_s = _end_daemon(daemon, how)
            waiting = _waiting(trail, probe)
            _emit(probe, "logout")  # accepted, and waiting, while no daemon runs
            started_s = time.monotonic()
            with running("logd", arguments, AS_INSTALLED) as successor:
                ready_s, first_commit_s = _first_times(successor, probe, started_s)
                emitted = collect(results, load)
                after = settled(instance)
                successor.stop()
    counts = change(before, after)
    sums = emitter.sums(emitted, counts)
    both = {key: getattr(sums, key) + PROBE_EVENTS for key in ("attempted", "accepted")}
    sums = replace(sums, **both)
    problems = sums.problems()
    problems += [f"{counts[key]:,} {key}" for key in ("lost", "quarantined") if counts[key]]
    if not all(one.flushed for one in emitted):
        problems.append("an emitter did not see all of its events confirmed")
    return Restart(
        how=how,
        load=str(load),
        stored_before=before["stored"],
        ended_s=ended_s,
        waiting=waiting,
        ready_s=ready_s,
        first_commit_s=first_commit_s,
        sums=sums,
        problems=problems,
    )


def _start_emitters(start: Barrier) -> None:
    try:
        start.wait(timeout=START_TIMEOUT_S)
    except threading.BrokenBarrierError:
        raise Failed(f"the emitters did not start in {START_TIMEOUT_S:.0f} s") from None


def _emit(probe: Client, event_type: str) -> None:
    if not probe.emit(event_type, user="1"):
        raise Failed(f"the probe's event was refused: {probe.stats()['refused_by_cause']}")


def _end_daemon(daemon: Running, how: str) -> float:
    """End the daemon; return the seconds until it was gone."""
    start_s = time.monotonic()
    if how == KILL:
        daemon.kill()
    else:
        daemon.stop()
    return time.monotonic() - start_s


def _first_times(successor: Running, probe: Client, started_s: float) -> tuple[float, float]:
    """Return the seconds from the start of a daemon to ready, and to the probe's confirmation."""
    stored_s: list[float] = []

    def wait() -> None:
        if probe.flush(PROBE_TIMEOUT_S):
            stored_s.append(time.monotonic())

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    successor.wait_for_line("logd: ready")
    ready_s = time.monotonic()
    waiting.join()
    if not stored_s:
        raise Failed("the next daemon does not store an event")
    return ready_s - started_s, stored_s[0] - started_s


def _waiting(trail: Trail, probe: Client) -> int:
    """Count the unconfirmed events in outboxes, while no daemon runs."""
    own = int(probe.stats()["producer"] or "0", 16)
    outboxes = OutboxDirectory(trail.config.outbox_directory, read_only=True)
    outboxes.attach()
    waiting = 0
    try:
        for name, uid, producer_id in outboxes.names():
            # This process's outbox is skipped:
            # opening and closing the file would release the lock on it.
            if producer_id == own:
                continue
            outbox = outboxes.open(name, uid, producer_id)
            if outbox is not None:
                waiting += outbox.header.written - outbox.header.confirmed_sequence
                outboxes.release(outbox)
    finally:
        outboxes.close()
    return waiting
