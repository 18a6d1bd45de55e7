"""One run of `make bench-ingest`: a daemon under live emitters, or what it is compared with."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import table
from benchmarks.harness.emitter import Emitted, Load, collect, emitters, sums
from benchmarks.harness.processes import Failed, Instance, Running, running
from benchmarks.harness.sums import Sums
from benchmarks.ingest import bulk, cpu_split, earlier_queue, raw_datagrams
from benchmarks.ingest.bulk import Inserted
from benchmarks.ingest.earlier_queue import Queued
from benchmarks.ingest.raw_datagrams import Raw
from logd.config import settings as configuration
from logd.storage import keyfile
from logd.storage.database import connect

MIB = 1024 * 1024
EMIT_READY_TIMEOUT_S = 60.0
OUTPUT_TIMEOUT_S = 300.0
# Bytes of all outboxes together, a few batches: they are soon full,
# and then the emitters cannot be faster than the daemon, however many there are.
OUTBOXES_BYTES = 8 * MIB
# Seconds that a refused emitter waits: short enough that the daemon always has events,
# long enough that retries do not add to the cost of an event. With more emitters each waits longer.
HELD_UP_WAIT_S = 0.005
_WAITING_AT_ONCE = 16
BATCHES_MIN = 4
# The states of the emitters during a window.
HELD_UP, EMITTING, ALL = "held up", "emitting", "all of it"


def flat_out(producers: int, events: int) -> Load:
    """Return the load of `producers` emitters that emit `events` in total, flat out."""
    return Load(
        producers,
        events,
        outbox_bytes=OUTBOXES_BYTES // producers,
        refused_wait_s=HELD_UP_WAIT_S * max(1, producers / _WAITING_AT_ONCE),
    )


@dataclass(frozen=True)
class Window:
    """A run of batches, by the ids of the first and last, with its events and duration."""

    when: str
    first: int
    last: int
    events: int
    seconds: float

    @property
    def events_s(self) -> float:
        return self.events / self.seconds


@dataclass(frozen=True)
class Ingested:
    """The result of one daemon under load. `split` is CPU time in ns by step, where sampled."""

    producers: int
    flush_ms: int
    window: Window
    sums: Sums
    commits: int
    emitter_cpu_us: float  # CPU seconds per event
    daemon_cpu_us: float
    core_share: float  # CPU time of the daemon / wall time
    call_p50_ns: int
    peak_bytes: int
    split: Mapping[str, int] = field(default_factory=dict)
    verified: bool = False
    problems: Sequence[str] = ()
    directory: Path = Path()


def ingest(
    directory: Path,
    load: Load,
    env: Mapping[str, str],
    *,
    flush_ms: int = 0,
    sampled: bool = False,
    verify: bool = False,
) -> Ingested:
    """Run a daemon under load, with its trail in a fresh `directory`. Raises Failed."""
    directory.mkdir()
    split: dict[str, int] = {}
    with Instance(directory) as instance:
        command = instance.run_arguments()
        if sampled:
            command = ["-m", "benchmarks.ingest.cpu_split", "--config", str(instance.config)]
        with running("logd", command, env) as daemon:
            daemon.wait_for_line("logd: ready")
            with emitters(instance.socket, load) as (start, results):
                start.wait(timeout=EMIT_READY_TIMEOUT_S)
                cpu_s = daemon.cpu_s()
                emitted = collect(results, load)
                cpu_s = daemon.cpu_s() - cpu_s
            peak_bytes = resident_peak_bytes(daemon.pid)
            output = daemon.stop()
        if sampled:
            split = json.loads(_marked_line(output, cpu_split.MARK))
        state = instance.status()
        problems = find_problems(emitted, state)
        if verify:
            try:
                instance.verify()
            except Failed as error:
                problems.append(str(error))
        window = window_of(batches(instance), emitted)
    stored = state["stored"]
    return Ingested(
        producers=load.emitters,
        flush_ms=flush_ms,
        window=window,
        sums=sums(emitted, state),
        commits=state["commits"],
        emitter_cpu_us=sum(one.cpu_s for one in emitted) / stored * 1e6,
        daemon_cpu_us=cpu_s / stored * 1e6,
        core_share=cpu_s / took_s(emitted),
        call_p50_ns=table.quantile([ns for one in emitted for ns in one.calls_ns], 0.5),
        peak_bytes=peak_bytes,
        split=split,
        verified=verify,
        problems=problems,
        directory=directory,
    )


def find_problems(emitted: Sequence[Emitted], state: Mapping[str, Any]) -> list[str]:
    """Return every wrong sum of a daemon's run."""
    problems = sums(list(emitted), dict(state)).problems()
    for key in ("lost", "pending", "quarantined"):
        if state[key]:
            problems.append(f"{state[key]:,} {key}")
    if not all(one.flushed for one in emitted):
        problems.append("an emitter did not see all of its events confirmed")
    return problems


