"""The tables and pictures of `make bench-ingest`."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from benchmarks.harness import plot, table
from benchmarks.harness.part import Part, Plot
from benchmarks.harness.table import digits, duration
from benchmarks.ingest.cpu_split import OTHER
from benchmarks.ingest.results import (
    WAY,
    Cpu,
    Pair,
    Results,
    bulk_cpu_us,
    bulk_events_s,
    cpu,
    figures,
    problems,
    queue_events_s,
    queue_sums,
    ratio,
    rows,
    slow_events_s,
    spread,
)
from benchmarks.ingest.run import HELD_UP, mib

_QUEUES = {
    ("new", "NORMAL"): "queue, new connections, WAL + NORMAL",
    ("kept", "NORMAL"): "queue, connection kept, WAL + NORMAL",
    ("kept", "FULL"): "queue, connection kept, WAL + FULL",
}


def part(results: Results) -> Part:
    """Return the part for the runner: tables, rows, figures and pictures."""
    times = cpu(results)
    sections = [stored(results), split(times)]
    if results.slow:
        sections.append(slow(results))
    return Part(
        name="ingest",
        text="\n\n".join(sections),
        rows=rows(results),
        figures=figures(results),
        problems=problems(results),
        missing=results.missing,
        plots=plots(results, times),
    )


# -- events stored -------------------------------------------------------------------------------


def stored(results: Results) -> str:
    """Return the table of events stored per second, a row for each number of producers."""
    head = (
        *("producers", "rounds", "logd\nevents/s", "bare insert\nevents/s", "ratio"),
        *("ratio in\neach round", "outboxes\nfull"),
        *("events", "batches", "check-\npoints", "logd CPU\nper event", "bare CPU\nper event"),
        *("of a\ncore", "emit\np50", "refused", "resident\nMiB", "sum"),
    )
    wrong = {text.partition(":")[0] for text in problems(results)}
    cells = [_stored_row(results.cell(number), wrong) for number in sorted(results.producers)]
    return table.render(head, cells)


def _stored_row(cell: list[Pair], wrong: set[str]) -> list[str]:
    number = cell[0][0].producers
    off = {f"logd, {number} producers", f"bare insert, {number} producers"} & wrong
    return [
        f"{number}",
        f"{len(cell)}",
        f"{median(one.window.events_s for one, _ in cell):,.0f}",
        f"{median(bulk_events_s(inserted) for _, inserted in cell):,.0f}",
        f"{median(map(ratio, cell)):.2f}",
        _range(map(ratio, cell)),
        f"{sum(one.window.when == HELD_UP for one, _ in cell)} of {len(cell)}",
        f"{sum(one.sums.stored for one, _ in cell):,}",
        f"{sum(one.commits for one, _ in cell):,}",
        f"{sum(inserted.checkpoints for _, inserted in cell):,}",
        duration(median(one.daemon_cpu_us for one, _ in cell) * 1e3),
        duration(median(bulk_cpu_us(inserted) for _, inserted in cell) * 1e3),
        f"{median(one.core_share for one, _ in cell):.0%}",
        duration(median(one.call_p50_ns for one, _ in cell)),
        f"{sum(one.sums.refused for one, _ in cell):,}",
        digits(mib(max(one.peak_bytes for one, _ in cell))),
        "WRONG" if off else "right",
    ]


def _range(values: Iterable[float]) -> str:
    low, high = spread(values)
    return f"{low:.2f} to {high:.2f}"


# -- CPU time ------------------------------------------------------------------------------------


def split(times: Cpu) -> str:
    """Return the table of CPU time per event, step by step."""
    total = sum(times.way.values())
    body = [
        [step, _us(times.way.get(step)), f"{times.way.get(step, 0) / total:.0%}"]
        + [_us(times.parts.get(step))]
        for step in WAY
        if step in times.way
    ]
    body.append(["all of it", _us(total), "100%", _us(sum(times.parts.values()))])
    return table.render(("CPU per event", "logd", "share", "alone"), body)


def _us(value: float | None) -> str:
    return "" if value is None else duration(value * 1e3)


# -- slow flushes --------------------------------------------------------------------------------


def slow(results: Results) -> str:
    """Return the table of events stored per second on slow flushes."""
    one = results.slow[0]
    speed = slow_events_s(results)
    wrong = {text.partition(":")[0] for text in problems(results)}
    off = any("flushes" in name for name in wrong)
    body = [
        ["logd, WAL + FULL", f"{speed:,.0f}", "1"]
        + [f"{sum(s.commits for s in results.slow):,}"]
        + [f"{sum(s.sums.stored for s in results.slow):,}", "WRONG" if off else "right"]
    ]
    for kind, many in results.queues.items():
        events_s = queue_events_s(results, kind)
        off = any(queue_sums(queued).problems() for queued in many)
        body.append(
            [_QUEUES[kind], digits(events_s)]
            + [digits(speed / events_s) if events_s else "-"]
            + [f"{sum(queued.transactions for queued in many):,}"]
            + [f"{sum(queued.stored for queued in many):,}", "WRONG" if off else "right"]
        )
    head = (
        *(f"flushes take {one.flush_ms} ms longer", "events/s", "logd /\nthis"),
        *("trans-\nactions", "stored", "sum"),
    )
    return table.render(head, body)


# -- pictures ------------------------------------------------------------------------------------


def plots(results: Results, times: Cpu) -> list[Plot]:
    """Draw events per second, and the CPU time of an event."""
    return [Plot("ingest-events", _events_plot(results)), Plot("ingest-cpu", _cpu_plot(times))]


def _events_plot(results: Results) -> bytes:
    numbers = sorted(results.producers)
    cells = [results.cell(number) for number in numbers]
    logd = [median(one.window.events_s for one, _ in cell) for cell in cells]
    bare = [median(bulk_events_s(inserted) for _, inserted in cell) for cell in cells]
    return plot.horizontal_bars(
        "Events stored and flushed a second (more is better)",
        [f"{number} producer{'s' if number > 1 else ''}" for number in numbers],
        [
            plot.Series("logd, live", [plot.Bar(value, f"{value:,.0f}") for value in logd]),
            plot.Series("bare bulk insert", [plot.Bar(value, f"{value:,.0f}") for value in bare]),
        ],
        top=max(*logd, *bare) * 1.25,
    )


def _cpu_plot(times: Cpu) -> bytes:
    way = dict(times.way)
    way["order"] = way.get("order", 0.0) + way.pop(OTHER, 0.0)  # both are small and share a colour
    return plot.horizontal_bars(
        "CPU time of an event in us (less is better)",
        ["logd, all of it", "raw send, raw receive, bare insert"],
        [
            plot.Series(
                "rest" if step == "order" else step,
                [_bar(way[step]), _bar(times.parts.get(step, 0.0))],
            )
            for step in WAY
            if step in way
        ],
        stacked=True,
    )


def _bar(us: float) -> plot.Bar:
    return plot.Bar(us, digits(us))
