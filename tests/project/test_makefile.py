"""The Makefile: its targets, when it repeats the set-up, and its error messages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands in for a suitable Python. `-m venv` leaves a copy of it in .venv, whose pip records its
# arguments; `PIP_SAYS` makes that pip fail with a text.
GOOD_PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$*" in
    --version) echo "Python 3.11.0" ;;
    "-c import pip") test -e "$here/pip-calls" ;;
    -c*) exit 0 ;;
    "-m pytest "*) exit "${PYTEST_EXITS:-0}" ;;
    "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && : > .venv/bin/pip-calls ;;
    "-m pip "*)
        echo "$*" >> "$here/pip-calls"
        if [ -n "$PIP_SAYS" ]; then echo "$PIP_SAYS"; exit 1; fi ;;
esac
"""
OLD_PYTHON = """#!/bin/sh
case "$*" in --version) echo "Python 3.9.2" ;; *version_info*) exit 1 ;; esac
"""
PYTHON_WITHOUT_VENV = """#!/bin/sh
case "$*" in *ensurepip*) exit 1 ;; esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files of a clone that `make setup` needs."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "shared").mkdir()
    shutil.copy(ROOT / "shared/pyproject.toml", tmp_path / "shared")
    return tmp_path


def make(
    clone: Path, *arguments: str, python: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    if python is not None:
        program = clone / "python-stand-in"
        program.write_text(python)
        program.chmod(0o755)
        arguments = (*arguments, f"PYTHON={program}")
    # Variables of a surrounding `make test` would change the output of this make.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=clone,
        env=clean | {"MAKEFLAGS": ""} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def own_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Returns the Makefile's own lines, without make's note of the failed target."""
    return [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if not line.startswith(("make: ***", "Setting up"))
    ]


def test_a_bare_make_explains_every_target_and_makes_nothing(clone: Path) -> None:
    done = make(clone)
    assert done.returncode == 0
    phony = re.search(r"^\.PHONY: (.*)$", (clone / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^  make ([a-z-]+) +\S", done.stdout, re.MULTILINE) == phony[1].split()
    assert not (clone / ".venv").exists()


def test_the_environment_is_made_from_the_hashed_lock_once(clone: Path) -> None:
    first = make(clone, "setup", python=GOOD_PYTHON)
    assert first.returncode == 0
    assert first.stdout.splitlines() == [
        "Setting up the environment in .venv, once: this takes a minute ..."
    ]
    locked, project = (clone / ".venv/bin/pip-calls").read_text().splitlines()
    assert locked.endswith("--require-hashes -r requirements.txt")
    assert "--no-deps --no-build-isolation" in project and project.endswith(" -e .")
    again = make(clone, "setup", python=GOOD_PYTHON)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("changed", ["requirements.txt", "pyproject.toml"])
def test_a_change_of_the_lock_is_installed(clone: Path, changed: str) -> None:
    make(clone, "setup", python=GOOD_PYTHON)
    ready_ns = (clone / ".venv/ready").stat().st_mtime_ns
    os.utime(clone / changed, ns=(ready_ns + 1, ready_ns + 1))
    make(clone, "setup", python=GOOD_PYTHON)
    assert len((clone / ".venv/bin/pip-calls").read_text().splitlines()) == 4


def test_a_failed_set_up_is_repeated(clone: Path) -> None:
    assert make(clone, "setup", python=GOOD_PYTHON, PIP_SAYS="no").returncode != 0
    assert make(clone, "setup", python=GOOD_PYTHON).returncode == 0


def test_a_python_that_is_too_old_is_named_with_its_version(clone: Path) -> None:
    done = make(clone, "setup", python=OLD_PYTHON)
    assert done.returncode != 0
    (line,) = own_lines(done)
    assert line.startswith("make setup: Python 3.11 or later is needed")
    assert "Python 3.9.2" in line


def test_a_missing_python_is_named(clone: Path) -> None:
    done = make(clone, "setup", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert own_lines(done)[0].endswith(
        "no-such-python is not installed; install one, or name it: make setup PYTHON=..."
    )


def test_a_missing_venv_module_is_named_with_its_package(clone: Path) -> None:
    done = make(clone, "setup", python=PYTHON_WITHOUT_VENV)
    assert done.returncode != 0
    (line,) = own_lines(done)
    assert "apt-get install python3-venv" in line


def test_without_a_network_one_line_asks_for_it_and_names_pip_s_output(clone: Path) -> None:
    message = "ERROR: Could not find a version that satisfies the requirement Flask"
    done = make(clone, "setup", python=GOOD_PYTHON, PIP_SAYS=message)
    assert done.returncode != 0
    (line,) = own_lines(done)
    assert "is there a network?" in line
    assert ".venv/setup.log" in line
    assert message in (clone / ".venv/setup.log").read_text()


def test_a_missing_compiler_is_named(clone: Path, tmp_path: Path) -> None:
    # A directory with every program that the recipe uses, except cc.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "rm", "cp", "mkdir", "touch", "grep", "dirname", "awk"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    done = make(
        clone,
        "setup",
        python=GOOD_PYTHON,
        PIP_SAYS="error: command 'gcc' failed: No such file or directory",
        PATH=str(tools),
    )
    assert done.returncode != 0
    (line,) = own_lines(done)
    assert "there is no C compiler" in line
    assert "build-essential" in line


@pytest.mark.parametrize("target", ["test", "test-fast", "test-long"])
@pytest.mark.parametrize(("exits", "works"), [(0, True), (1, False), (2, False), (5, False)])
def test_a_run_of_tests_that_fails_or_finds_none_is_a_failure(
    clone: Path, target: str, exits: int, works: bool
) -> None:
    done = make(clone, target, python=GOOD_PYTHON, PYTEST_EXITS=str(exits))
    assert (done.returncode == 0) == works


def test_clean_removes_the_environment_and_caches_but_no_data(clone: Path) -> None:
    for name in (".venv/bin", ".mypy_cache", "webapp/__pycache__", "var/logd", "var/__pycache__"):
        (clone / name).mkdir(parents=True)
    assert make(clone, "clean").returncode == 0
    left = {path.name for path in clone.iterdir()}
    assert left == {"Makefile", "requirements.txt", "pyproject.toml", "shared", "webapp", "var"}
    assert not (clone / "webapp/__pycache__").exists()
    assert (clone / "var/logd").is_dir()
    assert (clone / "var/__pycache__").is_dir()


def test_the_lock_names_no_place_to_download_from() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
