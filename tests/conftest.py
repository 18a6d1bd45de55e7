"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import ROOT, Instance, short_directory

pytest_plugins = [
    "tests.support.namespaces",
    "tests.support.processes",
    "tests.support.progress",
    "tests.support.tally",
    "tests.support.timeouts",
]


def pytest_configure() -> None:
    """Ctrl-C works in what the tests start, also where a shell has put them in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    compile_once()


def compile_once() -> None:
    """Bytecode is kept where the environment wants none beside the sources: in pytest's cache.

    Each of some thousand processes would compile all that it imports, which is half of its start.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        kept = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache/bytecode"))
        sys.dont_write_bytecode, sys.pycache_prefix = False, kept


@pytest.fixture
def directory() -> Iterator[Path]:
    """A new directory with a path short enough for sockets."""
    path = short_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def instance(directory: Path) -> Iterator[Instance]:
    """An instance of logd; its daemon is not running yet."""
    made = Instance(directory / "i")
    yield made
    made.close()
