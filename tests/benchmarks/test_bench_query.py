"""`query`: every report of the site is asked, both trails get the same, and all sums hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.growth import asking, history, query, query_text, storage
from benchmarks.growth.asking import Asked
from benchmarks.growth.backlog import Pair, Taken, cpu_ratio, per_100k, ratio
from benchmarks.growth.query_text import Measured
from benchmarks.growth.storage import Storage
from benchmarks.harness.part import Part
from benchmarks.harness.processes import temporary_directory
from benchmarks.harness.sums import Sums
from webapp.classroom.model.analytics import Unavailable

RIGHT = Sums(attempted=11, accepted=11, refused=0, stored=11)
TAKEN = Taken(10, 100, 1000.0, 2.0, 1, RIGHT, [])
STORAGE = Storage(100, 200.0, 400.0, 250.0, 50, 3_000_000)


def asked(label: str, p95_ms: int, refused: str = "") -> Asked:
    return Asked(label, 5, 9_000_000, [p95_ms * 10**6] * 3, refused)


def measured(size: int = 10**5, *more: Asked) -> Measured:
    return Measured(size, STORAGE, [asked("summary", 2), asked("events: a day", 30), *more])


@pytest.fixture(scope="module")
def tiny() -> tuple[Part, int]:
    """One real run over a very small trail, and the steps that it told of."""
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


@pytest.mark.long(minutes=1)
def test_every_report_answers_and_every_sum_is_right(tiny: tuple[Part, int]) -> None:
    part, steps_off = tiny
    assert (part.problems, steps_off) == ([], 0)
    reports = [row for row in part.rows if row["what"] == "report"]
    assert len(reports) == asking.CASES
    assert not any(row["refused"] for row in reports)
    rows = {row["report"]: row["rows"] for row in reports}
    assert rows["daily_activity: a class"] == asking.DAYS
    assert rows["events: export of 200"] == asking.EXPORT_ROWS
    assert rows["events: a user"] > 0
    assert rows["events: before all of it (none)"] == 0
    assert rows["completions: a class"] == rows["completions: all students"]


@pytest.mark.long(minutes=1)
def test_both_trails_store_the_same_backlog(tiny: tuple[Part, int]) -> None:
    rows = [row for row in tiny[0].rows if row["what"] == "ingest"]
    assert [row["trail"] for row in rows] == ["empty", "full"] * 2
    for row in rows:
        assert row["stored"] == row["accepted"] == row["attempted"] == 301
        assert row["pending"] == row["lost"] == row["quarantined"] == 0
        assert (row["stored_before"] == 0) == (row["trail"] == "empty")


@pytest.mark.long(minutes=1)
def test_the_figures_that_targets_need_are_there(tiny: tuple[Part, int]) -> None:
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


def test_the_slowest_report_is_named_and_one_without_an_answer_too() -> None:
    text = query_text.text(
        [measured(10**5, asked("events: never", 2000, "too slow."))], [pair()], 9
    )
    assert "the slowest is events: never: p95 2.00 s" in text
    assert "Not answered, (no) in the table: events: never: too slow." in text
    assert "the slowest is events: a day: p95 30 ms" in query_text.said_of_reports([measured()])


def pair(empty: float = 1000.0, full: float = 900.0) -> Pair:
    return Pair(replace(TAKEN, stored_per_s=empty), replace(TAKEN, stored_per_s=full))


def test_ingest_is_the_median_of_ratios_of_one_round_each() -> None:
    pairs = [pair(1000, 900), pair(100, 80), pair(10, 20)]
    assert ratio(pairs) == 0.9
    assert cpu_ratio(pairs) == 1.0
    assert (
        "0.90 x the events/s (the median of 3 rounds; 0.80 to 2.00)"
        in query_text.said_of_ingest(10**7, pairs)
    )


def test_a_backlog_that_took_no_whole_tick_of_the_processor_makes_a_ratio_all_the_same() -> None:
    none = replace(TAKEN, cpu_s_per_100k=per_100k(0.0, 300))
    assert cpu_ratio([Pair(none, none)]) == 1.0
    assert per_100k(2.0, 50_000) == 4.0


def test_a_sum_that_is_off_is_said_with_its_trail() -> None:
    wrong = replace(TAKEN, problems=["1 too many"])
    assert Pair(TAKEN, wrong).problems == ["ingest, full trail: 1 too many"]
    assert "WRONG" in query_text.ingest(10**5, [Pair(wrong, TAKEN)])
    assert "WRONG" not in query_text.ingest(10**5, [pair()])


def test_figures_without_a_size_are_of_the_largest() -> None:
    sizes = [measured(), measured(10**6, asked("event_types", 70))]
    figures = query.figures(sizes, [pair()], 100.0)
    assert figures["query.slowest_report_p95_ms"] == 70
    assert figures["query.slowest_report_p95_ms_at_1e5"] == 30
    assert figures["query.slowest_report_p95_ms_at_1e6"] == 70
    assert figures["query.stored_over_jsonl_bytes"] == 0.5


def test_bytes_with_one_event_to_a_commit_are_said() -> None:
    said = query_text.said_of_storage(STORAGE, 100.0)
    assert "A commit takes 100 bytes by itself" in said
    assert "an event takes 300 bytes, 0.75 of its JSON line and 1.20 of a lean one" in said


def test_what_logd_refuses_is_asked_no_more_than_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = asking.Site(tmp_path / "nobody.sock", history.History(1000, 1_790_000_000 * 10**9))
    file = tmp_path / "a.db"
    file.write_bytes(b"x")
    calls: list[int] = []

    def refuse(_analytics: object) -> Unavailable:
        calls.append(1)
        return Unavailable("not now.")

    monkeypatch.setattr(site, "cases", lambda: [asking.Case("events", "never", refuse)])
    (one,) = asking.measure(site, file, 20, lambda _case: None)
    assert (len(calls), one.refused, one.rows) == (2, "not now.", 0)


def test_what_only_the_cold_disk_holds_up_is_asked_as_often_as_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = asking.Site(tmp_path / "nobody.sock", history.History(1000, 1_790_000_000 * 10**9))
    file = tmp_path / "a.db"
    file.write_bytes(b"x")
    answers = iter([Unavailable("too slow."), *([[1, 2]] * 20)])
    case = asking.Case("events", "at first", lambda _analytics: next(answers))
    monkeypatch.setattr(site, "cases", lambda: [case])
    (one,) = asking.measure(site, file, 20, lambda _case: None)
    assert (len(one.warm_ns), one.refused, one.rows) == (20, "", 2)


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    site = asking.Site(tmp_path / "nobody.sock", history.History(1000, 1_790_000_000 * 10**9))
    with pytest.raises(asking.Refused, match="does not answer"):
        site.ask(site.cases()[0])
