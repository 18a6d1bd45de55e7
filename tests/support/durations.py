"""Recorded CPU times of tests: files are started dearest first, and slow tests are marked.

`make test-durations` writes `durations.tsv`: the CPU seconds, children included, of each file that
takes `SLOW_MIN_S` or more, and of each such function (all its parameters) that starts no processes.
A parallel run starts the dearest files first, so that no worker begins a long one at the end.
A function that is listed is marked `slow`, and `make test-fast` leaves it out.
"""

from __future__ import annotations

import collections
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

FILE = Path(__file__).with_suffix(".tsv")
SLOW_MIN_S = 0.5
_STARTED = pytest.StashKey[float]()


def read(text: str) -> dict[str, float]:
    """The CPU seconds of each file and test function, by node id without parameters."""
    rows = (line.split("\t") for line in text.splitlines())
    return {name: float(seconds) for seconds, name in rows}


def written(seconds: Mapping[str, float]) -> str:
    """The file's text: dearest first, without what is quick."""
    rows = sorted(seconds.items(), key=lambda row: (-round(row[1], 1), row[0]))
    return "".join(f"{cost:.1f}\t{name}\n" for name, cost in rows if cost >= SLOW_MIN_S)


def function(node_id: str) -> str:
    """A node id without parameters."""
    return node_id.partition("[")[0]


def arrange(items: list[pytest.Item], seconds: Mapping[str, float]) -> None:
    """Sorts files dearest first, tests of a file as they were, and marks what is slow."""
    items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0.0))
    for item in items:
        if seconds.get(function(item.nodeid), 0.0) >= SLOW_MIN_S:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called by pytest, before tests are chosen by their marks."""
    arrange(items, read(FILE.read_text()))


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Called by pytest."""
    item.stash[_STARTED] = _cpu_s()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Called by pytest."""
    try:
        return (yield)
    finally:
        item.user_properties.append(("cpu_s", _cpu_s() - item.stash[_STARTED]))


class _Recorder:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == "cpu_s":
                    self.seconds[report.nodeid.partition("::")[0]] += float(str(value))
                    if "processes" not in report.keywords:
                        self.seconds[function(report.nodeid)] += float(str(value))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        FILE.write_text(written(self.seconds))
        total = sum(cost for name, cost in self.seconds.items() if "::" not in name)
        terminalreporter.write_line(f"{total:.0f} s of CPU time, recorded in {FILE.name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Called by pytest."""
    parser.addoption("--record-durations", action="store_true", help="write durations.tsv anew")


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest."""
    if config.getoption("--record-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder())
