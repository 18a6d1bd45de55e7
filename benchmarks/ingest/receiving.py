"""How receiving goes on while a commit waits for the disk: some ways, three loads, two disks.

python -m benchmarks.ingest.receiving  # about three minutes; --repeat 3 for medians of three
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import machine, slow_flush, table
from benchmarks.harness.emitter import Load, collect, emitters, sums
from benchmarks.harness.processes import (
    Failed,
    Instance,
    end_on_sigterm,
    running,
    temporary_directory,
)
from benchmarks.ingest.ways import COUNTS_MARK, LABELS, WAYS

MODEST_PER_S = 2000
MODEST_S = 4
SLOW_FLUSH_MS = 80


@dataclass(frozen=True)
class Run:
    """One daemon under one load, measured."""

    way: str
    load: str
    rate_per_s: int  # 0: flat out
    flush_ms: int
    stored: int
    stored_per_s: float
    cpu_s_per_100k: float
    outbox_share: float  # of the stored events, read from outboxes; the others by datagram
    ignored: int  # datagrams that came when their event had been read from an outbox
    commits: int
    call_p50_ns: int
    call_p99_ns: int
    refused: int
    problems: list[str]


def measure(way: str, load: Load, flush_ms: int, directory: Path) -> Run:
    """One run in a fresh `directory`. Raises Failed."""
    directory.mkdir()
    env = slow_flush.environment(directory, flush_ms)
    with Instance(directory) as instance:
        command = ["-m", "benchmarks.ingest.ways", way, str(instance.config)]
        with running("logd", command, env) as daemon:
            daemon.wait_for_line("logd: ready")
            with emitters(instance.socket, load) as (start, results):
                start.wait(timeout=60)
                cpu_s = daemon.cpu_s()
                emitted = collect(results, load)
                cpu_s = daemon.cpu_s() - cpu_s
            counts = _counts(daemon.stop())
        state = instance.status()
        problems = sums(emitted, state).problems()
        problems += [f"{state[key]:,} {key}" for key in ("lost", "pending") if state[key]]
        if not all(one.flushed for one in emitted):
            problems.append("an emitter did not see all of its events confirmed")
        try:
            instance.verify()
        except Failed as error:
            problems.append(str(error))
    calls_ns = sorted(ns for one in emitted for ns in one.calls_ns)
    took_s = max(e.confirmed_s for e in emitted) - min(e.started_s for e in emitted)
    stored = state["stored"]
    return Run(
        way=way,
        load=str(load),
        rate_per_s=load.rate,
        flush_ms=flush_ms,
        stored=stored,
        stored_per_s=stored / took_s,
        cpu_s_per_100k=cpu_s / stored * 100_000,
        outbox_share=counts["from_outboxes"] / stored,
        ignored=state["duplicates_ignored"],
        commits=state["commits"],
        call_p50_ns=table.quantile(calls_ns, 0.5),
        call_p99_ns=table.quantile(calls_ns, 0.99),
        refused=sum(one.refused for one in emitted),
        problems=problems,
    )


def _counts(lines: Iterable[str]) -> dict[str, int]:
    for line in lines:
        if line.startswith(COUNTS_MARK):
            counts: dict[str, int] = json.loads(line.removeprefix(COUNTS_MARK))
            return counts
    raise Failed("the daemon did not say what it counted")


def middle(runs: Sequence[Run]) -> Run:
    """The run with the median speed (the lower of two), with the problems of all."""
    ordered = sorted(runs, key=lambda run: run.stored_per_s)
    chosen = asdict(ordered[(len(ordered) - 1) // 2])
    chosen["cpu_s_per_100k"] = statistics.median(run.cpu_s_per_100k for run in runs)
    chosen["problems"] = [problem for run in runs for problem in run.problems]
    return Run(**chosen)


HEAD = (
    "flushes",
    "load",
    "daemon",
    "stored/s",
    "CPU s per\n100,000",
    "by\noutbox",
    "ignored\ndatagrams",
    "commits",
    "emit\np50",
    "emit\np99",
    "refused",
    "sum",
)


def show(runs: Sequence[Run]) -> str:
    """The table: what belongs together is said once."""
    rows: list[list[str]] = []
    before: tuple[int, str] | None = None
    for run in runs:
        disk = f"+{run.flush_ms} ms" if run.flush_ms else "as they are"
        same_disk = before is not None and before[0] == run.flush_ms
        same_load = same_disk and before == (run.flush_ms, run.load)
        before = (run.flush_ms, run.load)
        rows.append(
            [
                "" if same_disk else disk,
                "" if same_load else run.load,
                LABELS[run.way],
                f"{run.stored_per_s:,.0f}",
                table.digits(run.cpu_s_per_100k),
                f"{run.outbox_share:.0%}",
                f"{run.ignored:,}",
                f"{run.commits:,}",
                table.duration(run.call_p50_ns),
                table.duration(run.call_p99_ns),
                f"{run.refused:,}",
                "WRONG" if run.problems else "right",
            ]
        )
    return table.render(HEAD, rows, left=3)


def reading(runs: Sequence[Run]) -> str:
    """What the table says of each other way against the one thread, in ratios."""
    pairs: dict[str, list[tuple[Run, Run]]] = {}
    ones = {(run.flush_ms, run.load): run for run in runs if run.way == "one"}
    for run in runs:
        one = ones.get((run.flush_ms, run.load))
        if one is not None and run.way != "one":
            pairs.setdefault(run.way, []).append((run, one))
    return " ".join(_compare(LABELS[way], compared) for way, compared in pairs.items())


def _compare(label: str, pairs: Sequence[tuple[Run, Run]]) -> str:
    clauses = []
    for what, flat_out in (("flat out", True), ("at a rate", False)):
        chosen = [(run, one) for run, one in pairs if (not run.rate_per_s) == flat_out]
        if not chosen:
            continue
        speed = _range(run.stored_per_s / one.stored_per_s for run, one in chosen)
        cpu = _range(run.cpu_s_per_100k / one.cpu_s_per_100k for run, one in chosen)
        call = _range(run.call_p50_ns / one.call_p50_ns for run, one in chosen)
        events = f"{speed} x the events/s, " if flat_out else ""
        clauses.append(f"{what} {events}{cpu} x the CPU per event, {call} x the emit p50")
    return f"With {label}, against one thread: {'; '.join(clauses)}."


def _range(ratios: Iterable[float]) -> str:
    low, *_, high = sorted(ratios) * 2
    return f"{low:.2f} to {high:.2f}" if f"{low:.2f}" != f"{high:.2f}" else f"{low:.2f}"


def finish(runs: Sequence[Run]) -> int:
    """Says what is wrong, and gives the exit code: 1 if anything is."""
    wrong = [f"{LABELS[run.way]}, {run.load}: {text}" for run in runs for text in run.problems]
    for text in wrong:
        click.echo(f"sum off: {text}", err=True)
    return 1 if wrong else 0


@click.command()
@click.option("--events", default=300_000, show_default=True, help="In each run flat out.")
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(1))
@click.option("--way", "ways", multiple=True, type=click.Choice(list(WAYS)), help="Only these.")
@click.option("--directory", type=click.Path(path_type=Path, exists=True), help="For databases.")
@click.option("--results", type=click.Path(path_type=Path), default=machine.RESULTS)
def main(
    events: int, repeat: int, ways: tuple[str, ...], directory: Path | None, results: Path
) -> None:
    """Measure ways of receiving while a commit waits for the disk."""
    end_on_sigterm()
    modest = min(events, MODEST_PER_S * MODEST_S)
    loads = [Load(1, events), Load(4, events), Load(4, modest, rate=MODEST_PER_S)]
    done: dict[tuple[int, Load, str], list[Run]] = {}
    try:
        with temporary_directory(directory) as place:
            here = machine.look(place)
            plan = _plan(loads, ways or tuple(WAYS), place)
            with click.progressbar(length=len(plan) * repeat, file=sys.stderr) as bar:
                for turn in range(repeat):
                    for flush_ms, load, way in _rotated(plan, turn):
                        bar.label = f"{way:<8} {load}"
                        number = sum(map(len, done.values()))
                        run = measure(way, load, flush_ms, place / str(number))
                        done.setdefault((flush_ms, load, way), []).append(run)
                        bar.update(1)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None
    runs = [middle(same) for same in done.values()]
    of = f"; of {repeat} runs each, the one with the median speed" if repeat > 1 else ""
    click.echo(f"\n{here}\n{events:,} events flat out, {modest:,} at a rate{of}\n")
    click.echo(show(runs))
    click.echo(f"\n{table.paragraph(reading(runs))}")
    body: dict[str, Any] = {"runs": [asdict(run) for same in done.values() for run in same]}
    path = machine.write_results(results, "receiving", here, body)
    click.echo(f"\nwritten: {machine.shown(path)}")
    sys.exit(finish(runs))


Cell = tuple[int, Load, str]


def _plan(loads: Sequence[Load], ways: Sequence[str], place: Path) -> list[Cell]:
    disks = [0, SLOW_FLUSH_MS]
    try:
        slow_flush.environment(place, SLOW_FLUSH_MS)
    except slow_flush.NoCompiler as reason:
        click.echo(f"no slow disk in this run: {reason}", err=True)
        disks = [0]
    return [(flush_ms, load, way) for flush_ms in disks for load in loads for way in ways]


def _rotated(plan: Sequence[Cell], turn: int) -> list[Cell]:
    """The plan with each cell's ways begun one further every turn: none is always the first."""
    by_cell: dict[tuple[int, Load], list[Cell]] = {}
    for cell in plan:
        by_cell.setdefault(cell[:2], []).append(cell)
    return [
        cells[(turn + number) % len(cells)]
        for cells in by_cell.values()
        for number in range(len(cells))
    ]


if __name__ == "__main__":
    main()
