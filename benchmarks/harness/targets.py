"""The targets: a limit for a figure, and whether a run meets it. Pure.

A missed target is reported; it never fails a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import table

MET, MISSED = "met", "missed"
NOT_MEASURED, TOO_FEW = "not measured", "fewer events"


@dataclass(frozen=True)
class Target:
    """One limit for one figure. `sign` is `<=`, `<` or `>=`.

    A `long` target is about 10^7 events: a shorter run measures the figure but decides nothing.
    """

    figure: str
    what: str
    sign: str
    limit: float
    unit: str = ""
    long: bool = False

    @property
    def part(self) -> str:
        """The part that measures the figure."""
        return self.figure.partition(".")[0]

    @property
    def command(self) -> str:
        """The command that measures it."""
        return "make bench-long" if self.long else f"make bench-{self.part}"

    def met(self, measured: float) -> bool:
        """Whether a measured value meets the limit."""
        if self.sign == ">=":
            return measured >= self.limit
        return measured < self.limit or (self.sign == "<=" and measured == self.limit)

    def used(self, measured: float) -> float:
        """Return the used share of the limit: 1 just meets it, less is better."""
        if self.sign != ">=":
            return measured / self.limit
        return self.limit / measured if measured > 0 else float("inf")

    def shown(self, value: float) -> str:
        """Format a value with its unit, if there is one."""
        return f"{table.digits(value)} {self.unit}".rstrip()


TARGETS = (
    Target(
        "client.emit_over_raw_send_pinned",
        "emit / raw send of the same bytes, pinned to a core each",
        "<=",
        2.0,
    ),
    Target("client.emit_over_raw_send", "emit / raw send, not pinned", "<=", 2.5),
    Target("client.emit_over_best_peer", "emit / the fastest of the peers", "<", 1.0),
    Target("client.emit_1000_over_flat_out", "emit at 1,000/s / emit flat out", "<=", 1.5),
    Target("client.any_value_p99_ms", "emit of any value, p99", "<=", 1.0, "ms"),
    Target(
        "client.any_value_worst_ms", "emit of any value, of 100 MB too, worst", "<=", 20.0, "ms"
    ),
    Target(
        "client.first_durable_over_later",
        "first durable event of a process / a later one",
        "<=",
        1.5,
    ),
    Target("request.throughput_over_none", "requests/s with logging / without", ">=", 0.97),
    Target("ingest.over_bulk_insert", "events/s stored / by a bare bulk insert", ">=", 0.8),
    Target(
        "ingest.cpu_over_parts", "CPU per event / (raw send + raw receive + bare insert)", "<=", 1.3
    ),
    Target(
        "ingest.slow_flush_over_queue",
        "events/s stored on 80 ms flushes / by the queue design there",
        ">=",
        400,
    ),
    Target("ingest.resident_mib", "resident memory of logd at full ingest", "<=", 128, "MiB"),
    Target(
        "query.ingest_full_over_empty", "ingest at 10^7 stored / at empty", ">=", 0.9, long=True
    ),
    Target(
        "query.slowest_report_p95_ms",
        "slowest dashboard report at 10^7, p95",
        "<=",
        100,
        "ms",
        long=True,
    ),
    Target(
        "query.stored_over_jsonl_bytes", "stored bytes / JSON lines of the same events", "<=", 1.0
    ),
    Target("recovery.ready_s", "ready after kill -9 at 10^7", "<=", 0.5, "s", long=True),
)


@dataclass(frozen=True)
class Outcome:
    """A target with its measured value (None: not measured), in a long run or not."""

    target: Target
    measured: float | None
    long: bool

    @property
    def decides(self) -> bool:
        """Whether it was measured at the size that the target is about."""
        return self.measured is not None and (self.long or not self.target.long)

    @property
    def verdict(self) -> str:
        """The result in a word or two."""
        if self.measured is None:
            return NOT_MEASURED
        if not self.decides:
            return TOO_FEW
        return MET if self.target.met(self.measured) else MISSED


def judge(figures: Mapping[str, float], parts: Sequence[str], *, long: bool) -> list[Outcome]:
    """Compare the targets of these parts with the measured figures."""
    return [Outcome(one, figures.get(one.figure), long) for one in TARGETS if one.part in parts]


def show(outcomes: Sequence[Outcome]) -> str:
    """Return the table, and how many targets are met."""
    rows = [
        [
            outcome.target.what,
            f"{outcome.target.sign} {outcome.target.shown(outcome.target.limit)}",
            "-" if outcome.measured is None else outcome.target.shown(outcome.measured),
            outcome.verdict if outcome.decides else f"{outcome.verdict}: {outcome.target.command}",
        ]
        for outcome in outcomes
    ]
    decided = [one for one in outcomes if one.decides]
    met = sum(one.verdict == MET for one in decided)
    counted = f"{met} of {len(decided)} measured targets met"
    left = len(outcomes) - len(decided)
    summary_line = f"{counted}; {left} not measured here." if left else f"{counted}."
    head = ("what", "target", "measured", "")
    text = table.render(head, [[r[0], r[1].rjust(10), r[2].rjust(9), r[3]] for r in rows], left=4)
    return f"{text}\n\n{summary_line}"


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome for JSON."""
    target = outcome.target
    return {
        "figure": target.figure,
        "what": target.what,
        "sign": target.sign,
        "limit": target.limit,
        "measured": outcome.measured,
        "verdict": outcome.verdict,
        "command": target.command,
    }
