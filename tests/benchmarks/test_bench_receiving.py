"""The ways of receiving: each of them stores everything once, also the experiments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness.emitter import Load
from benchmarks.harness.processes import temporary_directory
from benchmarks.harness.slow_flush import NoCompiler, environment
from benchmarks.ingest.receiving import Run, finish, measure, middle, reading, show
from benchmarks.ingest.ways import LABELS, WAYS

RUN = Run(
    way="one",
    load="1 emitter, flat out",
    rate_per_s=0,
    flush_ms=0,
    stored=1000,
    stored_per_s=50_000.0,
    cpu_s_per_100k=1.0,
    outbox_share=0.9,
    ignored=3,
    commits=4,
    call_p50_ns=5000,
    call_p99_ns=9000,
    refused=0,
    problems=[],
)


@pytest.mark.long(minutes=1)
@pytest.mark.parametrize("way", WAYS)
def test_a_way_of_receiving_stores_every_event_once(way: str) -> None:
    with temporary_directory(None) as place:
        run = measure(way, Load(emitters=2, events=4000), 0, place / "run")
    assert run.problems == []
    assert run.stored == 4002  # and one login of each emitter


@pytest.mark.long(minutes=1)
def test_a_slow_flush_is_felt() -> None:
    with temporary_directory(None) as place:
        try:
            environment(place, 1)
        except NoCompiler as reason:
            pytest.skip(str(reason))
        run = measure("two", Load(emitters=1, events=100, rate=1000), 60, place / "run")
    assert run.problems == []
    assert run.commits < 10


def test_without_a_compiler_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment(tmp_path, 0) == {}
    with pytest.raises(NoCompiler, match="C compiler"):
        environment(tmp_path, 80)


def test_of_several_runs_the_middle_counts_and_no_problem_is_forgotten() -> None:
    runs = [replace(RUN, stored_per_s=speed) for speed in (30.0, 10.0, 20.0)]
    runs[1] = replace(runs[1], problems=["one too many"])
    assert middle(runs).stored_per_s == 20.0
    assert middle(runs).problems == ["one too many"]


def test_a_wrong_sum_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish([RUN]) == 0
    assert finish([RUN, replace(RUN, way="two", problems=["2 lost"])]) == 1
    assert "two threads, 1 emitter, flat out: 2 lost" in capsys.readouterr().err


def test_table_and_reading_hold_every_way() -> None:
    runs = [replace(RUN, way=way, stored_per_s=25_000.0 * n) for n, way in enumerate(WAYS, 2)]
    text = show(runs)
    assert all(label in text for label in LABELS.values())
    assert "With two threads, against one thread: flat out 1.50 x the events/s" in reading(runs)
