"""`recovery`: a daemon restarts under load, the next one stores the backlog, and all sums hold."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.growth import history, recovery, recovery_tables
from benchmarks.growth.recovery_tables import Measured
from benchmarks.growth.restart import FLAT_OUT, KILL, STEADY, STOP, Restart
from benchmarks.harness.emitter import Load
from benchmarks.harness.part import Part
from benchmarks.harness.processes import temporary_directory
from benchmarks.harness.sums import Sums

RIGHT = Sums(attempted=8, accepted=8, refused=0, stored=8)
RESTART = Restart(KILL, str(STEADY), 100, 0.01, 5, 0.3, 0.2, RIGHT, [])
RESTARTS = [
    RESTART,
    replace(RESTART, ready_s=0.5, first_commit_s=0.4),
    replace(RESTART, ready_s=0.9),
    replace(RESTART, load=str(FLAT_OUT), ready_s=2.0),
    replace(RESTART, how=STOP, ended_s=0.7, ready_s=0.25),
]


@pytest.fixture(scope="module")
def tiny() -> Part:
    load = Load(emitters=1, events=600, rate=1000)
    with pytest.MonkeyPatch.context() as patch, temporary_directory(None) as place:
        patch.setattr(history, "_built", {})
        patch.setattr(recovery, "SIZES", (1000,))
        patch.setattr(recovery, "PLAN", ((KILL, load), (STOP, load)))
        patch.setattr(recovery_tables, "STEADY", load)
        patch.setattr(recovery_tables, "FLAT_OUT", load)
        return recovery.run(place, False, lambda _now, _steps: None)


@pytest.mark.long(minutes=0.2)
def test_every_event_around_a_restart_is_stored_once(tiny: Part) -> None:
    assert tiny.problems == []
    assert [row["how"] for row in tiny.rows] == [KILL, STOP]
    for row in tiny.rows:
        # The load, its login, and the two events of the probe.
        assert row["attempted"] == row["accepted"] == row["stored"] == 603
        assert row["pending"] == row["lost"] == row["quarantined"] == 0


@pytest.mark.long(minutes=0.2)
def test_times_count_from_the_start_of_the_next_daemon(tiny: Part) -> None:
    for row in tiny.rows:
        assert 0 < row["first_commit_s"] < 60
        assert 0 < row["ready_s"] < 60
    assert tiny.rows[1]["stored_before"] == tiny.rows[0]["stored_before"] + 603
    assert b"<script" not in tiny.plots[0].svg


def test_figures_are_medians_at_the_largest_size() -> None:
    sizes = [
        Measured(10**5, [replace(one, ready_s=9.0) for one in RESTARTS]),
        Measured(10**6, RESTARTS),
    ]
    figures = recovery.figures(sizes)
    assert figures["recovery.ready_s"] == 0.5
    assert figures["recovery.ready_s_at_1e5"] == 9.0
    assert figures["recovery.ready_flat_out_s"] == 2.0
    assert figures["recovery.first_commit_s"] == 0.2
    assert figures["recovery.stop_s"] == 0.7


def test_the_table_has_every_end_and_marks_a_wrong_sum() -> None:
    one = Measured(10**5, [*RESTARTS[:-1], replace(RESTARTS[-1], problems=["2 lost"])])
    text = recovery_tables.show([one])
    assert text.count(KILL) == 4
    assert re.search(r"clean stop .* 700 ms +5 +250 ms +200 ms .* WRONG$", text)
    assert text.count("WRONG") == 1
    assert one.problems == [f"{STOP}, {STEADY}, 10^5 events: 2 lost"]
