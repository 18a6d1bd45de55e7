"""The results of `benchmarks.ingest.measure`, and the figures made of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.harness.sums import Sums
from benchmarks.ingest.bulk import Inserted
from benchmarks.ingest.cpu_split import OTHER, STEPS
from benchmarks.ingest.earlier_queue import Queued
from benchmarks.ingest.raw_datagrams import Raw
from benchmarks.ingest.run import Ingested, mib

Pair = tuple[Ingested, Inserted]
# The kind of queue that is as durable as a batch of the daemon.
DURABLE_QUEUE = ("kept", "FULL")
# The steps of an event, in their order; `send` is in the emitters.
WAY = ("send", "receive", "decode", "order", "insert", "hash", "roll-ups", "commit", OTHER)
assert {*WAY} == {"send", OTHER, *STEPS}


@dataclass(frozen=True)
class Cpu:
    """CPU time of an event in us by step: in logd, and of the bare parts alone."""

    way: dict[str, float]
    parts: dict[str, float]
    over_parts: float


@dataclass
class Results:
    """Every run, in order. The pairs with the same number of producers are rounds of a cell."""

    pairs: list[Pair] = field(default_factory=list)
    raws: list[Raw] = field(default_factory=list)
    sampled: list[Ingested] = field(default_factory=list)
    slow: list[Ingested] = field(default_factory=list)
    queues: dict[tuple[str, str], list[Queued]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def producers(self) -> list[int]:
        """The numbers of producers; figures are taken from the first."""
        return list(dict.fromkeys(one.producers for one, _ in self.pairs))

    def cell(self, producers: int) -> list[Pair]:
        """Return the rounds with this number of producers."""
        return [pair for pair in self.pairs if pair[0].producers == producers]

    @property
    def daemons(self) -> list[Ingested]:
        """All runs of a daemon."""
        return [*(one for one, _ in self.pairs), *self.sampled, *self.slow]


def ratio(pair: Pair) -> float:
    """Return events per second of the daemon / of its bare insert."""
    return pair[0].window.events_s / bulk_events_s(pair[1])


def bulk_events_s(inserted: Inserted) -> float:
    return inserted.events / inserted.seconds


def bulk_cpu_us(inserted: Inserted) -> float:
    return inserted.cpu_s / inserted.events * 1e6


def cpu(results: Results) -> Cpu:
    """Return medians over the rounds; the daemon's time is split in the sampled proportions."""
    rounds = results.cell(results.producers[0])
    sending = median(one.emitter_cpu_us for one, _ in rounds)
    storing = median(one.daemon_cpu_us for one, _ in rounds)
    sampled: dict[str, int] = {}
    for one in results.sampled:
        for step, ns in one.split.items():
            sampled[step] = sampled.get(step, 0) + ns
    total = sum(sampled.values())
    way = {step: storing * sampled.get(step, 0) / total for step in WAY} if total else {}
    parts = {
        "send": median(raw.send_cpu_s / raw.sent * 1e6 for raw in results.raws),
        "receive": median(raw.receive_cpu_s / raw.received * 1e6 for raw in results.raws),
        "insert": median(bulk_cpu_us(inserted) for _, inserted in rounds),
    }
    return Cpu({**way, "send": sending}, parts, (sending + storing) / sum(parts.values()))


def queue_events_s(results: Results, kind: tuple[str, str]) -> float:
    return median(one.events_s for one in results.queues[kind])


def slow_events_s(results: Results) -> float:
    return median(one.window.events_s for one in results.slow)


def figures(results: Results) -> dict[str, float]:
    """Return the figures for targets and baseline."""
    rounds = results.cell(results.producers[0])
    found = {
        "ingest.over_bulk_insert": median(map(ratio, rounds)),
        "ingest.events_s": median(one.window.events_s for one, _ in rounds),
        "ingest.bulk_events_s": median(bulk_events_s(inserted) for _, inserted in rounds),
        "ingest.cpu_over_parts": cpu(results).over_parts,
        "ingest.resident_mib": mib(max(one.peak_bytes for one in results.daemons)),
    }
    if results.slow:
        found["ingest.slow_flush_events_s"] = slow_events_s(results)
        queue = queue_events_s(results, DURABLE_QUEUE)
        if queue:
            found["ingest.slow_flush_over_queue"] = slow_events_s(results) / queue
    return found


def problems(results: Results) -> list[str]:
    """Return every wrong sum, with the run it belongs to."""
    found = [f"{name_of(one)}: {text}" for one in results.daemons for text in one.problems]
    for one, inserted in results.pairs:
        texts = bulk_sums(inserted).problems()
        if inserted.events != one.window.events:
            texts.append(f"{inserted.events:,} rows inserted, not {one.window.events:,}")
        found += [f"bare insert, {one.producers} producers: {text}" for text in texts]
    for kind, many in results.queues.items():
        texts = [text for queued in many for text in queue_sums(queued).problems()]
        found += [f"queue, {' '.join(kind)}: {text}" for text in texts]
    for raw in results.raws:
        texts = Sums(raw.sent, raw.sent, 0, raw.received).problems()
        found += [f"raw datagrams: {text}" for text in texts]
    return found


def name_of(one: Ingested) -> str:
    slow = f", flushes + {one.flush_ms} ms" if one.flush_ms else ""
    return f"logd, {one.producers} producers{slow}{', sampled' if one.split else ''}"


def bulk_sums(inserted: Inserted) -> Sums:
    """Return the sums of a bare insert, which accepts everything."""
    return Sums(inserted.events, inserted.events, 0, inserted.stored)


def queue_sums(queued: Queued) -> Sums:
    return Sums(
        queued.attempted, queued.accepted, queued.refused, queued.stored, pending=queued.pending
    )


def rows(results: Results) -> list[dict[str, Any]]:
    """Return every run for JSON, each with its sums."""
    found: list[dict[str, Any]] = []
    for ingested, inserted in results.pairs:
        found.append(_daemon_row(ingested))
        found.append(
            _row("bulk", bulk_sums(inserted), asdict(inserted), producers=ingested.producers)
        )
    found += [_daemon_row(one) for one in (*results.sampled, *results.slow)]
    for (connection, synchronous), many in results.queues.items():
        found += [
            _row(
                "queue",
                queue_sums(one),
                asdict(one),
                connection=connection,
                synchronous=synchronous,
            )
            for one in many
        ]
    found += [_row("raw", Sums(r.sent, r.sent, 0, r.received), asdict(r)) for r in results.raws]
    return found


def _daemon_row(one: Ingested) -> dict[str, Any]:
    body = asdict(one)
    sums = body.pop("sums")
    del body["directory"]
    body["window"]["events_s"] = one.window.events_s
    return _row("logd", Sums(**sums), body)


def _row(kind: str, sums: Sums, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": kind, **more, **body, **asdict(sums)}


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Return the lowest and the highest value."""
    ordered = sorted(values)
    return ordered[0], ordered[-1]
