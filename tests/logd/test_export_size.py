"""Exports of many events: memory that does not grow, and every row read back."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.growth.history import History, build
from tests.logd.exports import READERS, export, run_export
from tests.support.instance import ROOT, Instance

# logd, and how much memory it had at most. (ru_maxrss of a child carries over its parent's.)
MEASURED = """
import re, sys
from logd.cli import main
try:
    main(sys.argv[1:], prog_name="logd")
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
    print("peak", peak[1], file=sys.stderr)
"""

MIB = 1024 * 1024
# What ten times as many events may add to the peak of a process that exports them.
GROWTH_BYTES_MAX = {"jsonl": 4 * MIB, "csv": 4 * MIB, "parquet": 32 * MIB}


def peak_bytes(instance: Instance, form: str) -> int:
    done = run_export(
        instance, form, program=("-c", MEASURED), stdout=subprocess.DEVNULL, check=True
    )
    found = re.search(r"^peak (\d+)$", done.stderr, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def trail_of(directory: Path, events: int) -> Instance:
    made = Instance(directory)
    build(made.config, History(events, time.time_ns()))
    return made


def check_growth(directory: Path, few: int, many: int, forms: Sequence[str]) -> None:
    small, large = trail_of(directory / "few", few), trail_of(directory / "many", many)
    try:
        for form in forms:
            before, after = peak_bytes(small, form), peak_bytes(large, form)
            print(f"{form}: {before // 1024:,} KiB at {few:,}, {after // 1024:,} KiB at {many:,}")
            assert after - before <= GROWTH_BYTES_MAX[form], (form, before, after)
    finally:
        small.close()
        large.close()


@pytest.mark.long(minutes=1)
def test_ten_times_as_many_events_take_no_more_memory(directory: Path) -> None:
    """The larger trail has 100 pages and more than a row group."""
    check_growth(directory, 2_000, 20_000, ["jsonl", "parquet"])


def digest(*command: str) -> tuple[int, str]:
    """Counts the JSON lines that a program prints, and hashes them in order.

    The times as text, which only some forms have, are left out: `ts_ns` and `stored_ns` are there.
    """
    hashed, rows = hashlib.sha256(), 0
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            row = json.loads(line)
            for text in ("time", "stored_time"):
                row.pop(text, None)
            hashed.update(json.dumps(row, sort_keys=True).encode())
            rows += 1
    assert process.returncode == 0
    return rows, hashed.hexdigest()


@pytest.mark.long(minutes=4)
def test_a_million_events_are_read_back_equal_from_each_form(directory: Path) -> None:
    made = trail_of(directory / "many", 10**6)
    stored = digest(
        "-m", "logd", "query", "--format", "jsonl", "--config", str(made.config.path)
    )  # fmt: skip
    assert stored[0] == 10**6
    for form in READERS:
        output, _said = export(made, form)
        assert digest("-c", READERS[form], str(output)) == stored, form
        output.unlink()
    made.close()


@pytest.mark.long(minutes=4)
def test_a_million_events_take_no_more_memory_than_a_hundred_thousand(directory: Path) -> None:
    check_growth(directory, 10**5, 10**6, list(GROWTH_BYTES_MAX))
