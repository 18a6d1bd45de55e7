"""The cause: what each cell measures, and what follows from it for the earlier figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.cause import measure as cause
from benchmarks.cause.measure import Measured
from benchmarks.cause.phases import Cell, cells
from benchmarks.cause.verdict import AFTER_MS, BEFORE_MS, HYPOTHESES, fits, verdict
from benchmarks.harness import slow_flush
from benchmarks.harness.machine import PROJECT
from benchmarks.harness.slow_flush import NoCompiler
from benchmarks.harness.sums import Sums

DISKS = (0, 80)
KEY_MS = 100.0


def modelled(cell: Cell, key_ms: float = KEY_MS, counted: bool = True) -> Measured:
    """A machine on which everything is as simple as one would think."""
    count = 0 if cell.elsewhere else 4
    open_ms = key_ms if cell.cipher == "passphrase" else 0.2
    commit_ms = count * (0.25 + cell.flush_ms)
    phases = {"open": open_ms * 1e6, "insert": 1e5, "commit": commit_ms * 1e6, "close": 5e4}
    sums = Sums(attempted=3, accepted=3, refused=0, stored=3)
    total_ns = int(sum(phases.values()))
    flushes = count if counted else None
    return Measured(cell, 2, phases, open_ms * 1e6, [total_ns] * 2, flushes, sums)


def model(disks: tuple[int, ...] = DISKS, **options: Any) -> dict[Cell, Measured]:
    return {cell: modelled(cell, **options) for cell in cells(disks)}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One round of the real thing, with flushes 20 ms longer for the slow disk."""
    place = tmp_path_factory.mktemp("cause")
    try:
        env = slow_flush.counting(place)
    except NoCompiler as reason:
        pytest.skip(str(reason))
    command = [sys.executable, "-m", "benchmarks.cause.phases", str(place), "[0, 20]", "1", "30"]
    output = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.long(minutes=1)
def test_every_cell_writes_an_event_a_round_and_stores_it(events: list[dict[str, Any]]) -> None:
    number = len(cells((0, 20)))
    assert sorted(event["cell"] for event in events[:-1]) == list(range(number))
    assert events[-1] == {"attempted": 2, "stored": [2] * number}


@pytest.mark.long(minutes=1)
def test_wal_flushes_as_often_as_delete_unless_the_file_is_open_elsewhere(
    events: list[dict[str, Any]],
) -> None:
    for cell, event in zip(cells((0, 20)), events, strict=False):
        flushes = event["flushes"]
        assert flushes == 0 if cell.elsewhere else flushes >= 2, cell


@pytest.mark.long(minutes=1)
def test_a_slow_flush_is_in_commit_and_close_and_not_in_opening(
    events: list[dict[str, Any]],
) -> None:
    for cell, event in zip(cells((0, 20)), events, strict=False):
        if cell.flush_ms and not cell.elsewhere:
            assert event["commit_ns"] + event["close_ns"] >= event["flushes"] * 20e6
        if cell.cipher == "raw":
            assert event["open_cpu_ns"] < 10e6  # nothing is derived, and nothing waits


@pytest.mark.long(minutes=1)
def test_a_passphrase_is_in_opening_on_either_disk(events: list[dict[str, Any]]) -> None:
    by_cell = dict(zip(cells((0, 20)), events, strict=False))
    for cell, event in by_cell.items():
        if cell.cipher == "passphrase":
            raw = by_cell[Cell(cell.flush_ms, "raw", cell.journal, cell.elsewhere)]
            assert event["open_cpu_ns"] > 5 * raw["open_cpu_ns"]


def test_only_a_slow_disk_with_the_file_open_elsewhere_is_ruled_out() -> None:
    rows = model(DISKS)
    ratios = [one.after_over_before(rows) for one in HYPOTHESES]
    fitting = [
        (one.cause, one.elsewhere)
        for one, ratio in zip(HYPOTHESES, ratios, strict=True)
        if ratio is not None and fits(ratio)
    ]
    assert fitting == [
        ("a slow disk", False),
        ("a key derived at every open", False),
        ("a key derived at every open", True),
        ("both", False),
    ]


