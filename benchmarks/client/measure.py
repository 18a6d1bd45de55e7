"""Compare one `emit` with a raw `send`, the standard library and other logging clients.

python -m benchmarks.client.measure  # under a minute; --long for every cell of every peer
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.client import first_durable
from benchmarks.client import values as client_values
from benchmarks.client.peers import KINDS
from benchmarks.client.plan import LONG, QUICK, Group, Size, plan
from benchmarks.client.receivers import Receiving, receiver, rsyslog
from benchmarks.client.results import Measured, Results, figures, problems, row
from benchmarks.client.sender import DONE, STEP, Orders
from benchmarks.client.tables import plot, show
from benchmarks.harness import machine
from benchmarks.harness.part import DIRECTORY, RESULTS, Advance, Part, run_alone
from benchmarks.harness.processes import Instance, running
from benchmarks.harness.sums import Sums

NAME = "client"
FIRST_DURABLE = "client.first_durable_over_later"
STEP_TIMEOUT_S = 180.0
ALWAYS = ("logd", "raw", "noop")


def present() -> list[str]:
    """Return the names of the peers that are installed."""
    return [name for name, kind in KINDS.items() if kind.missing() is None]


def missing(groups: Sequence[Group], can_pin: bool) -> list[str]:
    """Return the names of the peers that are not measured here, and why."""
    measured = {cell.peer for group in groups for cell in group.cells}
    absent = [kind.missing() for name, kind in KINDS.items() if name not in measured]
    texts = [text for text in absent if text is not None]
    if not can_pin:
        texts.append("pinned to a core each: there is one core")
    return texts


def enough_cores_to_pin() -> bool:
    return len(os.sched_getaffinity(0)) >= 2


def _cores() -> tuple[int, int] | None:
    if not enough_cores_to_pin():
        return None
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return first, second


def _plan(names: Sequence[str], size: Size) -> list[Group]:
    return plan(names, size, enough_cores_to_pin())


def steps(long: bool) -> int:
    """Return the number of steps of a run."""
    return _steps(_plan(present(), LONG if long else QUICK)) + 1


def _steps(groups: Sequence[Group]) -> int:
    return sum(group.rounds * len(group.cells) for group in groups)


def run(place: Path, long: bool, advance: Advance) -> Part:
    """Measure every installed peer. Raises Failed."""
    return _run(place, _plan(present(), LONG if long else QUICK), advance)


def _run(place: Path, groups: Sequence[Group], advance: Advance) -> Part:
    part = compare(place / NAME, groups, advance)
    advance("any value", 0)
    timed, stats = client_values.measure(place / "values")
    advance("first durable events", 0)
    first = first_durable.measure(place / "durable")
    advance("", 1)
    return replace(
        part,
        text=f"{part.text}\n\n{client_values.show(timed)}\n\n{first.table()}",
        rows=[*part.rows, first.row()],
        figures={**part.figures, **client_values.figures(timed), FIRST_DURABLE: first.ratio},
        problems=[*part.problems, *client_values.problems(stats), *first.sums.problems()],
    )


def compare(place: Path, groups: Sequence[Group], advance: Advance) -> Part:
    """Run the plan, with files in a fresh `place`. Raises Failed."""
    place.mkdir()
    names = list(dict.fromkeys(cell.peer for group in groups for cell in group.cells))
    with Instance(place / "i") as instance:
        seen = _send(place, instance, names, groups, advance)
        state = instance.status()
    measured = [
        Measured(group.name, cell, seen_cell)
        for group, cells in zip(groups, seen["groups"], strict=True)
        for cell, seen_cell in zip(group.cells, cells, strict=True)
    ]
    results = Results(measured, seen["overhead_ns"])
    total = Sums.of(seen["logd"], state)
    return Part(
        name=NAME,
        text=show(measured),
        rows=[*map(row, measured), {"name": "logd, all of it", **vars(total)}],
        figures=figures(results),
        problems=problems(measured, total),
        missing=missing(groups, enough_cores_to_pin()),
        plots=[plot(results)],
    )


def _send(
    place: Path, instance: Instance, names: Sequence[str], groups: Sequence[Group], advance: Advance
) -> dict[str, Any]:
    """Run the daemon, every receiver and the sender; return the sender's results."""
    orders_file, results_file = place / "orders.json", place / "results.json"
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running("logd", instance.run_arguments()))
        receiving: dict[str, Receiving | None] = {
            name: None if name == "logd" else stack.enter_context(_receiver_of(name, place))
            for name in names
        }
        daemon.wait_for_line("logd: ready")
        if "logd" in names:
            receiving["logd"] = Receiving(daemon.pid, str(instance.socket), "")
        orders_file.write_text(Orders(groups, receiving, str(place), _cores()).to_json())
        arguments = ["-m", "benchmarks.client.sender", str(orders_file), str(results_file)]
        # The sender must find the same installed packages as this process does.
        modules = {"PYTHONPATH": os.pathsep.join([machine.PYTHONPATH, *filter(None, sys.path)])}
        sender = stack.enter_context(running("sender", arguments, modules))
        while (now := sender.wait_for_line(STEP, STEP_TIMEOUT_S).removeprefix(STEP)) != DONE:
            advance(now, 1)
        daemon.stop()
        seen: dict[str, Any] = json.loads(results_file.read_text())
        return seen


@contextlib.contextmanager
def _receiver_of(name: str, place: Path) -> Iterator[Receiving | None]:
    """Run the receiver of a peer, unless the sender itself receives."""
    kind = KINDS[name].receiver
    if kind in ("", "file"):
        yield None
    elif kind == "rsyslog":
        with rsyslog(place) as receiving:
            yield receiving
    else:
        with receiver(kind, place, name) as receiving:
            yield receiving


@click.command()
@click.option("--long", is_flag=True, help="More events, and every cell of every peer.")
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)), help="Only these peers.")
@click.option("--directory", type=DIRECTORY, help="Where the files go.")
@click.option("--results", type=RESULTS, default=machine.RESULTS, help="Where the results go.")
def main(long: bool, only: tuple[str, ...], directory: Path | None, results: Path) -> None:
    """Measure one emit, compared with a raw send and other loggers.

    With --only, `logd` and the raw send are measured too, since the others are compared with these.
    """
    for name in only:
        if (why := KINDS[name].missing()) is not None:
            raise click.ClickException(why)
    names = [name for name in present() if not only or name in only or name in ALWAYS]
    groups = _plan(names, LONG if long else QUICK)
    run_alone(
        _steps(groups) + 1, lambda place, advance: _run(place, groups, advance), directory, results
    )


if __name__ == "__main__":
    main()
