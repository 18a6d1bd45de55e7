"""The result of a part of `make bench`, its progress bar and its command line.

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

# The types of the options `--directory` and `--results`.
DIRECTORY = click.Path(path_type=Path, exists=True)
RESULTS = click.Path(path_type=Path)


@dataclass(frozen=True)
class Plot:
    """A picture as SVG, under a name without a suffix."""

    name: str
    svg: bytes


@dataclass(frozen=True)
class Part:
    """The result of one part.

    `text` holds the tables for people, `rows` the same for programs, each with its sums. `figures`
    are compared with targets and baseline; their names end in the unit, ratios have none.
    `problems` name every wrong sum. `missing` names what was not measured, why, and how to
    install it.
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

    Calls `advance` with what is measured now and how many of the `steps(long)` have ended since.
    Raises Failed.
    """

    def __call__(self, place: Path, long: bool, advance: Advance) -> Part: ...


@contextmanager
def progress(steps: int) -> Iterator[Advance]:
    """Show a progress bar on stderr, labelled with what is measured now."""
    with click.progressbar(
        range(steps), file=sys.stderr, bar_template="  [%(bar)s] %(info)s  %(label)s"
    ) as bar:

        def advance(now: str, done: int) -> None:
            bar.label = f"{now:<24}"
            bar.update(done)

        yield advance


def write(directory: Path, part: Part, here: Machine) -> list[Path]:
    """Write results and pictures; return their paths, results first."""
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
    """Print and write a part that ran alone; return the exit code, 1 if a sum is wrong."""
    click.echo(f"\n{here}\n\n{part.text}\n\n{figures_table(part)}\n")
    for text in part.missing:
        click.echo(f"not measured: {text}")
    for path in write(directory, part, here):
        click.echo(f"written: {machine.display_path(path)}")
    for problem in part.problems:
        click.echo(f"wrong sum: {problem}", err=True)
    return 1 if part.problems else 0


def run_alone(
    steps: int, run: Callable[[Path, Advance], Part], directory: Path | None, results: Path
) -> None:
    """Run a part in a temporary directory and report it; exit with 1 if a sum is wrong."""
    end_on_sigterm()
    try:
        with temporary_directory(directory) as place:
            here = machine.detect(place)
            with progress(steps) as advance:
                part = run(place, advance)
        sys.exit(report(part, here, results))
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None


def command(steps: Callable[[bool], int], run: Run, what: str, long_help: str) -> click.Command:
    """Return the command line of a part, which runs it alone in a temporary directory."""

    @click.command(help=what)
    @click.option("--long", is_flag=True, help=long_help)
    @click.option("--directory", type=DIRECTORY, help="Where the databases go.")
    @click.option("--results", type=RESULTS, default=machine.RESULTS, help="Where the results go.")
    def main(long: bool, directory: Path | None, results: Path) -> None:
        run_alone(steps(long), lambda place, advance: run(place, long, advance), directory, results)

    return main
