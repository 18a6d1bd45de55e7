"""Separate the two causes of a slow write: slow flushes, and a key derived at every open.

python -m benchmarks.cause.measure              # under 20 seconds
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cause.phases import Cell, cells
from benchmarks.harness import machine, slow_flush, table
from benchmarks.harness.event_database import CIPHER_LABELS, JOURNAL_LABELS
from benchmarks.harness.part import Advance, Part, Plot, command
from benchmarks.harness.plot import Bar, Series, horizontal_bars
from benchmarks.harness.processes import Failed
from benchmarks.harness.sums import Sums

SLOW_FLUSH_MS = 80
ROUNDS = 7
ROUNDS_LONG = 31
MOST_S = 14.0
MOST_LONG_S = 180.0
PHASES = ("open", "insert", "commit", "close")


@dataclass(frozen=True)
class Measured:
    """One cell: medians over the rounds."""

    cell: Cell
    rounds: int
    phases_ns: dict[str, float]
    open_cpu_ns: float
    totals_ns: list[int]  # the total time of each round
    flushes: int | None  # None without the shim that counts flushes
    sums: Sums

    @property
    def total_ns(self) -> float:
        """The median time of a whole event."""
        return median(self.totals_ns)

    @property
    def label(self) -> str:
        """Name the cell without its disk."""
        elsewhere = ", open elsewhere" if self.cell.elsewhere else ""
        return f"{CIPHER_LABELS[self.cell.cipher]}, {JOURNAL_LABELS[self.cell.journal]}{elsewhere}"

    @property
    def disk(self) -> str:
        return f"+{self.cell.flush_ms} ms" if self.cell.flush_ms else "as it is"

    def summary(self) -> dict[str, Any]:
        """Return a row for JSON."""
        return {
            **asdict(self.cell),
            "label": self.label,
            "rounds": self.rounds,
            "total_p50_ns": self.total_ns,
            **{f"{phase}_p50_ns": ns for phase, ns in self.phases_ns.items()},
            "open_cpu_p50_ns": self.open_cpu_ns,
            "flushes": self.flushes,
            **asdict(self.sums),
            "problems": self.sums.problems(),
        }


def steps(long: bool) -> int:
    """Return the number of steps: one for each event."""
    return (ROUNDS_LONG if long else ROUNDS) * len(cells((0, SLOW_FLUSH_MS)))


def run(place: Path, long: bool, advance: Advance) -> Part:
    """Measure all cells. Raises Failed."""
    missing: list[str] = []
    disks: Sequence[int] = (0, SLOW_FLUSH_MS)
    try:
        env = slow_flush.counting(place)
    except slow_flush.NoCompiler as reason:
        missing.append(f"the disk with {SLOW_FLUSH_MS} ms a flush, and counts of flushes: {reason}")
        disks, env = (0,), {}
    rows = measure(place, disks, env, long, advance)
    problems = [f"{row.label}, disk {row.disk}: {p}" for row in rows for p in row.sums.problems()]
    by_cell = {row.cell: row for row in rows}
    return Part(
        name="cause",
        text=show(rows),
        rows=[row.summary() for row in rows],
        figures=figures(by_cell),
        problems=problems,
        missing=missing,
        plots=[plot(rows)],
    )


def measure(
    place: Path, disks: Sequence[int], env: Mapping[str, str], long: bool, advance: Advance
) -> list[Measured]:
    """Measure all cells in one child process. Raises Failed."""
    rounds, most_s = (ROUNDS_LONG, MOST_LONG_S) if long else (ROUNDS, MOST_S)
    all_cells = cells(disks)
    events: list[list[dict[str, int]]] = [[] for _ in all_cells]
    for done, line in enumerate(_lines(place, disks, env, rounds, most_s)):
        if "stored" in line:
            advance("", max(0, steps(long) - done))  # too little time, or only one disk
            return [
                _middle(cell, events[n], line["attempted"], line["stored"][n])
                for n, cell in enumerate(all_cells)
            ]
        cell = all_cells[line["cell"]]
        advance(f"{cell.cipher}, {cell.journal}", 1)
        events[line["cell"]].append(line)
    raise Failed("the process that writes events did not finish")


def _lines(
    place: Path, disks: Sequence[int], env: Mapping[str, str], rounds: int, most_s: float
) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.cause.phases", str(place), json.dumps(disks)]
    with subprocess.Popen(
        [*command, str(rounds), str(most_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": machine.PYTHONPATH, **env},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield from map(json.loads, process.stdout)
            output = process.stderr.read().strip()
        finally:
            process.kill()
    if output and process.returncode != 0:
        raise Failed(f"writing events: {output.splitlines()[-1]}")


def _middle(
    cell: Cell, events: Sequence[Mapping[str, int]], attempted: int, stored: int
) -> Measured:
    """Return the medians of one cell. Raises Failed without events."""
    if not events:
        raise Failed("no event was written in the time")
    phases = {phase: median(event[f"{phase}_ns"] for event in events) for phase in PHASES}
    open_cpu_ns = median(event["open_cpu_ns"] for event in events)
    totals_ns = [sum(event[f"{phase}_ns"] for phase in PHASES) for event in events]
    flushes = int(median(event["flushes"] for event in events))
    # Every write returned, so all events count as accepted.
    sums = Sums(attempted=attempted, accepted=attempted, refused=0, stored=stored)
    counted = flushes if flushes >= 0 else None
    return Measured(cell, len(events), phases, open_cpu_ns, totals_ns, counted, sums)


HEAD = ("disk", "key and journal", "event", *PHASES, "flushes", "events", "sum")


def show(rows: Sequence[Measured]) -> str:
    """Return the table; a disk is named in its first row only."""
    cells_of: list[list[str]] = []
    before = ""
    for row in rows:
        cells_of.append(
            [
                "" if row.disk == before else row.disk,
                row.label,
                table.duration(row.total_ns),
                *(table.duration(row.phases_ns[phase]) for phase in PHASES),
                "?" if row.flushes is None else str(row.flushes),
                f"{row.sums.stored:,}",
                "WRONG" if row.sums.problems() else "right",
            ]
        )
        before = row.disk
    return table.render(HEAD, cells_of, left=2)


def plot(rows: Sequence[Measured]) -> Plot:
    """Draw the phases of one event, in milliseconds."""
    svg = horizontal_bars(
        "One event over a new connection, by phase (p50, ms)",
        [f"{row.label}; disk {row.disk}" for row in rows],
        [
            Series(
                phase,
                [
                    Bar(row.phases_ns[phase] / 1e6, table.digits(row.phases_ns[phase] / 1e6))
                    for row in rows
                ],
            )
            for phase in PHASES
        ],
        stacked=True,
    )
    return Plot("cause", svg)


def figures(rows: Mapping[Cell, Measured]) -> dict[str, float]:
    """Return the figures for the baseline."""
    passphrase, raw = Cell(0, "passphrase", "delete"), Cell(0, "raw", "delete")
    found = {
        "cause.passphrase_delete_p50_ns": rows[passphrase].total_ns,
        "cause.raw_delete_p50_ns": rows[raw].total_ns,
        "cause.key_derivation_cpu_ns": rows[passphrase].open_cpu_ns - rows[raw].open_cpu_ns,
    }
    for name, cell in (
        ("delete", raw),
        ("wal", Cell(0, "raw", "wal")),
        ("wal_open_elsewhere", Cell(0, "raw", "wal", elsewhere=True)),
    ):
        if (flushes := rows[cell].flushes) is not None:
            found[f"cause.{name}_flushes"] = flushes
    return found


main = command(
    steps,
    run,
    "Separate the cost of a slow disk from that of a key derived at every open.",
    "More rounds: about three minutes.",
)


if __name__ == "__main__":
    main()
