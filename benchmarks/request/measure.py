"""Measure what logging costs a page: every way, on the disk as it is and on slow flushes.

python -m benchmarks.request.measure            # about 80 seconds
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import log10
from pathlib import Path
from typing import Any

from benchmarks.harness import slow_flush, table
from benchmarks.harness.part import Advance, Part, Plot, command
from benchmarks.harness.plot import Bar, Series, horizontal_bars
from benchmarks.request import access_log, throughput
from benchmarks.request.load import loading
from benchmarks.request.one_way import Measured, Tools, measure, pool
from benchmarks.request.server import serving
from benchmarks.request.throughput import Throughput
from benchmarks.request.ways import WAYS, Way

SLOW_FLUSH_MS = 80
DISKS = {0: "as it is", SLOW_FLUSH_MS: f"+{SLOW_FLUSH_MS} ms"}
ROUNDS_LONG = 3
# Rounds of the Classroom, which has a target; the empty page gets half as many.
THROUGHPUT_ROUNDS = 16
THROUGHPUT_ROUNDS_LONG = 60
# The scale of the picture in powers of ten of a nanosecond: 100 ns to 10 s, with room for figures.
PLOT_POWERS = range(2, 11)

Rows = Mapping[str, Measured]  # the measurements by way


@contextlib.contextmanager
def _tools(place: Path, environments: Mapping[int, Mapping[str, str]]) -> Iterator[Tools]:
    with contextlib.ExitStack() as stack:
        servers = {
            flush_ms: stack.enter_context(serving(place, f"server{flush_ms}", env))
            for flush_ms, env in environments.items()
        }
        yield Tools(stack.enter_context(loading()), servers)


def _disks(place: Path, missing: list[str]) -> dict[int, Mapping[str, str]]:
    """Return each disk's environment. Without a compiler the slow one is added to `missing`."""
    disks: dict[int, Mapping[str, str]] = {0: {}}
    try:
        disks[SLOW_FLUSH_MS] = slow_flush.environment(place, SLOW_FLUSH_MS)
    except slow_flush.NoCompiler as reason:
        missing.append(f"the disk with {SLOW_FLUSH_MS} ms a flush: {reason}")
    return disks


def _ways(missing: list[str]) -> list[Way]:
    if access_log.program() is not None:
        return list(WAYS.values())
    missing.append(access_log.MISSING)
    return [way for way in WAYS.values() if not way.is_behind_nginx]


def steps(long: bool) -> int:
    """Return the number of steps: each way on each disk, and two comparisons."""
    return len(WAYS) * len(DISKS) * (ROUNDS_LONG if long else 1) + 2


def run(place: Path, long: bool, advance: Advance) -> Part:
    """Measure every way, and both sites with and without logging. Raises Failed."""
    missing: list[str] = []
    disks, ways = _disks(place, missing), _ways(missing)
    rounds = ROUNDS_LONG if long else 1
    done: dict[tuple[int, str], list[Measured]] = {}
    with _tools(place, disks) as tools:
        compared = _compare(place, tools, long, advance)
        # Each way is measured on one disk right after the other.
        plan = [(way, flush_ms) for _ in range(rounds) for way in ways for flush_ms in disks]
        for number, (way, flush_ms) in enumerate(plan):
            advance(f"{way.name} {flush_ms or ''}".strip(), 0)
            row = measure(way, flush_ms, disks[flush_ms], place / str(number), tools)
            done.setdefault((flush_ms, way.name), []).append(row)
            advance("", 1)
    advance("", steps(long) - len(plan) - len(compared))  # what could not be measured, and why
    return _part([pool(rows) for rows in done.values()], compared, missing)


