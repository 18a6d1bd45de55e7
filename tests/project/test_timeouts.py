"""A test that hangs is interrupted and fails with a traceback, and its children are ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.instance import ROOT, until
from tests.support.timeouts import BOOTED_S, LONG_FACTOR, LONG_MIN_S, limit_s

HANGING = """
import subprocess, sys, threading
import pytest

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

@pytest.fixture
def child():
    with subprocess.Popen(SLEEP) as process:
        with open("pid", "w") as file:
            file.write(str(process.pid))
        yield process
        process.kill()

def test_computes_for_ever():
    while True: pass

def test_waits_for_a_lock_with_a_child(child):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def test_waits_for_a_command():
    subprocess.run(SLEEP)

@pytest.mark.long(minutes=1)
def test_has_a_limit_of_its_own():
    threading.Event().wait(0.6)
"""


def test_a_hang_is_a_failure_with_a_traceback_and_leaves_no_child(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.timeouts", "-o", "timeout=0.5",
         "-n", "1", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path),
         "test_hanging.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "3 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("Failed: Timeout (>0.5s)") >= 3
    for line in ("while True: pass", "    lock.acquire()", "subprocess.run(SLEEP)"):
        assert f">   {line}" in done.stdout or f">       {line.strip()}" in done.stdout, line
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists(), "the child is gone")


def test_every_test_has_a_limit_and_long_ones_one_by_their_minutes() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert 0 < options["timeout"] <= LONG_MIN_S
    assert options["timeout_method"] == "signal"  # the method "thread" would end the whole worker
    assert limit_s(_item({})) is None
    assert limit_s(_item({"long": {"minutes": 0.1}})) == LONG_MIN_S
    assert limit_s(_item({"long": {"minutes": 21}})) == 21 * 60 * LONG_FACTOR
    assert limit_s(_item({"booted": {}})) == BOOTED_S


def _item(markers: Mapping[str, Mapping[str, Any]]) -> pytest.Item:
    marks = {name: SimpleNamespace(kwargs=kwargs) for name, kwargs in markers.items()}
    return cast("pytest.Item", SimpleNamespace(get_closest_marker=marks.get))
