"""Measure events stored by a live daemon, compared with a bare bulk insert of the same rows.

python -m benchmarks.ingest.measure  # about 85 s; --long: more events, every cell three times
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import slow_flush
from benchmarks.harness.part import Advance, Part, command
from benchmarks.ingest import run as ingest_run
from benchmarks.ingest import tables
from benchmarks.ingest.results import Results
from benchmarks.ingest.run import flat_out

# The number of producers for the figures; the others are shown for comparison.
PRODUCERS = 4
OTHER_PRODUCERS = (1, 64)
SLOW_FLUSH_MS = 80
# The earlier design's notes have a connection for each transaction, and WAL + NORMAL.
# With a kept connection and FULL each transaction is as durable as a batch of the daemon.
QUEUES = (("new", "NORMAL"), ("kept", "NORMAL"), ("kept", "FULL"))


@dataclass(frozen=True)
class Size:
    """How much is measured. `rounds` are for PRODUCERS producers, `other_rounds` for the rest."""

    events: int
    rounds: int
    other_rounds: int
    raw_events: int
    queue_s: float
    producers: Sequence[int] = (PRODUCERS, *OTHER_PRODUCERS)

    @property
    def steps(self) -> int:
        """The number of daemon runs, each with its insert, and of queue runs."""
        others = (len(self.producers) - 1 + 2 + len(QUEUES)) * self.other_rounds
        return self.rounds + others


QUICK = Size(events=200_000, rounds=3, other_rounds=1, raw_events=50_000, queue_s=2.5)
LONG = Size(events=1_000_000, rounds=3, other_rounds=3, raw_events=300_000, queue_s=10.0)


def steps(long: bool) -> int:
    """Return the number of steps of a run."""
    return (LONG if long else QUICK).steps


def run(place: Path, long: bool, advance: Advance) -> Part:
    """Measure the part with files in `place`. Raises Failed."""
    return measure(place, LONG if long else QUICK, advance)


def measure(place: Path, size: Size, advance: Advance) -> Part:
    """Measure all cells in rounds; a bare insert follows its daemon at once. Raises Failed."""
    results = Results()
    for number in range(max(size.rounds, size.other_rounds)):
        others = number < size.other_rounds
        results.raws.append(ingest_run.raw(size.raw_events))
        for producers in size.producers:
            if others or (producers == size.producers[0] and number < size.rounds):
                _pair(results, place / f"{producers}-{number}", producers, size.events, advance)
        if others:
            _sampled(results, place / f"sampled-{number}", size, advance)
            measure_slow(results, place / f"slow-{number}", size, advance)
    return tables.part(results)


def _pair(results: Results, directory: Path, producers: int, events: int, advance: Advance) -> None:
    advance(f"{producers} producers", 0)
    verify = not any(one.verified for one, _ in results.pairs)
    ingested = ingest_run.ingest(directory, flat_out(producers, events), {}, verify=verify)
    advance("bare insert", 0)
    results.pairs.append((ingested, ingest_run.insert(ingested, {})))
    advance("", 1)


def _sampled(results: Results, directory: Path, size: Size, advance: Advance) -> None:
    advance("CPU time by step", 0)
    load = flat_out(size.producers[0], size.events)
    results.sampled.append(ingest_run.ingest(directory, load, {}, sampled=True))
    advance("", 1)


def measure_slow(results: Results, directory: Path, size: Size, advance: Advance) -> None:
    """Measure the daemon and the queue on slow flushes, if there is a compiler for the shim."""
    directory.mkdir()
    try:
        env = slow_flush.environment(directory, SLOW_FLUSH_MS)
    except slow_flush.NoCompiler as reason:
        results.missing = [f"{SLOW_FLUSH_MS} ms flushes: {reason}"]
        advance("", 1 + len(QUEUES))
        return
    advance("logd, slow flushes", 0)
    load = flat_out(size.producers[0], size.events)
    slow = ingest_run.ingest(directory / "logd", load, env, flush_ms=SLOW_FLUSH_MS)
    results.slow.append(slow)
    advance("", 1)
    for connection, synchronous in QUEUES:
        advance(f"queue, {connection}, {synchronous}", 0)
        queued = ingest_run.queued(
            directory / f"{connection}-{synchronous}", size.queue_s, connection, synchronous, env
        )
        results.queues.setdefault((connection, synchronous), []).append(queued)
        advance("", 1)


main = command(
    steps,
    run,
    "Measure events stored per second, compared with a bare bulk insert of the same rows.",
    "More events, and every cell three times.",
)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.ingest.measure")
