"""The results of one run of `ingest`, made up, for tests of figures and tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.harness.sums import Sums
from benchmarks.ingest import bulk, cpu_split
from benchmarks.ingest.earlier_queue import Queued
from benchmarks.ingest.raw_datagrams import Raw
from benchmarks.ingest.results import Results
from benchmarks.ingest.run import HELD_UP, Ingested, Window

SUMS = Sums(attempted=1100, accepted=1000, refused=100, stored=1000)
DAEMON = Ingested(
    producers=4,
    flush_ms=0,
    window=Window(HELD_UP, 2, 9, 800, 0.01),
    sums=SUMS,
    commits=10,
    emitter_cpu_us=5.0,
    daemon_cpu_us=10.0,
    core_share=0.9,
    call_p50_ns=4000,
    peak_bytes=64 * 1024 * 1024 + 1,
)
BARE = bulk.Inserted(800, 800, commits=8, checkpoints=3, seconds=0.005, cpu_s=800 * 4e-6)
RAW = Raw(sent=100, received=100, bytes=190, send_cpu_s=2e-4, receive_cpu_s=4e-4)
QUEUE = Queued(
    attempted=30, accepted=20, refused=10, stored=15, pending=5, transactions=2, events_s=100.0
)


def results_of_a_run(**changes: Any) -> Results:
    """Return results with every kind of run; `changes` replace fields."""
    sampled = replace(DAEMON, split={"insert": 600, "decode": 300, cpu_split.OTHER: 100})
    body: dict[str, Any] = {
        "pairs": [(DAEMON, BARE), (replace(DAEMON, producers=64), BARE)],
        "raws": [RAW],
        "sampled": [sampled],
        "slow": [replace(DAEMON, flush_ms=80, window=Window(HELD_UP, 2, 9, 800, 0.02))],
        "queues": {("new", "NORMAL"): [replace(QUEUE, events_s=8.0)], ("kept", "FULL"): [QUEUE]},
    }
    return Results(**{**body, **changes})
