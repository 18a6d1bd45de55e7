"""`request`: what a killed web process loses; a row with a wrong sum fails the run."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from benchmarks.harness.processes import Failed, temporary_directory
from benchmarks.harness.sums import Sums
from benchmarks.request import access_log, one_way, throughput
from benchmarks.request import measure as request
from benchmarks.request.ledger import CallOutcomes, Ledger
from benchmarks.request.load import Answers, Loader, Task, TaskRun, loading
from benchmarks.request.one_way import Measured, Tools, judge, measure, pool
from benchmarks.request.server import Order, serving
from benchmarks.request.throughput import Throughput
from benchmarks.request.ways import WAYS, Way

RIGHT = Sums(attempted=4, accepted=4, refused=0, stored=4)
COMPARED = Throughput(
    "classroom", "a lesson", [90.0, 99.0], [100.0, 100.0], 3e6, 2e6, 1e5, RIGHT, []
)
OUTCOMES = CallOutcomes(frozenset({"1-0", "1-1"}), frozenset({"1-2"}), frozenset({"1-3"}))
STATE = {"stored": 2, "quarantined": 0, "pending": 0, "lost": 0}


def measured(name: str, flush_ms: int = 0, sums: Sums = RIGHT) -> Measured:
    return Measured(name, WAYS[name].label, flush_ms, [1000, 3000], 100.0, sums, 1, sums.problems())


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with temporary_directory(None) as place:
        yield place


@pytest.fixture(scope="module")
def tools(place: Path) -> Iterator[Tools]:
    with serving(place, "server", {}) as server, loading() as loader:
        yield Tools(loader, {0: server})


@pytest.mark.long(minutes=0.2)
# Ways that may lose nothing at a kill, and ways that may.
@pytest.mark.parametrize("name", ["sync-new-raw-wal", "queue-kept", "process", "jsonl", "logd"])
def test_a_way_under_load_is_killed_and_its_sum_is_right(
    name: str, place: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_way, "QUIET_S", 0.05)
    row = measure(replace(WAYS[name], load_s=0.1), 0, {}, place / name, tools)
    assert row.problems == []
    assert row.sums.accepted > 0
    assert row.per_s > 0
    if WAYS[name].lost_max == 0:
        assert row.survived == 1.0


@pytest.mark.skipif(access_log.program() is None, reason=access_log.MISSING)
def test_an_access_log_survives_the_web_processes(
    place: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_way, "QUIET_S", 0.05)
    row = measure(replace(WAYS["nginx"], load_s=0.1), 0, {}, place / "nginx", tools)
    assert row.problems == []
    assert row.sums.stored > 0


def test_the_kill_ends_the_whole_site_under_load(place: Path, tools: Tools) -> None:
    (place / "end").mkdir()
    way = WAYS["sync-new-passphrase-wal"]  # no page is answered at once
    way.prepare(place / "end")
    with tools.servers[0].site(Order(way.name, str(place / "end"))) as site:
        task = Task(site.port, connections=4, least_s=0.05, kill=site.group)
        answers = tools.loader.run(task)
        assert answers.problems == []
        assert answers.in_time >= 1
        assert Ledger(place / "end").outcomes().cut
        # Its socket may exist a moment longer, but no process answers.
        with contextlib.suppress(Failed):
            assert tools.loader.run(Task(site.port, 1, least_s=0.0)).answered == []


@pytest.mark.long(minutes=0.2)
def test_the_classroom_stores_every_page_that_was_answered(
    place: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "TURN_S", 0.05)
    monkeypatch.setattr(throughput, "WARM_UP_S", 0.05)
    found = throughput.measure_classroom(place / "classroom", tools.servers[0], tools.loader, 2)
    assert found.problems == []
    assert found.sums.stored > 0
    assert len(found.ratios) == 2


def test_a_site_that_cannot_start_fails_the_run_with_its_error(place: Path) -> None:
    with (
        pytest.raises(Failed, match="unknown way of logging"),
        serving(place, "bad", {}) as server,
        loading() as loader,
        server.site(Order("telepathy", str(place))) as site,
    ):
        loader.run(Task(site.port, connections=1, least_s=0.0, requests_max=1))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"])
def test_a_site_that_closes_every_connection_fails_the_load(
    answer: bytes,
) -> None:
    class Here:  # the load, without a process of its own
        def send(self, task: Task) -> None:
            self.task = task

        def recv(self) -> Answers:
            return TaskRun(self.task).run()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    task = Task(int(listener.getsockname()[1]), connections=1, least_s=0.0, requests_max=1)
    thread = threading.Thread(target=serve)
    thread.start()
    loader = Loader(cast("Connection", Here()))
    if answer:  # an error is an answer: a problem of this page, not of the run
        assert loader.run(task).problems[0] == "the site answers HTTP/1.1 500 Oh"
    else:
        with pytest.raises(Failed, match="the site answers no page: a page was not answered"):
            loader.run(task)
    thread.join()


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (["1-0", "1-1"], None),
        (["1-0", "1-1", "1-3"], None),  # the call that was cut off had stored its event
        (["1-0"], "1 accepted events are not stored; at most 0 may be"),
        (["1-0", "1-1", "1-1"], "1 events are stored twice"),
        (["1-0", "1-1", "1-2"], "1 events are stored that were refused or never attempted"),
        (["1-0", "1-1", "9-9"], "1 events are stored that were refused or never attempted"),
    ],
)
def test_stored_events_are_compared_with_the_results_of_calls(
    stored: list[str], problem: str | None
) -> None:
    sums, problems = judge(WAYS["logd"], OUTCOMES, stored, STATE)
    assert problems == ([] if problem is None else [problem])
    assert (sums.attempted, sums.accepted, sums.refused) == (3, 2, 1)
    assert sums.lost == 2 - sums.stored


def test_a_queue_may_lose_what_it_held_and_no_more() -> None:
    few = frozenset(f"1-{n}" for n in range(2 * (1000 + 10)))  # two queues, and the batches in hand
    sums, problems = judge(WAYS["queue-kept"], replace(OUTCOMES, accepted=few), [], {})
    assert (sums.lost, problems) == (len(few), [])
    more = few | {"2-0"}
    assert judge(WAYS["queue-kept"], replace(OUTCOMES, accepted=more), [], {})[1]


def test_a_row_in_the_loss_ledger_is_a_problem() -> None:
    _, problems = judge(WAYS["logd"], OUTCOMES, ["1-0", "1-1"], {**STATE, "lost": 3})
    assert problems == ["logd has 3 events in its loss ledger"]


def test_pooled_rounds_keep_every_problem() -> None:
    off = replace(measured("logd"), per_s=300.0, problems=["one too many"])
    pooled = pool([measured("logd"), off])
    assert pooled.calls_ns == [1000, 3000, 1000, 3000]
    assert pooled.sums == Sums(attempted=8, accepted=8, refused=0, stored=8)
    assert (pooled.per_s, pooled.cut, pooled.problems) == (200.0, 2, ["one too many"])


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    assert COMPARED.ratio == pytest.approx(0.945)
    assert COMPARED.ratios == [0.9, 0.99]
    assert COMPARED.cpu_ratio == pytest.approx(3.1 / 2)


def test_the_table_of_the_comparison_has_both_sites() -> None:
    text = throughput.show([COMPARED, replace(COMPARED, label="a page", problems=["1 lost"])])
    rows = text.splitlines()[-2:]
    assert rows[0].startswith("a lesson") and rows[0].endswith("1.55  right")
    assert "0.945 (0.900 to 0.990)" in rows[0]
    assert rows[1].startswith("a page") and rows[1].endswith("WRONG")


def test_only_a_share_of_100_percent_is_shown_as_all() -> None:
    nearly = Sums(attempted=100_000, accepted=100_000, refused=0, stored=99_999, lost=1)
    text = request.show({0: {"queue-kept": measured("queue-kept", sums=nearly)}})
    assert "99.99%" in text
    assert "all" in request.show({0: {"logd": measured("logd")}}).splitlines()[-1]


def fake(monkeypatch: pytest.MonkeyPatch, off: str = "") -> None:
    """Replace everything that starts processes."""

    def stands_in(way: Way, flush_ms: int, *_: object) -> Measured:
        row = measured(way.name, flush_ms)
        return replace(row, problems=["3 lost"]) if way.name == off else row

    monkeypatch.setattr(request, "measure", stands_in)
    monkeypatch.setattr(request, "_tools", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(request, "_compare", lambda *_: [COMPARED, COMPARED])


def test_a_row_with_a_wrong_sum_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, off="jsonl")
    result = CliRunner().invoke(request.main, ["--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "wrong sum: JSON lines, imported later, disk as it is: 3 lost" in result.stderr
    assert "WRONG" in result.stdout


def test_a_comparison_with_a_wrong_sum_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    off = replace(COMPARED, problems=["5 lost"])
    monkeypatch.setattr(request, "_compare", lambda *_: [COMPARED, off])
    result = CliRunner().invoke(request.main, ["--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "wrong sum: a lesson: 5 lost" in result.stderr


def test_missing_programs_are_reported_with_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: None
) -> None:
    fake(monkeypatch)
    monkeypatch.setattr(access_log, "program", lambda: None)
    steps: list[int] = []
    part = request.run(tmp_path, False, lambda _now, done: steps.append(done))
    assert "the package `nginx` brings it" in part.missing[1]
    assert "no C compiler" in part.missing[0]
    assert {row["flush_ms"] for row in part.rows if "flush_ms" in row} == {0}
    assert not any("nginx" in row["name"] for row in part.rows)
    assert sum(steps) == request.steps(False) - 2  # the comparisons, replaced here, would add two


def test_figures_rows_and_picture_hold_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    monkeypatch.setattr(access_log, "program", lambda: "nginx")
    part = request.run(tmp_path, False, lambda *_: None)
    names = {row["name"] for row in part.rows}
    assert names == {*WAYS, "classroom"}
    assert part.figures["request.throughput_over_none"] == pytest.approx(0.945)
    assert part.figures["request.logd_survived_kill"] == 1.0
    svg = part.plots[0].svg.decode()
    assert all(way.label in svg for way in WAYS.values())
    assert not re.search(r"<script|(href|src)=.(https?:)?//", svg)
    assert all(way.label in part.text for way in WAYS.values())


def test_nothing_is_left_in_shared_memory(place: Path, tools: Tools) -> None:
    """Runs last; the directories of outboxes are named after their sockets."""
    del tools
    left = [name for name in os.listdir("/dev/shm") if place.name in name]
    assert left == []
