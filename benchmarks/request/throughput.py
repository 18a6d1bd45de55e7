"""Compare the requests per second of a site with logging by logd and without.

Both sites run all the time and get their load in many short turns, so that other load on the
machine affects both. The ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import table
from benchmarks.harness.processes import Failed, Instance, Running, running
from benchmarks.harness.sums import Sums
from benchmarks.request import classroom
from benchmarks.request.load import Answers, Loader, Task
from benchmarks.request.server import Order, Server, Site
from benchmarks.request.site import PAGE

CONNECTIONS = 8
TURN_S = 0.2
WARM_UP_S = 0.5
SETTLE_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Throughput:
    """The result of one site, in rounds: requests/s with and without logging."""

    name: str
    label: str
    with_per_s: list[float]
    without_per_s: list[float]
    with_cpu_ns: float  # CPU seconds of the web processes, per request
    without_cpu_ns: float
    logd_cpu_ns: float
    sums: Sums
    problems: list[str]

    @property
    def ratios(self) -> list[float]:
        """With / without, of each round, sorted."""
        pairs = zip(self.with_per_s, self.without_per_s, strict=True)
        return sorted(on / off for on, off in pairs)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        """CPU time of a page with logging, including the daemon's, / without."""
        return (self.with_cpu_ns + self.logd_cpu_ns) / self.without_cpu_ns

    @property
    def middle_half(self) -> tuple[float, float]:
        """The bounds of the middle half of the rounds' ratios."""
        ratios = self.ratios
        cut = len(ratios) // 4
        return ratios[cut], ratios[-1 - cut]

    def summary(self) -> dict[str, Any]:
        """Return a row for JSON."""
        return {
            "name": self.name,
            "label": self.label,
            "rounds": len(self.with_per_s),
            "with_per_s": median(self.with_per_s),
            "without_per_s": median(self.without_per_s),
            "with_cpu_ns": self.with_cpu_ns,
            "without_cpu_ns": self.without_cpu_ns,
            "logd_cpu_ns": self.logd_cpu_ns,
            "throughput_over_none": self.ratio,
            "throughput_over_none_rounds": self.ratios,
            **asdict(self.sums),
            "problems": self.problems,
        }


HEAD = (
    "site",
    "rounds",
    "requests/s\nwithout",
    "requests/s\nwith",
    "with / without\n(middle half of rounds)",
    "CPU of a page\nwithout",
    "CPU of a page\nwith",
    "CPU of\nlogd",
    "CPU\nratio",
    "sum",
)


def show(compared: Sequence[Throughput]) -> str:
    """Return the table: each site with and without logging, medians of the rounds."""
    rows = []
    for one in compared:
        low, high = one.middle_half
        rows.append(
            [
                one.label,
                f"{len(one.ratios)}",
                f"{median(one.without_per_s):,.0f}",
                f"{median(one.with_per_s):,.0f}",
                f"{one.ratio:.3f} ({low:.3f} to {high:.3f})",
                table.duration(one.without_cpu_ns),
                table.duration(one.with_cpu_ns),
                table.duration(one.logd_cpu_ns),
                f"{one.cpu_ratio:.2f}",
                "WRONG" if one.problems else "right",
            ]
        )
    return table.render(HEAD, rows)


@dataclass
class _Turns:
    """One of the two sites, and its answers so far."""

    loader: Loader
    site: Site
    page: str
    headers: dict[str, str]
    answered: int = 0
    next_number: int = 0
    speeds_per_s: list[float] = field(default_factory=list)
    _warm: tuple[int, float] = (0, 0.0)

    def warm_up(self) -> None:
        """Run one turn that is not counted, for what a site does only once."""
        self.take(WARM_UP_S)
        self._warm = (self.answered, self.site.cpu_s())

    @property
    def measured(self) -> int:
        """The number of pages answered since the warm-up."""
        return self.answered - self._warm[0]

    def cpu_ns(self) -> float:
        """Return the CPU time of the web processes per page."""
        return (self.site.cpu_s() - self._warm[1]) * 1e9 / self.measured

    def take(self, seconds: float) -> float:
        """Run one turn of load; return requests/s. Raises Failed if a page is not answered."""
        task = Task(
            self.site.port,
            CONNECTIONS,
            least_s=seconds,
            first_number=self.next_number,
            page=self.page,
            headers=self.headers,
        )
        answers: Answers = self.loader.run(task)
        if answers.problems:
            raise Failed(answers.problems[0])
        self.next_number = answers.numbers
        self.answered += len(answers.answered)
        return answers.per_s


def _take_turns(with_: _Turns, without: _Turns, rounds: int, daemon: Running) -> float:
    """Run the rounds, alternating which site is first; return the daemon's CPU ns per page."""
    for turns in (with_, without):
        turns.warm_up()
    daemon_s = daemon.cpu_s()
    for number in range(rounds):
        for turns in (with_, without) if number % 2 else (without, with_):
            turns.speeds_per_s.append(turns.take(TURN_S))
    return (daemon.cpu_s() - daemon_s) * 1e9 / with_.measured


def measure_classroom(place: Path, server: Server, loader: Loader, rounds: int) -> Throughput:
    """Measure a student reading a lesson in the Classroom. Raises Failed."""
    place.mkdir()
    with _daemon(place / "logd") as (instance, daemon), contextlib.ExitStack() as stack:
        pair = []
        for name, socket in (("on", instance.socket), ("off", None)):
            student = classroom.prepare(place / name, socket)
            site = stack.enter_context(server.site(Order(classroom=student.settings)))
            pair.append(_Turns(loader, site, classroom.PAGE, student.headers))
        with_, without = pair
        logd_cpu_ns = _take_turns(with_, without, rounds, daemon)
        return _finish(
            "classroom", "a lesson of the Classroom", with_, without, instance, logd_cpu_ns
        )


def measure_bare(place: Path, server: Server, loader: Loader, rounds: int) -> Throughput:
    """Measure the site with one empty page. Raises Failed."""
    place.mkdir()
    with _daemon(place / "logd") as (instance, daemon), contextlib.ExitStack() as stack:
        (place / "none").mkdir()
        pair = []
        for way, directory in (("logd", instance.directory), ("none", place / "none")):
            site = stack.enter_context(server.site(Order(way, str(directory))))
            pair.append(_Turns(loader, site, PAGE, {}))
        with_, without = pair
        logd_cpu_ns = _take_turns(with_, without, rounds, daemon)
        label = "a page with nothing in it"
        return _finish("bare", label, with_, without, instance, logd_cpu_ns)


@contextlib.contextmanager
def _daemon(directory: Path) -> Iterator[tuple[Instance, Running]]:
    with Instance(directory) as instance, running("logd", instance.run_arguments()) as daemon:
        daemon.wait_for_line("logd: ready")
        yield instance, daemon


def _finish(
    name: str, label: str, with_: _Turns, without: _Turns, instance: Instance, logd_cpu_ns: float
) -> Throughput:
    """Compare the sums: every answered page must be stored, and nothing else."""
    state = instance.settled_status(SETTLE_TIMEOUT_S)
    answered = with_.answered
    counts = {key: state[key] for key in ("stored", "quarantined", "pending", "lost")}
    sums = Sums(attempted=answered, accepted=answered, refused=0, **counts)
    return Throughput(
        name,
        label,
        with_per_s=with_.speeds_per_s,
        without_per_s=without.speeds_per_s,
        with_cpu_ns=with_.cpu_ns(),
        without_cpu_ns=without.cpu_ns(),
        logd_cpu_ns=logd_cpu_ns,
        sums=sums,
        problems=sums.problems(),
    )