def test_the_change_is_compared_round_by_round() -> None:
    rows = model()
    slow = HYPOTHESES[0]
    before, after = Cell(80, "raw", "delete"), Cell(80, "raw", "wal")
    rows[before] = replace(rows[before], totals_ns=[100, 300, 100])
    rows[after] = replace(rows[after], totals_ns=[100, 300, 200])
    assert slow.after_over_before(rows) == 1.0  # where the medians' ratio is 2


def test_the_notes_own_ratio_fits_itself() -> None:
    assert fits(AFTER_MS / BEFORE_MS)
    assert not fits(0.5)
    assert not fits(1.5)


def test_the_arithmetic_is_said_with_the_figures_of_this_run() -> None:
    text = "\n".join(verdict(model()))
    assert "4 flushes with DELETE + FULL, 4 with WAL + NORMAL" in text
    assert "(83.86 - 0.30) ms in 4 flushes are 20.9 ms each" in text
    assert "at most 2.50 ms a flush" in text
    assert "that takes 99.8 ms of processor time here" in text
    assert "leave 73.9 ms for it, 0.74 of what it takes here" in text
    assert "nothing is left for a disk" in text


def test_a_fast_processor_leaves_something_for_the_disk() -> None:
    text = "\n".join(verdict(model(key_ms=40.0)))
    assert "nothing is left" not in text
    assert "11.0 ms a flush are left for the disk" in text


def test_without_the_shim_nothing_is_said_of_flushes() -> None:
    rows = model((0,), counted=False)
    text = "\n".join(verdict(rows))
    assert "flushes with DELETE" not in text
    assert "a flush" not in text
    assert "a key derived at every open, nobody else" in text
    assert not any(name.endswith("flushes") for name in cause.figures(rows))


def fake(monkeypatch: pytest.MonkeyPatch, stored: int = 3) -> None:
    """Everything but the process that writes."""

    def lines(_place: Path, disks: tuple[int, ...], *_: object) -> Iterator[dict[str, Any]]:
        for number, cell in enumerate(cells(disks)):
            row = modelled(cell)
            phases = {f"{name}_ns": int(ns) for name, ns in row.phases_ns.items()}
            flushes = row.flushes or 0
            yield {"cell": number, "open_cpu_ns": row.open_cpu_ns, "flushes": flushes, **phases}
        yield {"attempted": 3, "stored": [stored] * len(cells(disks))}

    monkeypatch.setattr(cause, "_lines", lines)


def test_the_command_shows_cells_and_verdict_and_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    result = CliRunner().invoke(cause.main, ["--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"\bright$", result.stdout, re.MULTILINE)) == len(cells(DISKS))
    body = json.loads((tmp_path / "cause.json").read_text())
    assert all(row["attempted"] == row["stored"] for row in body["rows"])
    svg = (tmp_path / "cause.svg").read_text()
    assert not re.search(r"<script|(href|src)=.(https?:)?//", svg)


def test_an_event_that_is_not_stored_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, stored=2)
    result = CliRunner().invoke(cause.main, ["--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "sum off: passphrase, DELETE + FULL, disk as it is: accepted 3 != stored 2" in (
        result.stderr
    )


def test_without_a_compiler_the_slow_half_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object) -> dict[str, str]:
        raise NoCompiler("no C compiler")

    fake(monkeypatch)
    monkeypatch.setattr(slow_flush, "counting", no_compiler)
    told: list[int] = []
    part = cause.run(tmp_path, False, lambda _now, done: told.append(done))
    assert {row["flush_ms"] for row in part.rows} == {0}
    assert part.missing[0].endswith("no C compiler")
    assert sum(told) == cause.steps(False)


def test_the_conclusion_names_the_condition_of_each_cause() -> None:
    text = "\n".join(verdict(model(DISKS)))
    assert "a slow disk is consistent with what the change did only if nobody else ever had" in text
    assert "a key derived at every open is consistent with what the change did whoever" in text
    assert "The one that needs no condition is a key derived at every open." in text
    # Where a derivation takes next to nothing, the flushes decide.
    text = "\n".join(verdict(model(DISKS, key_ms=0.01)))
    assert "needs no condition" not in text
