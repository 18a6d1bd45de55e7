"""One end of a daemon under load, by `kill -9` or by SIGTERM, and the start of the next.

Emitters go on through all of it. An event accepted by another client while no daemon runs, the
probe, tells when the next one has stored something new.
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
from benchmarks.harness.sums import Sums
from logd.ingest.outbox_directory import OutboxDirectory
from logd_client import Client

KILL, STOP = "kill -9", "clean stop"
STEADY = Load(emitters=2, events=12_000, rate=10_000)
FLAT_OUT = Load(emitters=2, events=60_000)
LOAD_S = 0.3  # from the first event to the end of the daemon
START_TIMEOUT_S = 60.0
# An installed program has its bytecode; without it a start takes half as long again.
AS_INSTALLED = {"PYTHONDONTWRITEBYTECODE": ""}
PROBE_TIMEOUT_S = 60.0
PROBE_EVENTS = 2
SUMMED = ("stored", "quarantined", "pending", "lost")


@dataclass(frozen=True)
class End:
    """One end and what came after it. Times are wall time; a new one's count from its start.

    `waiting` is how many events lay unconfirmed in outboxes while no daemon ran.
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


def measure(trail: Trail, how: str, load: Load) -> End:
    """Starts a daemon, ends it under load, starts the next, and stops that one. Raises Failed."""
    instance, arguments = trail.instance, trail.instance.run_arguments()
    with running("logd", arguments, AS_INSTALLED) as daemon, Client(instance.socket) as probe:
        daemon.wait_for_line("logd: ready")
        before = settled(instance)
        _emit(probe, "login")
        if not probe.flush(PROBE_TIMEOUT_S):
            raise Failed("the daemon does not store an event")
        with emitters(instance.socket, load) as (start, results):
            _together(start)
            time.sleep(LOAD_S)
            ended_s = _end(daemon, how)
            waiting = _waiting(trail, probe)
            _emit(probe, "logout")  # accepted while no daemon runs
            started_s = time.monotonic()
            with running("logd", arguments, AS_INSTALLED) as successor:
                ready_s, first_commit_s = _first(successor, probe, started_s)
                emitted = collect(results, load)
                after = settled(instance)
                successor.stop()
    counts = {key: after[key] - before[key] for key in SUMMED}
    sums = emitter.sums(emitted, counts)
    both = {key: getattr(sums, key) + PROBE_EVENTS for key in ("attempted", "accepted")}
    sums = replace(sums, **both)
    problems = sums.problems()
    problems += [f"{counts[key]:,} {key}" for key in ("lost", "quarantined") if counts[key]]
    if not all(one.flushed for one in emitted):
        problems.append("an emitter did not see all of its events confirmed")
    return End(
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


def _together(start: Barrier) -> None:
    try:
        start.wait(timeout=START_TIMEOUT_S)
    except threading.BrokenBarrierError:
        raise Failed(f"the emitters did not start in {START_TIMEOUT_S:.0f} s") from None


def _emit(probe: Client, event_type: str) -> None:
    if not probe.emit(event_type, user="1"):
        raise Failed(f"the probe's event was refused: {probe.stats()['refused_by_cause']}")


def _end(daemon: Running, how: str) -> float:
    """Ends it, and the seconds until it was gone."""
    start_s = time.monotonic()
    if how == KILL:
        daemon.kill()
    else:
        daemon.stop()
    return time.monotonic() - start_s


def _first(successor: Running, probe: Client, started_s: float) -> tuple[float, float]:
    """Seconds from the start of a daemon until it says ready, and until it has stored the probe."""
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
    """Events that wait in outboxes, while no daemon runs."""
    own = int(probe.stats()["producer"] or "0", 16)
    outboxes = OutboxDirectory(trail.config.outbox_directory, read_only=True)
    outboxes.attach()
    waiting = 0
    try:
        for name, uid, producer_id in outboxes.names():
            # To open and close one's own would let go of the lock that says one lives.
            if producer_id == own:
                continue
            outbox = outboxes.open(name, uid, producer_id)
            if outbox is not None:
                waiting += outbox.header.written - outbox.header.confirmed_sequence
                outboxes.release(outbox)
    finally:
        outboxes.close()
    return waiting
