"""The results of `make bench-client`: sums, rows, and the figures for targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.client.peers import KINDS
from benchmarks.client.plan import FAST, FAST_PER_S, PEERS, PINNED, WARM_UP, Cell
from benchmarks.harness.sums import Sums


@dataclass(frozen=True)
class Measured:
    """One cell of a group, in all its rounds; `seen` is what the sender reported."""

    group: str
    cell: Cell
    seen: dict[str, Any]

    @property
    def label(self) -> str:
        return KINDS[self.cell.peer].label

    @property
    def p50_ns(self) -> int:
        return int(self.seen["p50_ns"])

    @property
    def calls(self) -> int:
        """The numbers of accepted and refused calls."""
        return int(self.seen["accepted"] + self.seen["refused"])

    @property
    def sums(self) -> Sums:
        """The sums: accepted events that are not delivered are lost; for logd that is wrong."""
        seen = self.seen
        lost = 0 if self.cell.peer == "logd" else seen["accepted"] - seen["delivered"]
        return Sums(
            attempted=self.calls,
            accepted=seen["accepted"],
            refused=seen["refused"],
            stored=seen["delivered"],
            lost=lost,
        )

    def problems(self) -> list[str]:
        """Return the wrong sums, including more events delivered than accepted."""
        found = self.sums.problems()
        if self.sums.lost < 0:
            found.append(f"{-self.sums.lost:,} more delivered than accepted")
        return [f"{self.label}, {self.group}: {text}" for text in found]


@dataclass(frozen=True)
class Results:
    """All cells, and the overhead of the measurement per call."""

    measured: Sequence[Measured]
    overhead_ns: float

    def find(self, group: str, peer: str, rate: int = 0, awake: bool = False) -> Measured | None:
        """Return that cell of a group, or None if it was not measured."""
        for one in self.measured:
            cell = one.cell
            if (one.group, cell.peer, cell.rate, cell.awake) == (group, peer, rate, awake):
                return one
        return None

    def over_peers(self) -> Iterator[tuple[Measured, float]]:
        """Yield every peer flat out, with the ratio of emit's p50 to its p50."""
        emit = self.find(PEERS, "logd")
        for one in self.measured:
            if emit is not None and one.group == PEERS and KINDS[one.cell.peer].is_peer:
                yield one, ratio(emit, one)


def ratio(one: Measured, other: Measured) -> float:
    """Return the median over rounds of p50 / p50; both of a round are measured within a second."""
    pairs = zip(one.seen["rounds_p50_ns"], other.seen["rounds_p50_ns"], strict=True)
    return float(median(mine / its for mine, its in pairs))


def figures(results: Results) -> dict[str, float]:
    """Return the measured figures by name; a ratio has no unit."""
    found: dict[str, float] = {"client.timing_overhead_ns": results.overhead_ns}
    for name, group in (
        ("client.emit_over_raw_send_pinned", PINNED),
        ("client.emit_over_raw_send", PEERS),
    ):
        emit, raw = results.find(group, "logd"), results.find(group, "raw", awake=True)
        if emit is not None and raw is not None:
            found[name] = ratio(emit, raw)
            if group == PEERS:
                found["client.emit_p50_ns"] = emit.p50_ns
                found["client.raw_send_p50_ns"] = raw.p50_ns
    over_peers = [over for _, over in results.over_peers()]
    if over_peers:
        found["client.emit_over_best_peer"] = max(over_peers)
    for peer, name in (("logd", "emit"), ("raw", "raw_send"), ("noop", "noop")):
        fast, flat_out = results.find(FAST, peer, FAST_PER_S), results.find(FAST, peer)
        if fast is not None and flat_out is not None:
            found[f"client.{name}_1000_over_flat_out"] = ratio(fast, flat_out)
    return found


def row(one: Measured) -> dict[str, Any]:
    """Return a cell for JSON. CPU times are in nanoseconds per accepted event."""
    seen, accepted = one.seen, one.seen["accepted"]
    return {
        "name": one.label,
        "group": one.group,
        **asdict(one.cell),
        **{key: seen[key] for key in ("p50_ns", "p99_ns", "p999_ns", "rounds_p50_ns")},
        "sender_cpu_ns": seen["sender_cpu_ns"] / accepted,
        "receiver_cpu_ns": seen["receiver_cpu_ns"] / accepted,
        **asdict(one.sums),
        "problems": one.problems(),
    }


def problems(measured: Sequence[Measured], total: Sums) -> list[str]:
    """Return every wrong sum: of each cell, of logd in total, of cells against the total."""
    found = [text for one in measured for text in one.problems()]
    found += [f"logd, all of it: {text}" for text in total.problems()]
    cells = [one for one in measured if one.cell.peer == "logd"]
    for key in ("accepted", "refused", "stored"):
        of_cells, of_all = sum(getattr(one.sums, key) for one in cells), getattr(total, key)
        if of_cells != of_all:
            found.append(f"logd: {of_cells:,} {key} in all cells, but {of_all:,} by its own count")
    return found


def shown(measured: Sequence[Measured]) -> list[Measured]:
    """Return each cell once, in the order of the table, without the warm-up."""
    best: dict[tuple[object, ...], Measured] = {}
    for one in measured:
        cell = one.cell
        key = (cell.rate, cell.threads, cell.pinned, cell.peer, cell.awake)
        if one.group != WARM_UP and (
            key not in best or one.seen["accepted"] > best[key].seen["accepted"]
        ):
            best[key] = one
    names = list(KINDS)
    return sorted(
        best.values(),
        key=lambda one: (
            -(one.cell.rate or 10**9),
            one.cell.threads,
            one.cell.pinned,
            names.index(one.cell.peer),
            not one.cell.awake,
        ),
    )
