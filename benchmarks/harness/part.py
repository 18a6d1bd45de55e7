"""What a part of `make bench` hands back, and how it shows that it goes on.

Each part is a module with a command line of its own (`python -m benchmarks.client.measure`) and a
function `run(place, long, advance)`, which `python -m benchmarks` calls. Both return a `Part`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click

from benchmarks.harness import machine, table
from benchmarks.harness.machine import Machine
from benchmarks.harness.processes import Failed, end_on_sigterm, temporary_directory

Advance = Callable[[str, int], None]


@dataclass(frozen=True)
class Plot:
    """A picture as SVG, under a name without a suffix."""

    name: str
    svg: bytes


@dataclass(frozen=True)
class Part:
    """One part, measured.

    `text` is for people: tables, and what they say. `rows` are for programs, each with its sums.
    `figures` are the few numbers that targets and the committed baseline are compared with, by
    names that end in their unit; a ratio has none. `problems` name every sum that is off.
    `missing` says what was not measured here, why, and what brings it.
    """

    name: str
    text: str
    rows: Sequence[dict[str, Any]]
    figures: dict[str, float]
    problems: Sequence[str] = ()
    missing: Sequence[str] = ()
    plots: Sequence[Plot] = field(default=(), repr=False)


class Run(Protocol):
    """Measures a part with files in `place`; `long` adds what takes many minutes.

    `advance` hears what is measured now, and how many steps of `steps(long)` are done since. Raises
    Failed.
    """

    def __call__(self, place: Path, long: bool, advance: Advance) -> Part: ...


@contextmanager
def progress(steps: int) -> Iterator[Advance]:
    """A bar on stderr with what is measured now beside it."""
    with click.progressbar(
        range(steps), file=sys.stderr, bar_template="  [%(bar)s] %(info)s  %(label)s"
    ) as bar:

        def advance(now: str, done: int) -> None:
            bar.label = f"{now:<24}"
            bar.update(done)

        yield advance


def write(directory: Path, part: Part, here: Machine) -> list[Path]:
    """Writes results and plots; the paths, results first."""
    body = asdict(part)
    plots = body.pop("plots")
    del body["text"]
    paths = [machine.write_results(directory, part.name, here, body)]
    for plot in plots:
        path = directory / f"{plot['name']}.svg"
        path.write_bytes(plot["svg"])
        paths.append(path)
    return paths


def figures_table(part: Part) -> str:
    """Return the figures of a part as a table; the names end in their unit."""
    rows = [[name, table.digits(value)] for name, value in sorted(part.figures.items())]
    return table.render(("figure", "value"), rows)


def report(part: Part, here: Machine, directory: Path) -> int:
    """Prints a part that ran alone, and writes it; the exit code: 1 when a sum is off."""
    click.echo(f"\n{here}\n\n{part.text}\n\n{figures_table(part)}\n")
    for text in part.missing:
        click.echo(f"not measured: {text}")
    for path in write(directory, part, here):
        click.echo(f"written: {machine.display_path(path)}")
    for problem in part.problems:
        click.echo(f"sum off: {problem}", err=True)
    return 1 if part.problems else 0


def command(steps: Callable[[bool], int], run: Run, what: str, long_help: str) -> click.Command:
    """The command line of a part: measures it alone, in a directory of its own, and reports."""

    @click.command(help=what)
    @click.option("--long", is_flag=True, help=long_help)
    @click.option(
        "--directory", type=click.Path(path_type=Path, exists=True), help="For databases."
    )
    @click.option("--results", type=click.Path(path_type=Path), default=machine.RESULTS)
    def main(long: bool, directory: Path | None, results: Path) -> None:
        end_on_sigterm()
        try:
            with temporary_directory(directory) as place:
                here = machine.detect(place)
                with progress(steps(long)) as advance:
                    part = run(place, long, advance)
            sys.exit(report(part, here, results))
        except (Failed, OSError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            raise click.Abort from None

    return main
