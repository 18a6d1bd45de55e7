"""The tables and the picture of `make bench-query`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.growth.backlog import Pair
from benchmarks.growth.history import size_label
from benchmarks.growth.report_times import ReportTimes
from benchmarks.growth.storage import Storage
from benchmarks.harness import plot, table
from benchmarks.harness.part import Plot

PLOTTED_MAX = 10
ROOM_FOR_TEXT = 1.15  # space after the longest bar, for its figure
_MS = 1e6  # in nanoseconds


@dataclass(frozen=True)
class Measured:
    """The results for a trail of one size: bytes, every report, and problems."""

    size: int
    storage: Storage
    reports: Sequence[ReportTimes]
    problems: Sequence[str] = ()

    @property
    def slowest(self) -> ReportTimes:
        """The report with the highest p95."""
        return max(self.reports, key=lambda one: one.warm(0.95))


def text(measured: Sequence[Measured], pairs: Sequence[Pair]) -> str:
    """Return the three tables: reports, bytes on disk, ingest."""
    tables = (reports(measured), storage(measured), ingest(measured[-1].size, pairs))
    return "\n\n".join(tables)


def reports(measured: Sequence[Measured]) -> str:
    """Return the table of reports; three columns for each size."""
    head = ["report", "rows"]
    for one in measured:
        head += [f"{size_label(one.size)}\n{what}" for what in ("cold", "p50", "p95")]
    rows = []
    for same in zip(*(one.reports for one in measured), strict=True):
        row = [same[0].label, f"{same[-1].rows:,}"]
        for one in same:
            row += [_shown(one, ns) for ns in (one.cold_ns, one.warm(0.5), one.warm(0.95))]
        rows.append(row)
    return table.render(head, rows)


def _shown(one: ReportTimes, ns: int) -> str:
    return f"(no) {table.duration(ns)}" if one.refused else table.duration(ns)


def storage(measured: Sequence[Measured]) -> str:
    """Return the table of bytes on disk and opening, a row for each size."""
    head = (
        "events",
        "opening",
        "stored\nbytes/event",
        "JSON lines\nbytes/event",
        "lean JSON\nbytes/event",
        "stored /\nJSON lines",
        "stored /\nlean JSON",
    )
    rows = [
        [
            f"{one.storage.events:,}",
            table.duration(one.storage.open_ns),
            *(
                f"{size:.1f}"
                for size in (
                    one.storage.stored_bytes,
                    one.storage.jsonl_bytes,
                    one.storage.lean_bytes,
                )
            ),
            f"{one.storage.over_jsonl:.2f}",
            f"{one.storage.over_lean:.2f}",
        ]
        for one in measured
    ]
    return table.render(head, rows)


def ingest(size: int, pairs: Sequence[Pair]) -> str:
    """Return the table of ingest: each round stores the same backlog in both trails."""
    head = (
        "round",
        "trail",
        "stored\nbefore",
        "backlog",
        "stored/s",
        "CPU s per\n100,000",
        "commits",
        "refused",
        "pending,\nlost",
        "sum",
    )
    rows = []
    for number, pair in enumerate(pairs, start=1):
        for name, taken in (("empty", pair.empty), (size_label(size), pair.full)):
            rows.append(
                [
                    str(number) if name == "empty" else "",
                    name,
                    f"{taken.stored_before:,}",
                    f"{taken.events:,}",
                    f"{taken.stored_per_s:,.0f}",
                    table.digits(taken.cpu_s_per_100k),
                    f"{taken.commits:,}",
                    f"{taken.sums.refused:,}",
                    f"{taken.sums.pending + taken.sums.lost + taken.sums.quarantined:,}",
                    "WRONG" if taken.problems else "right",
                ]
            )
    return table.render(head, rows, left=2)


def plots(measured: Sequence[Measured]) -> list[Plot]:
    """Draw the slowest reports at the largest size, with a bar for each size."""
    order = sorted(
        range(len(measured[-1].reports)), key=lambda at: -measured[-1].reports[at].warm(0.95)
    )[:PLOTTED_MAX]
    series = [
        plot.Series(f"{size_label(one.size)} events", [_bar(one.reports[at]) for at in order])
        for one in measured
    ]
    labels = [measured[-1].reports[at].label for at in order]
    sizes = ", ".join(size_label(one.size) for one in measured)
    title = f"The {len(order)} slowest reports: p95 at {sizes} events"
    longest = max(one.reports[at].warm(0.95) for one in measured for at in order) / _MS
    top = longest * ROOM_FOR_TEXT
    svg = plot.horizontal_bars(title, labels, series, axis="milliseconds", top=top)
    return [Plot("query-reports", svg)]


def _bar(report: ReportTimes) -> plot.Bar:
    p95_ns = report.warm(0.95)
    return plot.Bar(p95_ns / _MS, _shown(report, p95_ns))
