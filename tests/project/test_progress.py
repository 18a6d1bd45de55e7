"""The progress of a long test, on a terminal and in a file."""

from __future__ import annotations

import io
import subprocess
import sys

from tests.support.instance import ROOT
from tests.support.progress import Progress


def test_in_a_file_each_line_has_the_count_and_the_last_the_total() -> None:
    out = io.StringIO()
    progress = Progress(out, line_interval_s=0.0)
    seen = []
    for step in progress(["a", "b", "c"], "letters"):
        seen.append(step)
        progress.note = f"{step} seen"
    assert seen == ["a", "b", "c"]
    first, *_, last = out.getvalue().splitlines()
    assert first.startswith("letters: 1 of 3, about ") and first.endswith("; a seen")
    assert last == "letters: 3 of 3, done; c seen"


def test_on_a_terminal_it_is_a_bar_with_its_note() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    progress = Progress(out)
    for step in progress(range(3), "kills"):
        progress.note = f"kill {step}"
    assert "kills" in out.getvalue() and "3/3" in out.getvalue() and "kill 2" in out.getvalue()


def test_progress_is_shown_despite_pytest_s_capture(directory: object) -> None:
    code = (
        "def test_long(progress):\n"
        "    print('kept')\n"
        "    for _ in progress(range(2), 'steps'): pass\n"
    )
    file = f"{directory}/test_long.py"
    with open(file, "w") as made:
        made.write(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.progress",
         "-c", "/dev/null", file],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "steps: 2 of 2, done" in done.stderr
    assert "kept" not in done.stdout + done.stderr
