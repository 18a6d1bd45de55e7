"""Compare the time of a process's first durable event with that of a later one.

python -m benchmarks.client.first_durable SOCKET    # one process: print the times in nanoseconds
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import table
from benchmarks.harness.processes import Failed, Instance, running
from benchmarks.harness.sums import Sums
from logd_client import Client, Outcome

PROCESSES = 15
LATER_EVENTS = 5
# Seconds between events, so that each has a commit of its own and finds the daemon asleep.
PAUSE_S = 0.15


@dataclass(frozen=True)
class FirstDurable:
    """For each process the time of its first durable event, and the median of its later ones."""

    first_ns: Sequence[int]
    later_ns: Sequence[int]
    sums: Sums

    @property
    def ratio(self) -> float:
        """First / later, the median over processes; each pair is measured within a second."""
        pairs = zip(self.first_ns, self.later_ns, strict=True)
        return float(median(first / later for first, later in pairs))

    def table(self) -> str:
        """Return a table of the times and their ratio, medians over processes."""
        first, later = (int(median(times)) for times in (self.first_ns, self.later_ns))
        head = ("durable event of a process", "first", "later", "first / later", "sum")
        state = "WRONG" if self.sums.problems() else "right"
        cells = [
            f"median of {len(self.first_ns)} processes",
            table.duration(first),
            table.duration(later),
            f"{self.ratio:.2f}",
            state,
        ]
        return table.render(head, [cells])

    def row(self) -> dict[str, Any]:
        """Return a row for JSON."""
        return {"name": "first durable event", **vars(self)} | {"sums": vars(self.sums)}


def measure(place: Path) -> FirstDurable:
    """Run a daemon, and processes one after the other. Raises Failed."""
    first, later = [], []
    with Instance(place) as instance:
        with running("logd", instance.run_arguments()) as daemon:
            daemon.wait_for_line("logd: ready")
            for _ in range(PROCESSES):
                times = _of_a_process(instance.socket)
                first.append(times[0])
                later.append(int(median(times[1:])))
            daemon.stop()
        state = instance.status()
    accepted = PROCESSES * (1 + LATER_EVENTS)
    sums = Sums.of({"attempted": accepted, "accepted": accepted}, state)
    return FirstDurable(first, later, sums)


def _of_a_process(socket: Path) -> list[int]:
    with running("sender", ["-m", "benchmarks.client.first_durable", str(socket)]) as process:
        times: list[int] = json.loads(process.wait_for_line("["))
    return times


def main(socket: str) -> None:
    """Emit the durable events of one process and print their times."""
    times = []
    with Client(socket) as client:
        for number in range(1 + LATER_EVENTS):
            time.sleep(PAUSE_S)
            began_ns = time.monotonic_ns()
            outcome = client.emit_durable("quiz_submitted", user="7", props={"quiz": number})
            times.append(time.monotonic_ns() - began_ns)
            if outcome is not Outcome.STORED:
                raise Failed(f"a durable event was {outcome.value}")
    print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
