"""The table, the picture and the paragraph of `bench-client`; every number is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.client.peers import KINDS, datagram
from benchmarks.client.plan import FAST, FAST_PER_S, PEERS, PINNED
from benchmarks.client.results import Measured, Results, figures, shown
from benchmarks.harness import table
from benchmarks.harness.part import Plot
from benchmarks.harness.plot import Bar, Series, lying

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
# Below so many calls a quantile is one call's bad luck.
P99_CALLS_MIN = 100
P999_CALLS_MIN = 1000
PLOT_FROM_NS = 100.0


def show(measured: Sequence[Measured]) -> str:
    """The table: what rows have in common is said once."""
    rows: list[list[str]] = []
    before: tuple[str, ...] = ("", "", "")
    for one in shown(measured):
        cell = one.cell
        common = (cell.load, str(cell.threads), "pinned" if cell.pinned else "free")
        same = [common[: n + 1] == before[: n + 1] for n in range(len(common))]
        before = common
        said = ["" if known else text for text, known in zip(common, same, strict=True)]
        rows.append([*said, *_cells(one)])
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
    """How the other side waits for events."""
    kind = KINDS[one.cell.peer]
    if kind.can_be_awake:
        return "awake" if one.cell.awake else "asleep"
    return {"file": "a thread", "": ""}.get(kind.receiver, "its own")


def reading(results: Results) -> str:
    """What the table says, in words."""
    found = figures(results)
    sentences = [
        *_raw_send(results, found),
        *_peers(results),
        *_after_a_sleep(results, found),
        *_cpu(results),
        f"Of every call {table.duration(results.overhead_ns)} are the measuring itself: two looks"
        " at the clock and the way into a function; it is not subtracted.",
        "Refused calls are made again, off the clock. CPU is per event, of the whole process, also"
        " for keeping the pace; a receiver that polls takes a core, whatever comes.",
    ]
    return table.paragraph(" ".join(sentences))


def _raw_send(results: Results, found: dict[str, float]) -> list[str]:
    said = []
    for group, name, where in (
        (PINNED, "client.emit_over_raw_send_pinned", "on a core of its own each"),
        (PEERS, "client.emit_over_raw_send", "where the kernel puts them"),
    ):
        emit, raw = results.find(group, "logd"), results.find(group, "raw", awake=True)
        if emit is not None and raw is not None:
            said.append(
                f"{where} {table.duration(emit.p50_ns)} against {table.duration(raw.p50_ns)},"
                f" {found[name]:.2f} x"
            )
    if not said:
        return []
    return [
        f"One emit, flat out, against a raw send of the same {len(datagram())} bytes to a receiver"
        f" that is awake: {'; '.join(said)} (p50; ratios are medians over rounds)."
    ]


def _peers(results: Results) -> list[str]:
    over = sorted(results.over_peers(), key=lambda pair: -pair[1])
    if not over:
        return []
    ahead = [f"{one.label} ({times:.2f})" for one, times in over if times >= 1]
    behind = [f"{one.label} ({times:.2f})" for one, times in over if times < 1]
    said = []
    if behind:
        said.append(f"Of their time emit takes, flat out: {_listed(behind)}.")
    said.append(
        f"Not slower than emit: {_listed(ahead)}." if ahead else "No peer is as fast as emit."
    )
    return [*said, *_in_the_sender([one for one, _ in over])]


def _in_the_sender(peers: Iterable[Measured]) -> list[str]:
    """The other side of a call that only fills a queue."""
    costs = [
        f"{table.duration(_each(one, 'sender_cpu_ns'))} ({one.label})"
        for one in peers
        if KINDS[one.cell.peer].works_in_sender
    ]
    if not costs:
        return []
    return [
        "Some put the event into a queue for a thread of the same process, which then has the rest"
        f" of the work, and loses what is queued when it is killed: {_listed(costs)} of processor"
        " time an event in the sender, all told."
    ]


def _listed(parts: Iterable[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def _after_a_sleep(results: Results, found: dict[str, float]) -> list[str]:
    said = []
    for peer, name, what in (
        ("logd", "emit", "an emit"),
        ("raw", "raw_send", "a raw send to a receiver asleep in recv"),
        ("noop", "noop", "to pack, to take a CRC and to copy, with no system call at all,"),
    ):
        times, fast = (
            found.get(f"client.{name}_1000_over_flat_out"),
            results.find(FAST, peer, FAST_PER_S),
        )
        if times is not None and fast is not None:
            said.append(
                f"{what} takes {table.duration(fast.p50_ns)}, {times:.2f} x its time flat out"
            )
    if not said:
        return []
    bound = (
        " The last does less than any emit, and what it takes longer is the price of having slept"
        " (cold caches, a core that idled): no emit can be below that here."
        if "client.noop_1000_over_flat_out" in found
        else ""
    )
    return [f"At 1,000/s on a machine that idles in between, {'; '.join(said)}.{bound}"]


def _cpu(results: Results) -> list[str]:
    emit = results.find(PEERS, "logd")
    if emit is None:
        return []
    return [
        f"An event of logd costs, flat out, {table.duration(_each(emit, 'sender_cpu_ns'))} of"
        f" processor time in the sender and {table.duration(_each(emit, 'receiver_cpu_ns'))} in"
        " the daemon, which has it encrypted on the disk by then; the other receivers only count"
        " or write a line."
    ]


def plot(results: Results) -> Plot:
    """p50 and p99 of all, flat out and with one thread, on a logarithmic scale."""
    chosen = [one for one in results.measured if one.group == PEERS]
    chosen.sort(key=lambda one: one.p50_ns)
    labels = [
        f"{one.label} ({receiver(one)})" if one.cell.peer == "raw" else one.label for one in chosen
    ]
    top = max((_height(one.seen["p99_ns"]) for one in chosen), default=1.0)
    ticks = list(range(math.ceil(top) + 1))
    svg = lying(
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
    """Powers of ten above where the scale begins."""
    return max(0.0, math.log10(ns / PLOT_FROM_NS))
