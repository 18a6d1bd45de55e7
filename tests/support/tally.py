"""Totals of the fault tests, printed as a table at the end of the run.

Each test adds its counts through the `tally` fixture. This plugin collects them, also from the
worker processes of a parallel run, and prints a row for each test file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.support.instance import check_sums

COLUMNS = (
    "seeds", "kills", "attempted", "accepted", "refused",
    "stored", "quarantined", "pending", "lost", "twice", "out of order",
)  # fmt: skip


# Printed below the table: accepted in calls that were cut short; lost by clients without an outbox.
EXTRAS = ("unheard", "lost without outbox")


class Tally:
    """The counts of one test.

    `accepted` counts calls that returned True. A call that is cut short may store one more event,
    which `unheard` counts.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys((*COLUMNS, *EXTRAS), 0)
        self.lines: list[str] = []

    def add(self, **counts: int) -> None:
        """Adds to the columns; `out_of_order` is the last one."""
        for name, count in counts.items():
            self.counts[name.replace("_", " ")] += count

    def say(self, line: str) -> None:
        """Adds a line below the table."""
        self.lines.append(line)

    def account(
        self,
        status: dict[str, Any],
        events: list[dict[str, Any]],
        *,
        attempted: int,
        accepted: int,
        refused: int = 0,
        killed: int = 0,
        kills: int = 0,
        seeds: int = 0,
    ) -> None:
        """Checks both sums and the order of `events` (oldest first), and adds the counts.

        `killed` bounds the calls that a kill cut short; `status` is the JSON of `logd status`.
        """
        twice, out_of_order = disorder(events)
        self.add(
            seeds=seeds,
            kills=kills,
            attempted=attempted,
            accepted=accepted,
            refused=refused,
            stored=status["stored"],
            quarantined=status["quarantined_events"],
            pending=status["pending"],
            lost=status["lost"] + status["lost_claimed"],
            twice=twice,
            out_of_order=out_of_order,
        )
        check_sums(status, attempted=attempted, accepted=accepted, refused=refused, killed=killed)
        accounted = ("stored", "quarantined_events", "pending", "lost", "lost_claimed")
        self.counts["unheard"] += sum(status[name] for name in accounted) - accepted - status["own"]
        assert (twice, out_of_order) == (0, 0)


def disorder(events: list[dict[str, Any]]) -> tuple[int, int]:
    """The number of events stored twice, and of those after a later one of their producer."""
    seen: set[tuple[str, int]] = set()
    last: dict[str, int] = {}
    twice = out_of_order = 0
    for event in events:
        producer, sequence = event["producer"], event["sequence"]
        if (producer, sequence) in seen:
            twice += 1
        elif sequence < last.get(producer, 0):
            out_of_order += 1
        seen.add((producer, sequence))
        last[producer] = max(sequence, last.get(producer, 0))
    return twice, out_of_order


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """The counts of this test, for the table at the end of the run."""
    made = Tally()
    yield made
    request.node.user_properties.append(("tally", (made.counts, made.lines)))


class _Table:
    def __init__(self) -> None:
        self.rows: dict[str, dict[str, int]] = {}
        self.lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == "tally":
                counts, lines = cast(tuple[dict[str, int], list[str]], value)
                row = self.rows.setdefault(report.location[0], dict.fromkeys(counts, 0))
                for column, count in counts.items():
                    row[column] += count
                self.lines += lines

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.rows:
            return
        out = terminalreporter
        out.section("under faults")
        width = max(len(name) for name in self.rows)
        out.write_line(" " * width + "".join(f"{column:>13}" for column in COLUMNS))
        total = dict.fromkeys((*COLUMNS, *EXTRAS), 0)
        for name, row in sorted(self.rows.items()):
            out.write_line(f"{name:{width}}" + "".join(f"{row[column]:>13,}" for column in COLUMNS))
            for column, count in row.items():
                total[column] += count
        out.write_line(f"{'all':{width}}" + "".join(f"{total[c]:>13,}" for c in COLUMNS))
        if total["unheard"]:
            out.write_line(
                f"{total['unheard']:,} more were accepted in calls that a kill or a raise cut "
                "short, so that no caller knows of them: they are among the stored."
            )
        if total["lost without outbox"]:
            out.write_line(
                f"of the lost, {total['lost without outbox']:,} were sent by clients without an "
                "outbox in scenes of kills; the ledger has each of them. "
                "Clients with an outbox lost none there."
            )
        for line in self.lines:
            out.write_line(line)


class _Lengths:
    """Prints how long the chosen long tests will take, before the first one."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        minutes = [
            mark.kwargs["minutes"] for item in session.items for mark in item.iter_markers("long")
        ]
        if minutes and reporter is not None:
            reporter.write_line(
                f"{len(minutes)} long tests, about {sum(minutes):,.0f} minutes on two cores"
            )


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest."""
    config.pluginmanager.register(_Table())
    config.pluginmanager.register(_Lengths())
