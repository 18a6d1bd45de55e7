"""Recorded CPU times of tests order the files and mark slow tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import durations
from tests.support.instance import ROOT


def test_durations_are_written_slowest_first_without_quick_tests() -> None:
    text = durations.written({"a.py::x": 0.1, "b.py::y": 1.24, "c.py": 9.0})
    assert text == "9.0\tc.py\n1.2\tb.py::y\n"
    assert list(durations.read(text).items()) == [("c.py", 9.0), ("b.py::y", 1.2)]


def test_the_slowest_files_run_first_and_slow_tests_are_marked(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_quick(): ...\n")
    (tmp_path / "test_b.py").write_text(
        "import pytest, time\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_dear(n):\n"
        "    end_s = time.process_time() + 0.3\n"
        "    while time.process_time() < end_s: pass\n"
    )
    (tmp_path / "recorded.py").write_text(
        "from pathlib import Path\n"
        "from tests.support import durations\n"
        "durations.FILE = Path('costs.tsv')\n"
    )
    (tmp_path / "costs.tsv").write_text("")

    def run(*arguments: str, workers: str = "1") -> str:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", workers,
             "-p", "recorded", "-p", "tests.support.durations",
             "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), *arguments],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
            capture_output=True, text=True, timeout=100, check=True,
        ).stdout  # fmt: skip

    assert "3 passed" in run("--dist", "loadfile", "--record-durations", ".")
    seconds = durations.read((tmp_path / "costs.tsv").read_text())
    assert list(seconds) == ["test_b.py", "test_b.py::test_dear"]
    assert 0.6 <= seconds["test_b.py::test_dear"] <= seconds["test_b.py"] < 5
    out = run("--dist", "loadfile", "--no-loadscope-reorder", ".")
    assert out.index("test_b.py::test_dear") < out.index("test_a.py::test_quick")
    assert "1 passed" in run("-m", "not slow", ".", workers="0")