Batch = tuple[int, int, int]  # id, stored_ns, events


def batches(instance: Instance) -> list[Batch]:
    """Return all batches of an instance whose daemon does not run, in order."""
    config = configuration.load(instance.config)
    key = keyfile.read(config.key_file)
    with contextlib.closing(connect(config.database, key, read_only=True)) as connection:
        rows: list[Batch] = connection.execute(
            "SELECT id, stored_ns, events FROM batch ORDER BY id"
        ).fetchall()
    return rows


def window_of(trail: Sequence[Batch], emitted: Sequence[Emitted]) -> Window:
    """Return the batches while full outboxes held emitters up and half of them were not done.

    If those are too few: the batches while events were emitted; else all, until the last
    confirmation. Raises Failed without batches. A batch's time is the start of its commit, so the
    last batch is not counted.
    """
    started_ns = max(one.started_ns for one in emitted)
    full_ns = min((one.full_ns for one in emitted if one.full_ns), default=None)
    until_ns = table.quantile([one.emitted_ns for one in emitted], 0.5)
    held_up = [] if full_ns is None else [(HELD_UP, full_ns)]
    for when, since_ns in [*held_up, (EMITTING, started_ns)]:
        seen = [batch for batch in trail if since_ns <= batch[1] <= until_ns]
        if len(seen) >= BATCHES_MIN and seen[-1][1] > seen[0][1]:
            return _window(when, seen[:-1], (seen[-1][1] - seen[0][1]) / 1e9)
    seen = [batch for batch in trail if batch[1] >= started_ns]
    if not seen:
        raise Failed("no batch at all while events were emitted")
    return _window(ALL, seen, took_s(emitted))


def took_s(emitted: Sequence[Emitted]) -> float:
    """Return the seconds from the first event to the last confirmation."""
    return max(one.confirmed_s for one in emitted) - min(one.started_s for one in emitted)


def _window(when: str, seen: Sequence[Batch], seconds: float) -> Window:
    return Window(when, seen[0][0], seen[-1][0], sum(events for _, _, events in seen), seconds)


def insert(ingested: Ingested, env: Mapping[str, str]) -> Inserted:
    """Insert the events of that window in bulk, then delete both databases. Raises Failed."""
    directory, window = ingested.directory, ingested.window
    arguments = [
        *("-m", "benchmarks.ingest.bulk", str(directory / "logd.toml")),
        *(str(window.first), str(window.last), str(directory / "bulk.db")),
    ]
    inserted = Inserted(**_run_process("bulk insert", arguments, bulk.MARK, env))
    shutil.rmtree(directory)
    return inserted


def queued(
    directory: Path, seconds: float, connection: str, synchronous: str, env: Mapping[str, str]
) -> Queued:
    """Measure the earlier design's queue in a fresh `directory`. Raises Failed."""
    directory.mkdir()
    arguments = ["-m", "benchmarks.ingest.earlier_queue", str(directory), str(seconds)]
    arguments += [connection, synchronous]
    return Queued(**_run_process("queue", arguments, earlier_queue.MARK, env))


def raw(count: int) -> Raw:
    """Measure sending and receiving alone. Raises Failed."""
    arguments = ["-m", "benchmarks.ingest.raw_datagrams", str(count)]
    return Raw(**_run_process("raw datagrams", arguments, raw_datagrams.MARK, {}))


def _run_process(
    name: str, arguments: Sequence[str], mark: str, env: Mapping[str, str]
) -> dict[str, Any]:
    with running(name, arguments, env) as process:
        line = process.wait_for_line(mark, OUTPUT_TIMEOUT_S)
        _ended(process)
    output: dict[str, Any] = json.loads(line.removeprefix(mark))
    return output


def _ended(process: Running) -> None:
    with contextlib.suppress(Failed):  # the process ends by itself, perhaps before the signal
        process.stop()


def _marked_line(lines: Sequence[str], mark: str) -> str:
    for line in lines:
        if line.startswith(mark):
            return line.removeprefix(mark)
    raise Failed("the sampled daemon did not report its CPU time")


def resident_peak_bytes(pid: int) -> int:
    """Return the peak resident memory of a process. Raises OSError, ValueError."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmHWM in /proc/PID/status")


def mib(size: int) -> float:
    """Return bytes as MiB, rounded up: one byte over the limit is over the limit."""
    return math.ceil(size / MIB * 10) / 10
