"""The cause: what each cell measures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.cause import measure as cause
from benchmarks.cause.measure import Measured
from benchmarks.cause.phases import Cell, cells
from benchmarks.harness import slow_flush
from benchmarks.harness.machine import PYTHONPATH
from benchmarks.harness.slow_flush import NoCompiler
from benchmarks.harness.sums import Sums

DISKS = (0, 80)
KEY_MS = 100.0


def modelled(cell: Cell, key_ms: float = KEY_MS, counted: bool = True) -> Measured:
    """Return the times of an ideal machine."""
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
    """Run one real round, with flushes 20 ms longer for the slow disk."""
    place = tmp_path_factory.mktemp("cause")
    try:
        env = slow_flush.counting(place)
    except NoCompiler as reason:
        pytest.skip(str(reason))
    command = [sys.executable, "-m", "benchmarks.cause.phases", str(place), "[0, 20]", "1", "30"]
    output = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, **env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.long(minutes=0.2)
def test_every_cell_stores_an_event_per_round(events: list[dict[str, Any]]) -> None:
    number = len(cells((0, 20)))
    assert sorted(event["cell"] for event in events[:-1]) == list(range(number))
    assert events[-1] == {"attempted": 2, "stored": [2] * number}


@pytest.mark.long(minutes=0.2)
def test_wal_flushes_unless_another_connection_is_open(
    events: list[dict[str, Any]],
) -> None:
    for cell, event in zip(cells((0, 20)), events, strict=False):
        flushes = event["flushes"]
        assert flushes == 0 if cell.elsewhere else flushes >= 2, cell


@pytest.mark.long(minutes=0.2)
def test_slow_flushes_lengthen_commit_and_close_but_not_opening(
    events: list[dict[str, Any]],
) -> None:
    for cell, event in zip(cells((0, 20)), events, strict=False):
        if cell.flush_ms and not cell.elsewhere:
            assert event["commit_ns"] + event["close_ns"] >= event["flushes"] * 20e6
        if cell.cipher == "raw":
            assert event["open_cpu_ns"] < 10e6  # no key derivation, no waiting


@pytest.mark.long(minutes=0.2)
def test_a_passphrase_lengthens_opening_on_both_disks(events: list[dict[str, Any]]) -> None:
    by_cell = dict(zip(cells((0, 20)), events, strict=False))
    for cell, event in by_cell.items():
        if cell.cipher == "passphrase":
            raw = by_cell[Cell(cell.flush_ms, "raw", cell.journal, cell.elsewhere)]
            assert event["open_cpu_ns"] > 5 * raw["open_cpu_ns"]


def test_without_the_shim_there_are_no_figures_of_flushes() -> None:
    rows = model((0,), counted=False)
    assert not any(name.endswith("flushes") for name in cause.figures(rows))
    assert "?" in cause.show(list(rows.values()))


def fake(monkeypatch: pytest.MonkeyPatch, stored: int = 3) -> None:
    """Replace the process that writes events."""

    def lines(_place: Path, disks: tuple[int, ...], *_: object) -> Iterator[dict[str, Any]]:
        for number, cell in enumerate(cells(disks)):
            row = modelled(cell)
            phases = {f"{name}_ns": int(ns) for name, ns in row.phases_ns.items()}
            flushes = row.flushes or 0
            yield {"cell": number, "open_cpu_ns": row.open_cpu_ns, "flushes": flushes, **phases}
        yield {"attempted": 3, "stored": [stored] * len(cells(disks))}

    monkeypatch.setattr(cause, "_lines", lines)


def test_the_command_shows_the_cells_and_writes_them(
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
    assert "wrong sum: passphrase, DELETE + FULL, disk as it is: accepted 3 != stored 2" in (
        result.stderr
    )


def test_without_a_compiler_the_slow_disk_is_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: None
) -> None:
    fake(monkeypatch)
    steps: list[int] = []
    part = cause.run(tmp_path, False, lambda _now, done: steps.append(done))
    assert {row["flush_ms"] for row in part.rows} == {0}
    assert part.missing[0].endswith("no C compiler")
    assert sum(steps) == cause.steps(False)
