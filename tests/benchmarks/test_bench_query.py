"""`query`: every report of the site is measured, both trails get the same backlog, sums hold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.growth import history, query, query_tables, report_times, storage
from benchmarks.growth.backlog import Pair, StoredBacklog, cpu_ratio, per_100k, ratio
from benchmarks.growth.query_tables import Measured
from benchmarks.growth.report_times import ReportTimes
from benchmarks.growth.storage import Storage
from benchmarks.harness.part import Part
from benchmarks.harness.processes import temporary_directory
from benchmarks.harness.sums import Sums
from webapp.classroom.model.reports import Unavailable

RIGHT = Sums(attempted=11, accepted=11, refused=0, stored=11)
STORED = StoredBacklog(10, 100, 1000.0, 2.0, 1, RIGHT, [])
STORAGE = Storage(100, 200.0, 400.0, 250.0, 50, 3_000_000)


def report(label: str, p95_ms: int, refused: str = "") -> ReportTimes:
    return ReportTimes(label, 5, 9_000_000, [p95_ms * 10**6] * 3, refused)


def measured(size: int = 10**5, *more: ReportTimes) -> Measured:
    return Measured(size, STORAGE, [report("summary", 2), report("events: a day", 30), *more])


@pytest.fixture(scope="module")
def tiny() -> tuple[Part, int]:
    """Run once over a very small trail; return the part, and how far its steps are off."""
    done: list[int] = []
    with pytest.MonkeyPatch.context() as patch, temporary_directory(None) as place:
        patch.setattr(history, "_built", {})
        patch.setattr(query, "SIZES", (3000,))
        patch.setattr(query, "ROUNDS", 2)
        patch.setattr(query, "TIMES", 2)
        patch.setattr(query, "BACKLOG_EVENTS", 300)
        patch.setattr(storage, "SINGLY_EVENTS", 200)
        part = query.run(place, False, lambda _now, steps: done.append(steps))
        return part, sum(done) - query.steps(False)


@pytest.mark.long(minutes=0.2)
def test_every_report_answers_and_every_sum_is_right(tiny: tuple[Part, int]) -> None:
    part, steps_off = tiny
    assert (part.problems, steps_off) == ([], 0)
    reports = [row for row in part.rows if row["what"] == "report"]
    assert len(reports) == report_times.CASES
    assert not any(row["refused"] for row in reports)
    rows = {row["report"]: row["rows"] for row in reports}
    assert rows["daily_activity: a class"] == report_times.DAYS
    assert rows["events: export of 200"] == report_times.EXPORT_ROWS
    assert rows["events: a user"] > 0
    assert rows["events: before all of it (none)"] == 0
    assert rows["completions: a class"] == rows["completions: all students"]


@pytest.mark.long(minutes=0.2)
def test_both_trails_store_the_same_backlog(tiny: tuple[Part, int]) -> None:
    rows = [row for row in tiny[0].rows if row["what"] == "ingest"]
    assert [row["trail"] for row in rows] == ["empty", "full"] * 2
    for row in rows:
        assert row["stored"] == row["accepted"] == row["attempted"] == 301
        assert row["pending"] == row["lost"] == row["quarantined"] == 0
        assert (row["stored_before"] == 0) == (row["trail"] == "empty")


@pytest.mark.long(minutes=0.2)
def test_every_target_has_its_figure(tiny: tuple[Part, int]) -> None:
    part = tiny[0]
    assert {
        "query.slowest_report_p95_ms",
        "query.slowest_report_p95_ms_at_3e3",
        "query.ingest_full_over_empty",
        "query.stored_over_jsonl_bytes",
        "query.open_ms",
    } <= set(part.figures)
    (stored,) = [row for row in part.rows if row["what"] == "storage"]
    # A JSON line with every field is longer than one with four of them.
    assert stored["jsonl_bytes"] > stored["lean_bytes"] > 150
    assert part.figures["query.commit_bytes"] > 64  # two hashes at least
    (plot,) = part.plots
    assert b"<script" not in plot.svg


def test_a_report_without_an_answer_is_marked() -> None:
    never = report("events: never", 2000, "too slow.")
    text = query_tables.text([measured(10**5, never)], [pair()])
    assert re.search(r"events: never +5 +\(no\) 9 ms +\(no\) 2.00 s +\(no\) 2.00 s", text)
    assert re.search(r"events: a day +5 +9 ms +30 ms +30 ms", text)
    assert measured(10**5, never).slowest is never


def pair(empty: float = 1000.0, full: float = 900.0) -> Pair:
    return Pair(replace(STORED, stored_per_s=empty), replace(STORED, stored_per_s=full))


def test_ingest_is_the_median_of_the_rounds_ratios() -> None:
    pairs = [pair(1000, 900), pair(100, 80), pair(10, 20)]
    assert ratio(pairs) == 0.9
    assert cpu_ratio(pairs) == 1.0


def test_a_backlog_of_less_than_one_cpu_tick_still_has_a_ratio() -> None:
    none = replace(STORED, cpu_s_per_100k=per_100k(0.0, 300))
    assert cpu_ratio([Pair(none, none)]) == 1.0
    assert per_100k(2.0, 50_000) == 4.0


def test_a_wrong_sum_is_reported_with_its_trail() -> None:
    wrong = replace(STORED, problems=["1 too many"])
    assert Pair(STORED, wrong).problems == ["ingest, full trail: 1 too many"]
    assert "WRONG" in query_tables.ingest(10**5, [Pair(wrong, STORED)])
    assert "WRONG" not in query_tables.ingest(10**5, [pair()])


def test_figures_without_a_size_are_of_the_largest() -> None:
    sizes = [measured(), measured(10**6, report("event_types", 70))]
    figures = query.figures(sizes, [pair()], 100.0)
    assert figures["query.slowest_report_p95_ms"] == 70
    assert figures["query.slowest_report_p95_ms_at_1e5"] == 30
    assert figures["query.slowest_report_p95_ms_at_1e6"] == 70
    assert figures["query.stored_over_jsonl_bytes"] == 0.5


def test_a_refused_report_is_requested_at_most_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = report_times.Site(
        tmp_path / "no-daemon.sock", history.History(1000, 1_790_000_000 * 10**9)
    )
    file = tmp_path / "a.db"
    file.write_bytes(b"x")
    calls: list[int] = []

    def refuse(_analytics: object) -> Unavailable:
        calls.append(1)
        return Unavailable("not now.")

    monkeypatch.setattr(site, "cases", lambda: [report_times.Case("events", "never", refuse)])
    (one,) = report_times.measure(site, file, 20, lambda _case: None)
    assert (len(calls), one.refused, one.rows) == (2, "not now.", 0)


def test_a_report_refused_only_when_cold_is_measured_like_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = report_times.Site(
        tmp_path / "no-daemon.sock", history.History(1000, 1_790_000_000 * 10**9)
    )
    file = tmp_path / "a.db"
    file.write_bytes(b"x")
    answers = iter([Unavailable("too slow."), *([[1, 2]] * 20)])
    case = report_times.Case("events", "at first", lambda _analytics: next(answers))
    monkeypatch.setattr(site, "cases", lambda: [case])
    (one,) = report_times.measure(site, file, 20, lambda _case: None)
    assert (len(one.warm_ns), one.refused, one.rows) == (20, "", 2)


def test_without_a_daemon_a_report_is_refused(tmp_path: Path) -> None:
    site = report_times.Site(
        tmp_path / "no-daemon.sock", history.History(1000, 1_790_000_000 * 10**9)
    )
    with pytest.raises(report_times.Refused, match="does not answer"):
        site.ask(site.cases()[0])