def _compare(place: Path, tools: Tools, long: bool, advance: Advance) -> list[Throughput]:
    rounds = THROUGHPUT_ROUNDS_LONG if long else THROUGHPUT_ROUNDS
    found = []
    for name, of, turns in (
        ("classroom", throughput.measure_classroom, rounds),
        ("bare", throughput.measure_bare, rounds // 2),
    ):
        advance(f"requests/s, {name}", 0)
        found.append(of(place / name, tools.servers[0], tools.loader, turns))
        advance("", 1)
    return found


def _part(rows: Sequence[Measured], compared: Sequence[Throughput], missing: list[str]) -> Part:
    by_disk = {f: {r.name: r for r in rows if r.flush_ms == f} for f in DISKS}
    text = f"{show(by_disk)}\n\n{throughput.show(compared)}"
    wrong = [f"{r.label}, disk {DISKS[r.flush_ms]}: {p}" for r in rows for p in r.problems]
    wrong += [f"{one.label}: {problem}" for one in compared for problem in one.problems]
    return Part(
        name="request",
        text=text,
        rows=[*map(summary, rows), *(one.summary() for one in compared)],
        figures=figures(by_disk, compared),
        problems=wrong,
        missing=missing,
        plots=[plot(by_disk)],
    )


def show(by_disk: Mapping[int, Rows]) -> str:
    """Return the table: a row for each way, the disks side by side."""
    disks = [flush_ms for flush_ms, rows in by_disk.items() if rows]
    head = ["logging"]
    for flush_ms in disks:
        first = f"{DISKS[flush_ms]}:\ncall p50"
        head += [first, "call\np99", "requests\nper s", "survived\nkill -9"]
    head += ["events", "refused", "sum"]
    names = [name for name in WAYS if any(name in rows for rows in by_disk.values())]
    return table.render(head, [_cells(name, [by_disk[f] for f in disks]) for name in names])


def _cells(name: str, disks: Sequence[Rows]) -> list[str]:
    rows = [rows[name] for rows in disks]
    cells = [rows[0].label]
    for row in rows:
        cells += [table.duration(row.call(0.5)), table.duration(row.call(0.99))]
        cells += [table.digits(row.per_s), _share(row.survived)]
    cells += [f"{sum(row.sums.attempted for row in rows):,}"]
    cells += [f"{sum(row.sums.refused for row in rows):,}"]
    return [*cells, "WRONG" if any(row.problems for row in rows) else "right"]


def _share(survived: float | None) -> str:
    """Format a share; "all" is used only if nothing was lost, however little."""
    if survived is None:
        return "-"
    return "all" if survived == 1 else f"{min(survived, 0.9999):.2%}"


def plot(by_disk: Mapping[int, Rows]) -> Plot:
    """Draw p50 of the call for every way, on a logarithmic scale."""
    lowest = PLOT_POWERS[0]
    names = [name for name in WAYS if any(name in rows for rows in by_disk.values())]

    def bar(row: Measured) -> Bar:
        ns = row.call(0.5)
        return Bar(max(0.0, log10(ns) - lowest), table.duration(ns))

    svg = horizontal_bars(
        "What the call costs a page (p50, logarithmic)",
        [WAYS[name].label for name in names],
        [
            Series(DISKS[flush_ms], [bar(rows[name]) if name in rows else None for name in names])
            for flush_ms, rows in by_disk.items()
            if rows
        ],
        top=PLOT_POWERS[-1] - lowest,
        ticks=[power - lowest for power in PLOT_POWERS],
        tick_text=lambda tick: table.duration(10 ** (tick + lowest)),
    )
    return Plot("request", svg)


def summary(row: Measured) -> dict[str, Any]:
    """Return a row for JSON: quantiles in nanoseconds, sums and problems."""
    return {
        "name": row.name,
        "label": row.label,
        "flush_ms": row.flush_ms,
        "calls": len(row.calls_ns),
        **{f"call_p{int(s * 100)}_ns": row.call(s) for s in (0.5, 0.9, 0.99)},
        "requests_per_s": row.per_s,
        "survived_kill": row.survived,
        "cut": row.cut,
        **asdict(row.sums),
        "problems": row.problems,
    }


# Figures for the baseline, each with its name, way and disk.
_FIGURES = (
    ("none", "none", 0),
    ("sync_passphrase_delete", "sync-new-passphrase-delete", 0),
    ("sync_raw_delete", "sync-new-raw-delete", 0),
    ("sync_raw_delete_slow_disk", "sync-new-raw-delete", SLOW_FLUSH_MS),
    ("queue", "queue-kept", 0),
    ("process", "process", 0),
    ("jsonl", "jsonl", 0),
    ("logd", "logd", 0),
    ("logd_slow_disk", "logd", SLOW_FLUSH_MS),
    ("logd_durable", "logd-durable", 0),
    ("logd_durable_slow_disk", "logd-durable", SLOW_FLUSH_MS),
)


def figures(by_disk: Mapping[int, Rows], compared: Sequence[Throughput]) -> dict[str, float]:
    """Return the figures for targets and baseline."""
    found: dict[str, float] = {}
    for one, name in zip(compared, ("throughput", "bare_throughput"), strict=True):
        found[f"request.{name}_over_none"] = one.ratio
        found[f"request.{name.replace('throughput', 'cpu')}_over_none"] = one.cpu_ratio
    for figure, name, flush_ms in _FIGURES:
        if name in by_disk[flush_ms]:
            found[f"request.{figure}_call_p50_ns"] = by_disk[flush_ms][name].call(0.5)
    for figure, name in (("logd", "logd"), ("queue", "queue-kept")):
        shares = [rows[name].survived for rows in by_disk.values() if name in rows]
        found[f"request.{figure}_survived_kill"] = min(s for s in shares if s is not None)
    return found


main = command(
    steps,
    run,
    "Measure what logging costs a page, and what `kill -9` of the web processes loses.",
    "More rounds: about five minutes.",
)


if __name__ == "__main__":
    main()
