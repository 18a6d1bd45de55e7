"""`make bench`: what one call of logging costs a request, all ways in one table from one run.

python -m benchmarks.request            # under two minutes
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks import machine, slow_flush, table
from benchmarks.modes import count_earlier
from benchmarks.processes import (
    Failed,
    Instance,
    Running,
    end_on_sigterm,
    running,
    temporary_directory,
)
from benchmarks.reading import reading
from benchmarks.site import CALL_HEADER, FINISH, PAGE
from benchmarks.sums import Sums

HTTP_TIMEOUT_S = 120.0
WARM_UP_MAX = 50


@dataclass(frozen=True)
class Way:
    """A row of the table. `cost` divides the number of its requests: some take 0.1 s."""

    name: str
    label: str
    cost: int = 1
    logs: bool = True

    @property
    def has_daemon(self) -> bool:
        return self.name.startswith("logd")


WAYS = (
    Way("none", "no logging", logs=False),
    Way("sync-delete", "in the request, DELETE + FULL", cost=50),
    Way("sync-wal", "in the request, WAL + NORMAL", cost=50),
    Way("sync-wal-open", "the same, file also open elsewhere", cost=50),
    Way("queue", "queue in the process, new connections"),
    Way("queue-kept", "queue in the process, connection kept"),
    Way("logd", "logd"),
    Way("logd-durable", "logd, durable=True"),
)


@dataclass(frozen=True)
class Measured:
    """One way, measured: durations of the timed requests, and the sums of all of them."""

    name: str
    label: str
    calls_ns: list[int]
    requests_ns: list[int]
    sums: Sums
    problems: list[str]
    notes: dict[str, float] = field(default_factory=dict)

    def call(self, share: float) -> int:
        """A quantile of the call."""
        return table.quantile(self.calls_ns, share)

    def request(self, share: float) -> int:
        """A quantile of the whole request."""
        return table.quantile(self.requests_ns, share)


def measure(
    way: Way, directory: Path, requests: int, env: dict[str, str], tell: Callable[[int], None]
) -> Measured:
    """Runs one way in a fresh `directory`. `tell` hears of each request done. Raises Failed."""
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        instance = None
        if way.has_daemon:
            instance = stack.enter_context(Instance(directory))
            daemon = stack.enter_context(running("logd", instance.run_arguments(), env))
            daemon.wait_for_line("logd: ready")
        site = stack.enter_context(running("site", _site_arguments(way, directory), env))
        calls_ns, requests_ns, counts, made = _ask(site, requests, tell)
        site.stop()
        if instance is not None:
            state = instance.status()
            daemon.stop()
            counts |= {key: state[key] for key in ("stored", "quarantined", "pending", "lost")}
        else:
            counts["stored"] = count_earlier(directory) if way.logs else 0
        notes = {key: counts.pop(key) for key in list(counts) if key == "opening_share"}
        sums = Sums(**counts)
        problems = sums.problems()
        if sums.attempted != (made if way.logs else 0):
            problems.append(f"{made:,} requests, but {sums.attempted:,} attempts to log")
    return Measured(way.name, way.label, calls_ns, requests_ns, sums, problems, notes)


def _site_arguments(way: Way, directory: Path) -> list[str]:
    # One thread: requests one after the other, as in a sync worker, but over one connection.
    return (
        ["-m", "gunicorn", "--workers", "1", "--worker-class", "gthread", "--threads", "1"]
        + ["--keep-alive", "60", "--graceful-timeout", "5", "--no-control-socket"]
        + ["--bind", "127.0.0.1:0", f"benchmarks.site:create_app({way.name!r}, {str(directory)!r})"]
    )


def _ask(
    site: Running, requests: int, tell: Callable[[int], None]
) -> tuple[list[int], list[int], dict[str, Any], int]:
    """Requests the page over one connection, then the counts: durations, counts, pages."""
    line = site.wait_for_line("Listening at")
    found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    if found is None:
        raise Failed(f"the site does not say where it listens: {line}")
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=HTTP_TIMEOUT_S)
    calls_ns: list[int] = []
    requests_ns: list[int] = []
    warm_up = min(WARM_UP_MAX, requests // 10)
    try:
        for number in range(-warm_up, requests):
            start_ns = time.perf_counter_ns()
            connection.request("GET", PAGE)
            response = connection.getresponse()
            response.read()
            took_ns = time.perf_counter_ns() - start_ns
            if response.status != http.HTTPStatus.OK:
                raise Failed(f"the site answers {response.status}")
            if number >= 0:
                requests_ns.append(took_ns)
                calls_ns.append(int(response.headers[CALL_HEADER]))
                tell(1)
        connection.request("POST", FINISH)
        response = connection.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise Failed(f"the site cannot tell its sums: {response.status}")
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"the site does not answer: {error!r}") from error
    finally:
        connection.close()
    return calls_ns, requests_ns, json.loads(body), warm_up + requests


def pool(rounds: Sequence[Measured]) -> Measured:
    """The rounds of one way as one: all durations, sums of the sums, every problem."""
    sums = [asdict(one.sums) for one in rounds]
    return Measured(
        name=rounds[0].name,
        label=rounds[0].label,
        calls_ns=[ns for one in rounds for ns in one.calls_ns],
        requests_ns=[ns for one in rounds for ns in one.requests_ns],
        sums=Sums(**{key: sum(one[key] for one in sums) for key in sums[0]}),
        problems=[problem for one in rounds for problem in one.problems],
        notes={key: median(one.notes[key] for one in rounds) for key in rounds[0].notes},
    )


HEAD = (
    "logging",
    "requests",
    "call\np50",
    "call\np99",
    "request\np50",
    "request\np99",
    "events",
    "refused",
    "stored",
    "pending,\nlost",
    "sum",
)


def show(rows: Sequence[Measured]) -> str:
    """The table."""
    return table.render(HEAD, [_cells(row) for row in rows])


def _cells(row: Measured) -> list[str]:
    sums = row.sums
    return [
        row.label,
        f"{len(row.requests_ns):,}",
        *(table.duration(row.call(share)) for share in (0.5, 0.99)),
        *(table.duration(row.request(share)) for share in (0.5, 0.99)),
        f"{sums.attempted:,}",
        f"{sums.refused:,}",
        f"{sums.stored:,}",
        f"{sums.pending + sums.lost + sums.quarantined:,}",
        "WRONG" if row.problems else "right",
    ]


def summary(row: Measured) -> dict[str, Any]:
    """A row for programs: quantiles in nanoseconds, sums, and what is wrong with them."""
    quantiles = {
        f"{what}_p{int(share * 100)}_ns": of(share)
        for what, of in (("call", row.call), ("request", row.request))
        for share in (0.5, 0.9, 0.99)
    }
    head = {"name": row.name, "label": row.label, "requests": len(row.requests_ns)}
    return {**head, **quantiles, **row.notes, **asdict(row.sums), "problems": row.problems}


def finish(rows: Sequence[Measured]) -> int:
    """Says which sums are off, and gives the exit code: 1 if any is."""
    wrong = [f"{row.label}: {problem}" for row in rows for problem in row.problems]
    for text in wrong:
        click.echo(f"sum off: {text}", err=True)
    return 1 if wrong else 0


@click.command()
@click.option("--requests", default=1500, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=2, show_default=True, type=click.IntRange(1))
@click.option("--only", multiple=True, type=click.Choice([way.name for way in WAYS]))
@click.option("--flush-ms", default=0, show_default=True, help="How much longer each flush takes.")
@click.option("--directory", type=click.Path(path_type=Path, exists=True), help="For databases.")
@click.option("--results", type=click.Path(path_type=Path), default=machine.RESULTS)
def main(
    requests: int,
    rounds: int,
    only: tuple[str, ...],
    flush_ms: int,
    directory: Path | None,
    results: Path,
) -> None:
    """Measure what one call of logging costs a request.

    Every way gets so many requests in each round; those that write in the request a fiftieth. The
    rounds go through all ways, so that what else the machine does meets all of them.
    """
    end_on_sigterm()
    ways = [way for way in WAYS if not only or way.name in only]
    plan = [(way, max(1, requests // way.cost)) for way in ways] * rounds
    done: dict[str, list[Measured]] = {way.name: [] for way in ways}
    try:
        with temporary_directory(directory) as place:
            here = machine.look(place)
            env = slow_flush.environment(place, flush_ms)
            with click.progressbar(length=sum(n for _, n in plan), file=sys.stderr) as bar:
                for number, (way, count) in enumerate(plan):
                    bar.label = f"{way.name:<13}"
                    row = measure(way, place / str(number), count, env, bar.update)
                    done[way.name].append(row)
    except (Failed, slow_flush.NoCompiler) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None
    rows = {name: pool(measured) for name, measured in done.items()}
    click.echo(f"\n{here}\n{rounds} rounds through all ways")
    click.echo(f"each flush takes {flush_ms} ms longer\n" if flush_ms else "")
    click.echo(show(list(rows.values())))
    click.echo(f"\n{table.paragraph(reading(rows))}")
    name = f"request-flush{flush_ms}" if flush_ms else "request"
    body = {"flush_ms": flush_ms, "rounds": rounds, "rows": [*map(summary, rows.values())]}
    path = machine.write_results(results, name, here, body)
    click.echo(f"\nwritten: {machine.shown(path)}")
    sys.exit(finish(list(rows.values())))


if __name__ == "__main__":
    main()
