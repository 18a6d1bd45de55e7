"""Measure one way of logging: the call, then a load from another process, then the kill."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import table
from benchmarks.harness.processes import Failed, Instance, running
from benchmarks.harness.sums import Sums
from benchmarks.request import access_log
from benchmarks.request.ledger import CallOutcomes, Ledger
from benchmarks.request.load import Loader, Task
from benchmarks.request.server import Order, Server
from benchmarks.request.throughput import SETTLE_TIMEOUT_S
from benchmarks.request.ways import Way

CONNECTIONS = 8
# The warm-up: the first request starts the site and opens files, and does not count.
WARM_UP_LANE = 0
# The measured calls: one connection, one request after the other.
QUIET_LANE = 1
QUIET_S = 0.15
QUIET_MOST_S = 1.6  # every call of a durable way waits for the slow disk
# The load that ends with the kill: ways with calls of 0.3 s get a few requests.
LOAD_LANE = 2
LOAD_REQUESTS_MIN = 2
LOAD_MOST_S = 2.0


@dataclass(frozen=True)
class Tools:
    """Shared by all measurements: the load, and a server of sites for each disk."""

    loader: Loader
    servers: Mapping[int, Server]


@dataclass(frozen=True)
class Measured:
    """The result of one way on one disk."""

    name: str
    label: str
    flush_ms: int
    calls_ns: list[int]
    per_s: float
    sums: Sums
    cut: int  # calls that the kill cut off, whose result is unknown
    problems: list[str]

    def call(self, share: float) -> int:
        """Return a quantile of the call."""
        return table.quantile(self.calls_ns, share)

    @property
    def survived(self) -> float | None:
        """The share of accepted events stored after the kill; None without accepted events."""
        return self.sums.stored / self.sums.accepted if self.sums.accepted else None


def measure(way: Way, flush_ms: int, env: Mapping[str, str], place: Path, tools: Tools) -> Measured:
    """Run one way in the fresh directory `place`, up to the kill under load. Raises Failed."""
    place.mkdir()
    ledger = Ledger(place)
    with contextlib.ExitStack() as stack:
        instance, state = None, {}
        if way.has_daemon:
            instance = stack.enter_context(Instance(place))
            daemon = stack.enter_context(running("logd", instance.run_arguments(), env))
            daemon.wait_for_line("logd: ready")
        way.prepare(place)
        site = stack.enter_context(tools.servers[flush_ms].site(Order(way.name, str(place))))
        port = site.port
        if way.is_behind_nginx:
            logs = way.stored is not None
            port = stack.enter_context(access_log.in_front(place, site.port, logs=logs))
        warm_up, quiet, loaded = (tools.loader.run(task) for task in _tasks(way, port, site.group))
        if instance is not None:
            state = instance.settled_status(SETTLE_TIMEOUT_S)
            daemon.stop()
        stored = way.stored(place) if way.stored else None
    outcomes = ledger.outcomes()
    sums, problems = judge(way, outcomes, stored, state)
    for answers in (warm_up, quiet, loaded):
        problems += answers.problems
        if missing := {*answers.answered} - outcomes.accepted - outcomes.refused:
            problems.append(f"{len(missing):,} answered pages are not in the ledger")
    if not quiet.calls_ns:
        raise Failed("\n".join([f"{way.label}: no page was answered", *problems]))
    cut = len(outcomes.cut)
    return Measured(
        way.name, way.label, flush_ms, quiet.calls_ns, loaded.per_s, sums, cut, problems
    )


def _tasks(way: Way, port: int, group: int) -> tuple[Task, Task, Task]:
    """Return the three loads of a site: warm-up, quiet, and the one that ends with the kill."""
    return (
        Task(port, connections=1, least_s=0.0, requests_max=1, first_lane=WARM_UP_LANE),
        Task(
            port,
            connections=1,
            least_s=QUIET_S,
            requests_min=way.quiet_requests_min,
            most_s=QUIET_MOST_S,
            requests_max=way.quiet_requests_max,
            first_lane=QUIET_LANE,
        ),
        Task(
            port,
            CONNECTIONS,
            least_s=way.load_s,
            requests_min=LOAD_REQUESTS_MIN,
            most_s=LOAD_MOST_S,
            first_lane=LOAD_LANE,
            kill=group,
        ),
    )


def judge(
    way: Way, outcomes: CallOutcomes, stored: Sequence[str] | None, state: Mapping[str, Any]
) -> tuple[Sums, list[str]]:
    """Return the sums after the kill, and what is wrong with them.

    Call results come from the ledger, stored events from the database. `lost` events were accepted
    and are not stored; they must not be more than the killed processes had in memory. A call that
    was cut off may have stored its event or not.
    """
    if stored is None:
        return Sums(0, 0, 0, 0), []
    there = frozenset(stored)
    lost = len(outcomes.accepted - there)
    unaccounted = {key: state.get(key, 0) for key in ("quarantined", "pending")}
    sums = Sums(
        attempted=len(outcomes.accepted) + len(outcomes.refused),
        accepted=len(outcomes.accepted),
        refused=len(outcomes.refused),
        stored=len(outcomes.accepted & there),
        lost=lost - sum(unaccounted.values()),
        **unaccounted,
    )
    problems = sums.problems()
    if lost > way.lost_max:
        problems.append(f"{lost:,} accepted events are not stored; at most {way.lost_max:,} may be")
    if twice := len(stored) - len(there):
        problems.append(f"{twice:,} events are stored twice")
    if unexpected := there - outcomes.accepted - outcomes.cut:
        problems.append(
            f"{len(unexpected):,} events are stored that were refused or never attempted"
        )
    if state.get("lost"):
        problems.append(f"logd has {state['lost']:,} events in its loss ledger")
    return sums, problems


def pool(rounds: Sequence[Measured]) -> Measured:
    """Pool the rounds of one way: all calls, the median speed, every problem."""
    sums = [asdict(one.sums) for one in rounds]
    return Measured(
        name=rounds[0].name,
        label=rounds[0].label,
        flush_ms=rounds[0].flush_ms,
        calls_ns=[ns for one in rounds for ns in one.calls_ns],
        per_s=median(one.per_s for one in rounds),
        sums=Sums(**{key: sum(one[key] for one in sums) for key in sums[0]}),
        cut=sum(one.cut for one in rounds),
        problems=[problem for one in rounds for problem in one.problems],
    )
