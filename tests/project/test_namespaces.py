"""Tests that need root, for an ordinary user: run in a user namespace, or skipped with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import namespaces
from tests.support.instance import ROOT

TESTS = """
import os, subprocess, pytest
from tests.support.namespaces import needs_root, needs_users

@needs_root
def test_mounts(tmp_path):
    assert os.geteuid() == 0
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)

@needs_root
@pytest.mark.parametrize("wrong", [1])
def test_fails(wrong):
    assert wrong == 2, "what it says there"

@needs_root
def test_skips():
    pytest.skip("a reason: its own")

@needs_users
def test_needs_what_is_not_there(): ...
"""
# Root is treated as an ordinary user, and becomes root of a namespace.
ORDINARY = "import os; os.geteuid = lambda: 1000\n"
NO_USERS = (
    "import tests.support.namespaces as n; had = n.command\n"
    "n.command = lambda *, users: ('false',) if users else had(users=users)\n"
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in PATH; the `unshare` in it never answers."""
    (tmp_path / "unshare").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(namespaces, "TRY_S", 0.1)
    namespaces.missing.cache_clear()
    return tmp_path


def test_without_newuidmap_no_namespace_of_users_is_tried(programs: Path) -> None:
    assert "there is no newuidmap" in (namespaces.missing(users=True) or "")
    namespaces.missing.cache_clear()


def test_a_namespace_that_does_not_answer_counts_as_missing(programs: Path) -> None:
    (programs / "newuidmap").write_text("")
    (programs / "newuidmap").chmod(0o755)
    assert "timed out" in (namespaces.missing(users=True) or "")
    assert "timed out" in (namespaces.missing(users=False) or "")
    namespaces.missing.cache_clear()


def test_an_ordinary_user_runs_in_a_namespace_what_needs_root(tmp_path: Path) -> None:
    reason = namespaces.missing(users=False)
    if reason:
        pytest.skip(reason)
    (tmp_path / "test_root.py").write_text(TESTS)
    (tmp_path / "ordinary.py").write_text(ORDINARY + NO_USERS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "ordinary", "-p", "tests.support.namespaces",
         "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "test_root.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "1 failed, 1 passed, 2 skipped" in done.stdout, done.stdout + done.stderr
    assert "what it says there" in done.stdout
    assert "a reason: its own" in done.stdout
    assert "needs root, or newuidmap and a range in /etc/subuid" in done.stdout
