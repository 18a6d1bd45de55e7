"""Runs the programs that check proofs with packages of others, and with nothing of logd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.instance import ROOT

FOLDER = Path(__file__).parent
PACKAGES = ROOT / ".venv/foreign"
GO_PACKAGES = Path("/usr/share/gocode")  # where Debian's are
BUILD_S, CHECK_S = 300, 120


@dataclass(frozen=True)
class Program:
    """A program that reads names of files, and answers with a line for each line."""

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)

    def check(self, files: Sequence[tuple[Path, ...]], vkey: str, *witnesses: str) -> list[str]:
        """Its answers to proofs: of an event (a file), or of growth (that and the old head's)."""
        lines = "".join(f"{' '.join(map(str, each))}\n" for each in files)
        done = subprocess.run(
            [*self.command, vkey, *witnesses],
            input=lines,
            capture_output=True,
            text=True,
            timeout=CHECK_S,
            env={**os.environ, **self.env},
            check=False,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        answers = done.stdout.splitlines()
        assert len(answers) == len(files)
        return answers


def require(program: str, what: str, there: bool) -> None:
    """Skips the test without it; in continuous integration that is a failure."""
    if there:
        return
    reason = f"{program} needs {what}: .ci/run installs it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def in_go(directory: Path) -> Program:
    """Builds the program in Go, with the packages of its checksum database."""
    there = (GO_PACKAGES / "src/golang.org/x/mod/sumdb/tlog").is_dir()
    require("the checker in Go", "golang-go", shutil.which("go") is not None)
    require("the checker in Go", "golang-golang-x-mod-dev", there)
    binary = directory / "check_proofs"
    env = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GO_PACKAGES),
        "GOCACHE": str(ROOT / ".venv/go-cache"),
        "GOFLAGS": "",
    }
    done = subprocess.run(
        ["go", "build", "-o", str(binary), str(FOLDER / "check_proofs.go")],
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Program((str(binary),))


def in_python() -> Program:
    """The program in Python, with aics-tlog."""
    there = (PACKAGES / "aics_tlog/__init__.py").is_file()
    require("the checker in Python", "aics-tlog (PyPI)", there)
    script = str(FOLDER / "check_proofs.py")
    return Program((sys.executable, "-P", script), {"PYTHONPATH": str(PACKAGES)})
