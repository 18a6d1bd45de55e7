"""Measure reports, ingest, bytes on disk and opening as the trail grows.

python -m benchmarks.growth.query              # 10^5 events, under a minute
python -m benchmarks.growth.query --long       # 10^5, 10^6 and 10^7: many minutes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.growth import backlog, query_tables, report_times, storage
from benchmarks.growth.backlog import Pair
from benchmarks.growth.history import SIZES, SIZES_LONG, Trail, building_steps, size_suffix, trail
from benchmarks.growth.query_tables import Measured
from benchmarks.harness.part import Advance, Part, command
from benchmarks.harness.processes import Failed, running

TIMES, TIMES_LONG = 20, 40
ROUNDS, ROUNDS_LONG = 3, 5
BACKLOG_EVENTS, BACKLOG_EVENTS_LONG = 40_000, 100_000
# The most events for `logd verify`, which on a larger trail takes longer than the measurements.
VERIFY_EVENTS_MAX = 10**6


def steps(long: bool) -> int:
    """Return the number of steps of a run."""
    sizes = SIZES_LONG if long else SIZES
    rounds = ROUNDS_LONG if long else ROUNDS
    return building_steps(sizes) + len(sizes) * (1 + report_times.CASES) + rounds


def run(place: Path, long: bool, advance: Advance) -> Part:
    """Measure every size, and ingest at the largest. Raises Failed."""
    sizes = SIZES_LONG if long else SIZES
    measured: list[Measured] = []
    pairs: list[Pair] = []
    for size in sizes:
        with trail(place, size, advance) as built:
            last = size == sizes[-1]
            rounds = (ROUNDS_LONG if long else ROUNDS) if last else 0
            one, more = measure(built, place, rounds, long, advance)
            measured.append(one)
            pairs += more
    commit_bytes = storage.bytes_of_a_commit()
    return Part(
        name="query",
        text=query_tables.text(measured, pairs),
        rows=_rows(measured, pairs),
        figures=figures(measured, pairs, commit_bytes),
        problems=[text for one in measured for text in one.problems]
        + [text for pair in pairs for text in pair.problems],
        plots=query_tables.plots(measured),
    )


def measure(
    built: Trail, place: Path, rounds: int, long: bool, advance: Advance
) -> tuple[Measured, list[Pair]]:
    """Measure one size: bytes, opening, every report, and ingest in `rounds`. Raises Failed."""
    advance(f"bytes of {built.size}", 1)
    taken = storage.measure(built)
    config, times = built.config, TIMES_LONG if long else TIMES
    events = built.history.more()
    count = BACKLOG_EVENTS_LONG if long else BACKLOG_EVENTS
    pairs = []
    with running("logd", built.instance.run_arguments()) as daemon:
        daemon.wait_for_line("logd: ready")
        site = report_times.Site(config.query_socket, built.history)
        site.ask(site.cases()[0])  # an answer shows that the report process has started
        reports = report_times.measure(
            site, config.database, times, lambda case: advance(f"{built.size}: {case.report}", 1)
        )
        for number in range(rounds):
            advance(f"ingest at {built.size}", 1)
            part = list(islice(events, count))
            directory = place / f"empty-{number}"
            full = (built.instance, daemon)
            pairs.append(
                backlog.compare_with_empty(full, directory, part, empty_first=not number % 2)
            )
        daemon.stop()
    return Measured(built.history.size, taken, reports, _problems(built)), pairs


def _problems(built: Trail) -> list[str]:
    """Return what is wrong with the trail after all measurements."""
    state = built.instance.status()
    problems = [f"{state[key]:,} {key}" for key in ("lost", "pending", "quarantined") if state[key]]
    if built.history.size <= VERIFY_EVENTS_MAX:
        try:
            built.instance.verify()
        except Failed as error:
            problems.append(str(error))
    return [f"{built.size} events: {text}" for text in problems]


def figures(
    measured: Sequence[Measured], pairs: Sequence[Pair], commit_bytes: float
) -> dict[str, float]:
    """Return the figures; those without a size in their name are of the largest."""
    largest = measured[-1]
    found = {
        "query.slowest_report_p95_ms": largest.slowest.warm(0.95) / 1e6,
        "query.ingest_full_over_empty": backlog.ratio(pairs),
        "query.ingest_cpu_full_over_empty": backlog.cpu_ratio(pairs),
        "query.stored_over_jsonl_bytes": largest.storage.over_jsonl,
        "query.stored_over_lean_jsonl_bytes": largest.storage.over_lean,
        "query.commit_bytes": commit_bytes,
        "query.open_ms": largest.storage.open_ns / 1e6,
    }
    for one in measured:
        at = size_suffix(one.size)
        found[f"query.slowest_report_p95_ms_at_{at}"] = one.slowest.warm(0.95) / 1e6
        found[f"query.open_ms_at_{at}"] = one.storage.open_ns / 1e6
    return found


def _rows(measured: Sequence[Measured], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for one in measured:
        rows.append({"what": "storage", "size": one.size, **asdict(one.storage)})
        rows += [
            {
                "what": "report",
                "size": one.size,
                "report": report.label,
                "rows": report.rows,
                "cold_ms": report.cold_ns / 1e6,
                "p50_ms": report.warm(0.5) / 1e6,
                "p95_ms": report.warm(0.95) / 1e6,
                "asked": len(report.warm_ns),
                "refused": report.refused,
            }
            for report in one.reports
        ]
    for number, pair in enumerate(pairs):
        for where, backlog_stored in (("empty", pair.empty), ("full", pair.full)):
            row = asdict(backlog_stored)
            sums = row.pop("sums")
            rows.append({"what": "ingest", "round": number, "trail": where, **row, **sums})
    return rows


main = command(
    steps,
    run,
    "Measure what a trail costs as it grows: reports, ingest, bytes, opening.",
    "Also at 10^6 and 10^7 events.",
)


if __name__ == "__main__":
    main()
