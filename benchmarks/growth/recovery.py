"""Measure restarts after `kill -9` and after a clean stop, as the trail grows.

python -m benchmarks.growth.recovery           # 10^5 events, under half a minute
python -m benchmarks.growth.recovery --long    # 10^5, 10^6 and 10^7
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.growth import recovery_tables
from benchmarks.growth.history import SIZES, SIZES_LONG, Trail, building_steps, size_suffix, trail
from benchmarks.growth.recovery_tables import Measured
from benchmarks.growth.restart import FLAT_OUT, KILL, STEADY, STOP
from benchmarks.growth.restart import measure as measure_restart
from benchmarks.harness.part import Advance, Part, command

# The rounds: how the daemon is ended, and under which load.
PLAN = ((KILL, STEADY), (STOP, STEADY), (KILL, FLAT_OUT), (KILL, STEADY))
ROUNDS, ROUNDS_LONG = 1, 3


def steps(long: bool) -> int:
    """Return the number of steps of a run."""
    sizes = SIZES_LONG if long else SIZES
    return building_steps(sizes) + len(sizes) * len(PLAN) * (ROUNDS_LONG if long else ROUNDS)


def run(place: Path, long: bool, advance: Advance) -> Part:
    """Kill and stop a daemon under load, in rounds, at every size. Raises Failed."""
    measured = []
    for size in SIZES_LONG if long else SIZES:
        with trail(place, size, advance) as built:
            measured.append(measure(built, ROUNDS_LONG if long else ROUNDS, advance))
    return Part(
        name="recovery",
        text=recovery_tables.show(measured),
        rows=_rows(measured),
        figures=figures(measured),
        problems=[text for one in measured for text in one.problems],
        plots=recovery_tables.plots(measured),
    )


def measure(built: Trail, rounds: int, advance: Advance) -> Measured:
    """Measure the restarts at one size. Raises Failed."""
    restarts = []
    for _ in range(rounds):
        for how, load in PLAN:
            advance(f"{how} at {built.size}", 1)
            restarts.append(measure_restart(built, how, load))
    return Measured(built.history.size, restarts)


def figures(measured: Sequence[Measured]) -> dict[str, float]:
    """Return the figures; those without a size in their name are of the largest."""
    found = {f"recovery.{name}": s for name, s in measured[-1].times_s.items()}
    for one in measured:
        for name in ("ready_s", "first_commit_s"):
            found[f"recovery.{name}_at_{size_suffix(one.size)}"] = one.times_s[name]
    return found


def _rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    rows = []
    for one in measured:
        for restart in one.restarts:
            row = asdict(restart)
            sums = row.pop("sums")
            rows.append({"size": one.size, **row, **sums})
    return rows


main = command(
    steps,
    run,
    "Measure restarts after `kill -9` and after a clean stop, under load.",
    "Also at 10^6 and 10^7 events.",
)


if __name__ == "__main__":
    main()
