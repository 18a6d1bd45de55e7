"""The table and the picture of `make bench-recovery`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.growth.history import size_label
from benchmarks.growth.query_tables import ROOM_FOR_TEXT
from benchmarks.growth.restart import FLAT_OUT, KILL, STEADY, STOP, Restart
from benchmarks.harness import plot, table
from benchmarks.harness.emitter import Load
from benchmarks.harness.part import Plot

_S = 1e9  # in nanoseconds


@dataclass(frozen=True)
class Measured:
    """The restarts at one size."""

    size: int
    restarts: Sequence[Restart]

    @property
    def times_s(self) -> dict[str, float]:
        """Medians in seconds: ready and first commit after `kill -9`, and the length of a stop."""
        return {
            "ready_s": self._median(KILL, STEADY, "ready_s"),
            "first_commit_s": self._median(KILL, STEADY, "first_commit_s"),
            "ready_flat_out_s": self._median(KILL, FLAT_OUT, "ready_s"),
            "stop_s": self._median(STOP, STEADY, "ended_s"),
        }

    def _median(self, how: str, load: Load, time: str) -> float:
        kind = (how, str(load))
        ended = (one for one in self.restarts if (one.how, one.load) == kind)
        return float(median(getattr(one, time) for one in ended))

    @property
    def problems(self) -> list[str]:
        """Every wrong sum of any round."""
        return [
            f"{restart.how}, {restart.load}, {size_label(self.size)} events: {text}"
            for restart in self.restarts
            for text in restart.problems
        ]


HEAD = (
    "events",
    "end",
    "load",
    "stored\nbefore",
    "ended\nwithin",
    "waiting",
    "ready\nafter",
    "first commit\nafter",
    "attempted",
    "refused",
    "stored",
    "pending,\nlost",
    "sum",
)


def show(measured: Sequence[Measured]) -> str:
    """Return the table, a row for each restart."""
    rows = []
    for one in measured:
        for number, restart in enumerate(one.restarts):
            sums = restart.sums
            rows.append(
                [
                    "" if number else size_label(one.size),
                    restart.how,
                    restart.load,
                    f"{restart.stored_before:,}",
                    _time(restart.ended_s),
                    f"{restart.waiting:,}",
                    *(_time(s) for s in (restart.ready_s, restart.first_commit_s)),
                    f"{sums.attempted:,}",
                    f"{sums.refused:,}",
                    f"{sums.stored:,}",
                    f"{sums.pending + sums.lost + sums.quarantined:,}",
                    "WRONG" if restart.problems else "right",
                ]
            )
    return table.render(HEAD, rows, left=3)


def _time(seconds: float) -> str:
    return table.duration(seconds * _S)


def plots(measured: Sequence[Measured]) -> list[Plot]:
    """Draw ready, first commit and stop, with a bar for each size."""
    labels = ("ready after kill -9", "the same, flat out", "first commit after kill -9", "stop")
    series = [
        plot.Series(
            f"{size_label(one.size)} events", [plot.Bar(s, _time(s)) for s in _plotted(one)]
        )
        for one in measured
    ]
    sizes = ", ".join(size_label(one.size) for one in measured)
    title = f"From one daemon to the next, at {sizes} events"
    top = max(max(_plotted(one)) for one in measured) * ROOM_FOR_TEXT
    return [Plot("recovery", plot.horizontal_bars(title, labels, series, axis="seconds", top=top))]


def _plotted(one: Measured) -> list[float]:
    names = ("ready_s", "ready_flat_out_s", "first_commit_s", "stop_s")
    return [one.times_s[name] for name in names]
