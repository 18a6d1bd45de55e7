"""The results of `ingest`: figures, sums, tables and pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.harness.targets import TARGETS
from benchmarks.ingest import tables
from benchmarks.ingest.results import cpu, figures, problems, rows
from benchmarks.ingest.run import (
    EMITTING,
    HELD_UP,
    Window,
)
from tests.benchmarks.ingest_samples import BARE, DAEMON, QUEUE, RAW, results_of_a_run


def test_the_figures_are_medians_of_the_rounds_ratios() -> None:
    fast = replace(DAEMON, window=Window(HELD_UP, 2, 9, 800, 0.005))
    slow_bare = replace(BARE, seconds=0.01)
    # 80,000/s against 160,000/s; 160,000/s against 80,000/s; 80,000/s against 80,000/s.
    pairs = [(DAEMON, BARE), (fast, slow_bare), (DAEMON, slow_bare)]
    found = figures(results_of_a_run(pairs=pairs))
    assert found["ingest.over_bulk_insert"] == pytest.approx(1.0)
    assert found["ingest.events_s"] == pytest.approx(80_000)
    assert found["ingest.bulk_events_s"] == pytest.approx(80_000)
    assert found["ingest.slow_flush_events_s"] == pytest.approx(40_000)
    assert found["ingest.slow_flush_over_queue"] == pytest.approx(400)
    assert found["ingest.resident_mib"] == 64.1  # rounded up


def test_every_target_has_its_figure() -> None:
    needed = {one.figure for one in TARGETS if one.part == "ingest"}
    assert needed <= set(figures(results_of_a_run()))


def test_every_wrong_sum_is_reported_with_its_run() -> None:
    assert problems(results_of_a_run()) == []
    lossy = replace(DAEMON, problems=["2 lost"])
    found = problems(
        results_of_a_run(
            pairs=[(lossy, replace(BARE, stored=799)), (DAEMON, replace(BARE, events=8, stored=8))],
            raws=[replace(RAW, received=99)],
            slow=[replace(DAEMON, flush_ms=80, problems=["1 pending"])],
            queues={("kept", "FULL"): [replace(QUEUE, stored=14)]},
        )
    )
    assert [text.partition(":")[0] for text in found] == [
        *("logd, 4 producers", "logd, 4 producers, flushes + 80 ms"),
        *("bare insert, 4 producers", "bare insert, 4 producers"),
        *("queue, kept FULL", "raw datagrams"),
    ]


def test_every_row_has_its_sums() -> None:
    found = rows(results_of_a_run())
    assert len(found) == 2 * 2 + 1 + 1 + 2 + 1
    for row in found:
        assert {"attempted", "accepted", "refused", "stored", "pending", "lost"} <= set(row)
    json.dumps(found)


def test_the_tables_hold_the_figures() -> None:
    stored = tables.stored(results_of_a_run()).splitlines()[3].split()
    assert stored[:9] == ["4", "1", "80,000", "160,000", "0.50", "0.50", "to", "0.50", "1"]
    assert stored[9:11] == ["of", "1"]
    split = tables.split(cpu(results_of_a_run())).splitlines()
    assert split[-1].split() == ["all", "of", "it", "15", "us", "100%", "10", "us"]
    slow = tables.slow(results_of_a_run()).splitlines()
    assert slow[3].split()[-5:] == ["40,000", "1", "10", "1,000", "right"]
    assert slow[-1].split()[-5:] == ["100", "400", "2", "15", "right"]
    assert "WRONG" not in tables.part(results_of_a_run()).text
    off = results_of_a_run(pairs=[(replace(DAEMON, problems=["2 lost"]), BARE)])
    assert tables.stored(off).count("WRONG") == 1


def test_runs_whose_outboxes_were_not_full_are_counted() -> None:
    emitting = replace(DAEMON, window=replace(DAEMON.window, when=EMITTING))
    assert "1 of 2" in tables.stored(results_of_a_run(pairs=[(emitting, BARE), (DAEMON, BARE)]))


def test_the_pictures_hold_their_figures() -> None:
    pictures = {one.name: one.svg.decode() for one in tables.part(results_of_a_run()).plots}
    assert set(pictures) == {"ingest-events", "ingest-cpu"}
    assert "80,000" in pictures["ingest-events"]
    for name in ("send", "insert", "decode", "rest"):
        assert name in pictures["ingest-cpu"]
