"""`make bench`: run every part, compare with targets and baseline, write the results.

python -m benchmarks                    # under five minutes
python -m benchmarks --long             # also with 10^7 events
python -m benchmarks --only client      # one part
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.harness import baseline, machine, overview, targets
from benchmarks.harness.machine import Machine
from benchmarks.harness.part import DIRECTORY, RESULTS, Part, progress, write
from benchmarks.harness.processes import Failed, end_on_sigterm, temporary_directory
from benchmarks.harness.slow_flush import NoCompiler
from benchmarks.harness.targets import Outcome

# In the order in which they run.
PARTS = {
    "request": "what logging costs a page",
    "cause": "a slow disk, or a key derived at every open",
    "client": "one emit, compared with a raw send and other loggers",
    "ingest": "events stored and flushed, compared with a bare bulk insert",
    "query": "reports and ingest as the trail grows",
    "recovery": "from kill -9 to the first commit",
}
# Each module has the functions `steps` and `run` (see benchmarks.harness.part).
MODULES = {
    "request": "benchmarks.request.measure",
    "cause": "benchmarks.cause.measure",
    "client": "benchmarks.client.measure",
    "ingest": "benchmarks.ingest.measure",
    "query": "benchmarks.growth.query",
    "recovery": "benchmarks.growth.recovery",
}


@dataclass
class Run:
    """The results of the parts so far."""

    parts: list[Part] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)
    took_s: dict[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """The figures of all parts."""
        return {name: value for part in self.parts for name, value in part.figures.items()}

    @property
    def problems(self) -> list[str]:
        """Every wrong sum, with its part."""
        return [f"{part.name}: {text}" for part in self.parts for text in part.problems]


def measure(names: Sequence[str], place: Path, results: Path, here: Machine, *, long: bool) -> Run:
    """Run the parts; print and write each as it ends. A failure is reported, the others run on."""
    run = Run()
    for number, name in enumerate(names, start=1):
        click.echo(f"{number} of {len(names)}  {name}: {PARTS[name]}", err=True)
        started_s = time.monotonic()
        try:
            module = importlib.import_module(MODULES[name])
            (place / name).mkdir()
            with progress(module.steps(long)) as advance:
                part: Part = module.run(place / name, long, advance)
        except (Failed, NoCompiler, OSError, click.ClickException) as error:
            run.failed[name] = _message(error)
        except Exception as error:  # noqa: BLE001 - the other parts still run
            run.failed[name] = repr(error)
            traceback.print_exc()
        else:
            run.took_s[name] = time.monotonic() - started_s
            click.echo(f"\n{name}: {PARTS[name]} ({run.took_s[name]:.0f} s)\n\n{part.text}\n")
            run.parts.append(part)
            run.written += write(results, part, here)
        if name in run.failed:
            click.echo(f"{name}: failed: {run.failed[name]}", err=True)
    return run


def _message(error: Exception) -> str:
    text = error.message if isinstance(error, click.ClickException) else str(error)
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def conclude(run: Run, names: Sequence[str], here: Machine, *, long: bool) -> list[Outcome]:
    """Print the targets, the baseline and what could not be measured."""
    outcomes = targets.judge(run.figures, names, long=long)
    if outcomes:
        click.echo(f"Targets\n\n{targets.show(outcomes)}\n")
    try:
        text = baseline.compare(baseline.load(baseline.PATH), run.parts, here, long=long)
    except baseline.Unreadable as error:
        text = f"Not compared: {error}"
    click.echo(f"Against the committed baseline\n\n{text}\n")
    for text in dict.fromkeys(text for part in run.parts for text in part.missing):
        click.echo(f"not measured: {text}")
    return outcomes


def write_overview(
    run: Run, outcomes: Sequence[Outcome], here: Machine, results: Path, *, long: bool
) -> None:
    """Write targets.json, targets.svg, RESULTS.md and index.html."""
    body = {
        "long": long,
        "targets": [targets.summary(one) for one in outcomes],
        "problems": run.problems,
        "failed": run.failed,
        "took_s": run.took_s,
        "missing": [text for part in run.parts for text in part.missing],
    }
    run.written.append(machine.write_results(results, "targets", here, body))
    plots = [plot for plot in [overview.targets_plot(outcomes)] if plot is not None]
    for plot in plots:
        run.written.append(results / f"{plot.name}.svg")
        run.written[-1].write_bytes(plot.svg)
    table = targets.show(outcomes)
    run.written.append(results / "RESULTS.md")
    run.written[-1].write_text(overview.markdown(here, run.parts, table))
    run.written.append(results / "index.html")
    run.written[-1].write_text(overview.page(here, run.parts, table, plots))


def finish(run: Run, started_s: float) -> int:
    """Print where the results are, what is wrong and how long it took; return the exit code."""
    names = ", ".join(path.name for path in run.written[:-1])
    page = run.written[-1]
    click.echo(f"written to {machine.display_path(page.parent)}: {names}")
    click.echo(f"all tables and pictures on one page: {machine.display_path(page)}")
    for text in run.problems:
        click.echo(f"wrong sum: {text}", err=True)
    for name, text in run.failed.items():
        click.echo(f"failed: {name}: {text}", err=True)
    sums = "every sum is right" if not run.problems else f"{len(run.problems)} sums are wrong"
    click.echo(f"{time.monotonic() - started_s:.0f} s in all; {sums}")
    return 1 if run.problems or run.failed else 0


@click.command()
@click.option("--long", is_flag=True, help="More rounds, and 10^7 events: takes many minutes.")
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="Run only these parts.")
@click.option("--directory", type=DIRECTORY, help="Where the databases go.")
@click.option("--results", type=RESULTS, default=machine.RESULTS, help="Where the results go.")
@click.option("--save-baseline", is_flag=True, help="Write these figures to baseline.json.")
def main(
    long: bool, only: tuple[str, ...], directory: Path | None, results: Path, save_baseline: bool
) -> None:
    """Measure everything, and compare with the targets and the committed baseline.

    Exits with 1 if a sum is wrong or a part fails. A missed target is not a failure.
    """
    end_on_sigterm()
    started_s = time.monotonic()
    names = [name for name in PARTS if not only or name in only]
    try:
        # Fail now, not in five minutes, if the results cannot be written.
        results.mkdir(parents=True, exist_ok=True)
        if save_baseline:
            baseline.load(baseline.PATH)
        with temporary_directory(directory) as place:
            here = machine.detect(place)
            click.echo(f"{here}\n")
            run = measure(names, place, results, here, long=long)
        outcomes = conclude(run, names, here, long=long)
        write_overview(run, outcomes, here, results, long=long)
        if save_baseline:
            baseline.save(baseline.PATH, run.parts, here, long=long)
            click.echo(f"baseline written: {machine.display_path(baseline.PATH)}")
    except (OSError, baseline.Unreadable) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None
    sys.exit(finish(run, started_s))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
