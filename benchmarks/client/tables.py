"""The table and the picture of `make bench-client`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.client.peers import KINDS
from benchmarks.client.plan import PEERS
from benchmarks.client.results import Measured, Results, shown
from benchmarks.harness import table
from benchmarks.harness.part import Plot
from benchmarks.harness.plot import Bar, Series, horizontal_bars

HEAD = (
    "load",
    "threads",
    "cores",
    "what",
    "receiver",
    "p50",
    "p99",
    "p99.9",
    "CPU\nsender",
    "CPU\nreceiver",
    "refused",
    "delivered\n/ calls",
    "sum",
)
# With fewer calls than this, a quantile depends on a single call.
P99_CALLS_MIN = 100
P999_CALLS_MIN = 1000
PLOT_FROM_NS = 100.0


def show(measured: Sequence[Measured]) -> str:
    """Return the table; a value that a row shares with the row above is left blank."""
    rows: list[list[str]] = []
    before: tuple[str, ...] = ("", "", "")
    for one in shown(measured):
        cell = one.cell
        common = (cell.load, str(cell.threads), "pinned" if cell.pinned else "free")
        same = [common[: n + 1] == before[: n + 1] for n in range(len(common))]
        before = common
        shared = ["" if known else text for text, known in zip(common, same, strict=True)]
        rows.append([*shared, *_cells(one)])
    return table.render(HEAD, rows, left=5)


def _cells(one: Measured) -> list[str]:
    seen, cell = one.seen, one.cell
    receiver_cpu = "polls" if cell.awake else table.duration(_each(one, "receiver_cpu_ns"))
    other_process = KINDS[cell.peer].receiver not in ("", "file")
    return [
        one.label,
        receiver(one),
        table.duration(seen["p50_ns"]),
        table.duration(seen["p99_ns"]) if seen["accepted"] >= P99_CALLS_MIN else "",
        table.duration(seen["p999_ns"]) if seen["accepted"] >= P999_CALLS_MIN else "",
        table.duration(_each(one, "sender_cpu_ns")),
        receiver_cpu if other_process else "",
        f"{seen['refused']:,}",
        f"{seen['delivered'] / one.calls:.0%}" if KINDS[cell.peer].receiver else "",
        "WRONG" if one.problems() else "right",
    ]


def _each(one: Measured, key: str) -> float:
    return float(one.seen[key] / one.seen["accepted"])


def receiver(one: Measured) -> str:
    """How the receiver waits for events."""
    kind = KINDS[one.cell.peer]
    if kind.can_be_awake:
        return "awake" if one.cell.awake else "asleep"
    return {"file": "a thread", "": ""}.get(kind.receiver, "its own")


def plot(results: Results) -> Plot:
    """Draw p50 and p99 of every peer, flat out with one thread, on a logarithmic scale."""
    chosen = [one for one in results.measured if one.group == PEERS]
    chosen.sort(key=lambda one: one.p50_ns)
    labels = [
        f"{one.label} ({receiver(one)})" if one.cell.peer == "raw" else one.label for one in chosen
    ]
    top = max((_height(one.seen["p99_ns"]) for one in chosen), default=1.0)
    ticks = list(range(math.ceil(top) + 1))
    svg = horizontal_bars(
        "One call, flat out, one thread (logarithmic)",
        labels,
        [
            Series(name, [_bar(one, key) for one in chosen])
            for name, key in (("p50", "p50_ns"), ("p99", "p99_ns"))
        ],
        top=top * 1.2,
        ticks=ticks,
        tick_text=lambda tick: table.duration(PLOT_FROM_NS * 10**tick),
    )
    return Plot("client", svg)


def _bar(one: Measured, key: str) -> Bar:
    ns: Any = one.seen[key]
    return Bar(_height(ns), table.duration(ns))


def _height(ns: float) -> float:
    """The height of a bar: powers of ten above the start of the scale."""
    return max(0.0, math.log10(ns / PLOT_FROM_NS))
