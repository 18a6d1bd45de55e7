"""`make bench-client`: sums, ratios and tables of a run, and receivers that count."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner

from benchmarks.client import measure as client
from benchmarks.client import sender as client_sender
from benchmarks.client.peers import KINDS, Peer, datagram
from benchmarks.client.plan import (
    FAST,
    LONG,
    PEERS,
    PINNED,
    QUICK,
    WARM_UP,
    Cell,
    Group,
    Size,
    plan,
)
from benchmarks.client.receivers import WAKE_UP, Control, Receiving, cpu_ns, pin, receiver, rsyslog
from benchmarks.client.results import Measured, Results, figures, problems, ratio, row
from benchmarks.client.sender import CellTimes, Orders, calls
from benchmarks.client.tables import plot, show
from benchmarks.harness.processes import Failed, temporary_directory
from benchmarks.harness.sums import Sums
from tests.support.instance import until

TINY = Size(rounds=2, events=200, peer_events=50, fast_events=16, slow_events=1)
STDLIB = ("logd", "raw", "noop", "syslog", "queue")


def measured(
    peer: str = "logd",
    group: str = PEERS,
    rounds_p50_ns: Sequence[int] = (3000, 3200),
    rate: int = 0,
    awake: bool = False,
    **changes: Any,
) -> Measured:
    seen = {
        "rounds_p50_ns": list(rounds_p50_ns),
        "p50_ns": rounds_p50_ns[0],
        "p99_ns": 90_000,
        "p999_ns": 900_000,
        "accepted": 2000,
        "refused": 0,
        "delivered": 2000,
        "sender_cpu_ns": 8_000_000,
        "receiver_cpu_ns": 4_000_000,
    }
    return Measured(group, Cell(peer, 1000, rate, awake=awake), seen | changes)


def a_run() -> Results:
    """Return a run with every figure: emit 3 us, raw send 1.5 us, the queue 2 us, syslog 30 us."""
    cells = [
        measured("logd", PINNED, (3000, 9000)),
        measured("raw", PINNED, (2000, 3000), awake=True),
        measured(),
        measured("raw", rounds_p50_ns=(1500, 1600), awake=True),
        measured("raw", rounds_p50_ns=(8000, 8000)),
        measured("queue", rounds_p50_ns=(2000, 1600)),
        measured("syslog", rounds_p50_ns=(30_000, 32_000)),
    ]
    for peer, flat_out, fast in (("logd", 3000, 6000), ("raw", 1500, 9000), ("noop", 1000, 4000)):
        cells.append(measured(peer, FAST, (flat_out, flat_out)))
        cells.append(measured(peer, FAST, (fast, fast), rate=1000))
    return Results(cells, 80.0)


@pytest.mark.long(minutes=0.2)
def test_a_run_of_few_events_delivers_all_and_every_sum_is_right() -> None:
    steps: list[str] = []
    groups = [group for group in plan(STDLIB, TINY, can_pin=True) if group.name != "10/s"]
    with temporary_directory(None) as place:
        part = client.compare(place / "run", groups, lambda now, _done: steps.append(now))
    assert part.problems == []
    assert len(steps) == sum(group.rounds * len(group.cells) for group in groups)
    for one in part.rows:
        assert one["accepted"] == one["stored"], one
    assert part.rows[-1]["stored"] == sum(r["stored"] for r in part.rows if r.get("peer") == "logd")
    assert set(part.figures) == set(figures(a_run()))
    assert all(value > 0 for value in part.figures.values())
    assert b"<script" not in part.plots[0].svg
    # A receiver has used CPU time; for one that polls, the kernel's count may lag behind.
    asleep = [r for r in part.rows if r.get("peer") in ("logd", "raw") and not r["awake"]]
    assert asleep and all(one["receiver_cpu_ns"] > 0 for one in asleep)


def test_a_ratio_is_the_median_of_what_was_measured_in_the_same_round() -> None:
    drifting = measured(rounds_p50_ns=(3000, 6000, 9000))
    assert ratio(drifting, measured("raw", rounds_p50_ns=(1000, 2000, 9000))) == 3.0
    with pytest.raises(ValueError, match="zip"):
        ratio(drifting, measured("raw", rounds_p50_ns=(1000,)))


def test_every_target_has_its_figure() -> None:
    assert figures(a_run()) == {
        "client.timing_overhead_ns": 80.0,
        "client.emit_over_raw_send_pinned": 2.25,
        "client.emit_over_raw_send": 2.0,
        "client.emit_p50_ns": 3000,
        "client.raw_send_p50_ns": 1500,
        "client.emit_over_best_peer": 1.75,
        "client.emit_1000_over_flat_out": 2.0,
        "client.raw_send_1000_over_flat_out": 6.0,
        "client.noop_1000_over_flat_out": 4.0,
    }


def test_a_figure_that_was_not_measured_is_not_there() -> None:
    assert figures(Results([measured()], 80.0)) == {"client.timing_overhead_ns": 80.0}


def test_the_table_has_every_cell_once_and_marks_a_wrong_sum() -> None:
    few = measured(group=FAST, accepted=500, delivered=500, p50_ns=7777)
    cells = [measured(), few, measured("raw", refused=2000), measured("raw", WARM_UP)]
    text = show([*cells, measured("syslog", delivered=2001)])
    assert "7.78 us" not in text  # the same cell with fewer events
    lines = text.splitlines()[3:]
    assert [line.split()[-1] for line in lines] == ["right", "right", "WRONG"]
    assert "2,000" in lines[1] and "50%" in lines[1]
    assert lines[0].startswith("flat out") and not lines[1].strip().startswith("flat out")


def test_a_quantile_of_few_calls_is_not_shown() -> None:
    text = show([measured(accepted=99, delivered=99)])
    assert "3 us" in text
    assert "90 us" not in text and "900 us" not in text
    assert "90 us" in show([measured(accepted=100, delivered=100)])


def test_every_wrong_sum_is_a_problem() -> None:
    right = Sums(attempted=2000, accepted=2000, refused=0, stored=2000)
    assert problems([measured()], right) == []
    assert problems([measured(delivered=1999)], right) == [
        f"logd, {PEERS}: accepted 2,000 != stored 1,999 + quarantined 0 + pending 0 + lost 0",
        "logd: 1,999 stored in all cells, but 2,000 by its own count",
    ]
    assert problems([measured()], replace(right, stored=1999)) == [
        "logd, all of it: accepted 2,000 != stored 1,999 + quarantined 0 + pending 0 + lost 0",
        "logd: 2,000 stored in all cells, but 1,999 by its own count",
    ]
    peer = measured("datadog", delivered=1500)
    assert problems([measured(), peer], right) == []  # it promises nothing
    assert row(peer)["lost"] == 500
    more = measured("datadog", delivered=2001)
    assert problems([measured(), more], right) == [
        f"datadog, DogStatsD event, {PEERS}: 1 more delivered than accepted"
    ]


def test_the_plot_holds_all_that_was_measured_flat_out() -> None:
    svg = plot(a_run()).svg.decode()
    assert "<script" not in svg
    assert all(KINDS[name].label in svg for name in ("logd", "queue", "syslog"))
    assert "raw send, same bytes (awake)" in svg and "raw send, same bytes (asleep)" in svg


def test_the_quick_plan_has_every_peer_at_two_rates_and_every_cell_of_logd_and_raw_send() -> None:
    cells = [cell for g in plan(list(KINDS), QUICK, can_pin=True) for cell in g.cells]
    for name in KINDS:
        assert {(c.rate, c.threads) for c in cells if c.peer == name} >= {(0, 1), (1000, 1)}
    every = {(rate, threads) for rate in (0, 1000, 10) for threads in (1, 8)}
    assert {(c.rate, c.threads) for c in cells if c.peer == "logd"} == every
    for awake in (True, False):
        raw = [c for c in cells if c.peer == "raw" and c.awake == awake]
        assert {(c.rate, c.threads) for c in raw} == every


def test_the_long_plan_has_every_cell_of_every_peer_once() -> None:
    *groups, rest = plan(list(KINDS), LONG, can_pin=True)

    def cells(groups: Sequence[Group], peer: str) -> set[tuple[object, ...]]:
        own = [c for g in groups if g.name != WARM_UP for c in g.cells if c.peer == peer]
        return {(c.rate, c.threads, c.awake, c.pinned) for c in own}

    for name, kind in KINDS.items():
        assert not cells(groups, name) & cells([rest], name), name
        every = cells([*groups, rest], name)
        assert len(every) == 3 * 2 * 2 * (2 if kind.can_be_awake else 1), name


def test_with_one_core_nothing_is_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = plan(list(KINDS), LONG, can_pin=False)
    assert not any(cell.pinned for group in groups for cell in group.cells)
    assert "pinned to a core each: there is one core" in client.missing(groups, can_pin=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    groups = plan(["logd"], QUICK, client.enough_cores_to_pin())
    assert PINNED not in {group.name for group in groups}


def test_a_missing_peer_is_reported_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert client.present() == list(STDLIB)
    missing = client.missing(plan(client.present(), QUICK, can_pin=True), can_pin=True)
    assert "fluent-logger: not installed; `pip install fluent-logger` brings it" in missing
    assert any("`apt-get install rsyslog` brings it" in text for text in missing)
    result = CliRunner().invoke(client.main, ["--only", "datadog"])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: datadog, DogStatsD event: not installed; `pip install datadog` brings it"
    ]
    with pytest.raises(Failed, match="not installed"), rsyslog(Path("/nowhere")):
        pass


def test_a_refused_call_is_retried_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False, False, True, True])
    timed = calls(lambda: next(answers), 3, 0.0, time.monotonic(), lambda: 7)
    assert (len(timed.calls_ns), timed.refused, timed.spun_ns) == (3, 2, 14)
    monkeypatch.setattr(client_sender, "CALLS_TIMEOUT_S", -1.0)
    with pytest.raises(TimeoutError, match="only 0 of 1 events"):
        calls(lambda: False, 1, 0.0, time.monotonic(), lambda: 0)


def test_a_round_counts_refused_and_delivered_events() -> None:
    answers, arrived = iter([True, False, True] * 2), iter([10, 12, 12, 20, 21, 21])
    peer = Peer("syslog", lambda: next(answers), lambda: next(arrived, 21))
    seen = CellTimes(array("Q"), [])
    for _ in range(2):
        client_sender.measure(Cell("syslog", 2), peer, seen)
    assert (seen.accepted, seen.refused, seen.delivered) == (4, 2, 3)
    assert (len(seen.calls_ns), len(seen.rounds_p50_ns)) == (4, 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_events_and_the_rate(threads: int) -> None:
    cell = Cell("raw", 20, rate=2000, threads=threads)
    start_s = time.monotonic()
    timed = client_sender.in_threads(cell, lambda: True)
    assert len(timed) == threads
    assert sum(len(one.calls_ns) for one in timed) == 20
    assert time.monotonic() - start_s >= 18 / 2000 - 0.001


def test_an_error_in_a_thread_is_an_error_of_the_run() -> None:
    def call() -> bool:
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        client_sender.in_threads(Cell("raw", 4, threads=2), call)


def send_to(path: str, kind: socket.SocketKind) -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, kind)
    sender.connect(path)
    return sender


def counts(control: Control, number: int) -> Callable[[], bool]:
    return lambda: control.received == number


def test_a_datagram_receiver_counts_events_awake_and_asleep(directory: Path) -> None:
    with receiver("datagrams", directory, "d") as receiving:
        control = Control(receiving.counts)
        with send_to(receiving.socket, socket.SOCK_DGRAM) as sender:
            for number, awake in enumerate((False, True, False), 1):
                control.awake = awake
                sender.send(WAKE_UP)
                sender.send(datagram())
                until(counts(control, number), "the event has arrived")
        asleep_ns = cpu_ns(receiving.pid)
        control.awake = True
        with send_to(receiving.socket, socket.SOCK_DGRAM) as sender:
            sender.send(WAKE_UP)
        until(lambda: cpu_ns(receiving.pid) > asleep_ns + 20_000_000, "it polls")
        assert control.received == 3


def test_a_stream_receiver_counts_values_split_over_several_reads(directory: Path) -> None:
    events = msgpack.packb(["site.page_view", 1, {"user": "7"}]) * 3
    with receiver("stream", directory, "s") as receiving:
        control = Control(receiving.counts)
        with send_to(receiving.socket, socket.SOCK_STREAM) as sender:
            sender.send(events[:-5])
            until(counts(control, 2), "two are whole")
            sender.send(events[-5:])
            until(counts(control, 3), "the third as well")
        with send_to(receiving.socket, socket.SOCK_STREAM) as sender:
            sender.send(events)
            until(counts(control, 6), "and those of another connection")


def test_cpu_time_and_pinning_apply_to_the_given_process() -> None:
    mine_ns = time.process_time_ns()
    assert mine_ns <= cpu_ns(os.getpid()) <= time.process_time_ns() + 1_000_000
    before = os.sched_getaffinity(0)
    try:
        pin(os.getpid(), {min(before)})
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        pin(os.getpid(), before)
    assert os.sched_getaffinity(0) == before


def test_orders_survive_json() -> None:
    groups = plan(STDLIB, QUICK, can_pin=True)
    receiving = {"raw": Receiving(1, "socket", "counts"), "noop": None}
    orders = Orders(groups, receiving, "place", (0, 1))
    assert Orders.from_json(orders.to_json()) == orders
