"""Runs mutmut on a copy of the tree, and reads the result of each mutant.

What is mutated and which tests are asked is in pyproject.toml, under `tool.mutmut`. By hand, in a
checkout: `mutmut run`, `mutmut results`, `mutmut show NAME`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutation.survivors import Mutant, mutant_of
from tests.support.instance import ROOT
from tests.support.progress import Progress

PROCESSES = 2
NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "mutants", "var", "dist")
_COUNT = re.compile(r"(\d+)/(\d+) ")
_PROGRAMS = Path(sys.executable).parent
# Not `python -m mutmut`, which imports its main module twice.
_MUTMUT = str(_PROGRAMS / "mutmut")


class Failed(Exception):
    """mutmut failed; the text holds the end of its output."""


def copy_tree(directory: Path) -> Path:
    """Copies the tree, so that the checkout is not mutated."""
    copy = directory / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
    return copy


def run(tree: Path, progress: Progress) -> None:
    """Tries all mutants and shows how many are done. Raises Failed."""
    command = [_MUTMUT, "run", "--max-children", str(PROCESSES)]
    # mutmut runs `mypy` from PATH, which must have this environment's programs.
    env = {**os.environ, "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    ) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            # mutmut overwrites one line: universal newlines split it at each carriage return.
            counts = _counts(process.stdout, lines)
            _, total = next(counts, (0, 0))
            done = 0
            for number in progress(range(total), "mutants"):
                while done <= number and (count := next(counts, None)) is not None:
                    done, _ = count
            for _ in counts:
                pass
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0 or total == 0:
        raise Failed("\n".join([f"mutmut ended with {process.returncode}", *lines[-40:]]))


def _counts(output: Iterator[str], others: list[str]) -> Iterator[tuple[int, int]]:
    for line in output:
        if found := _COUNT.search(line):
            yield int(found[1]), int(found[2])
        else:
            others.append(line.rstrip())


def results(tree: Path) -> dict[str, str]:
    """Returns the result of each mutant by mutmut's name for it."""
    lines = _mutmut(tree, "results", "--all", "true").splitlines()
    return dict(line.strip().rsplit(": ", 1) for line in lines if ": " in line)


def mutants(tree: Path, keys: list[str]) -> list[Mutant]:
    """Returns the diffs of these mutants."""
    with ThreadPoolExecutor(PROCESSES) as threads:
        shown = threads.map(lambda key: _mutmut(tree, "show", key), keys)
        return [mutant_of(key, diff) for key, diff in zip(keys, shown, strict=True)]


def _mutmut(tree: Path, *arguments: str) -> str:
    done = subprocess.run(
        [_MUTMUT, *arguments], cwd=tree, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failed(done.stdout + done.stderr)
    return done.stdout
