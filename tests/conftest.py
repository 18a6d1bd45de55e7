"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.instance import ROOT, Instance, short_directory

pytest_plugins = [
    "tests.support.durations",
    "tests.support.namespaces",
    "tests.support.processes",
    "tests.support.progress",
    "tests.support.tally",
    "tests.support.timeouts",
]

# No time limit for one example, which a loaded machine exceeds: a test has one for all of them.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")


def pytest_configure() -> None:
    """Restore SIGINT, which shells ignore in background jobs, for pytest and its children."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    compile_once()


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection, which would scan 4,000 of them each time.

    Some tests collect garbage hundreds of times.
    """
    gc.collect()
    gc.freeze()


def compile_once() -> None:
    """Keep bytecode in pytest's cache if the environment wants none beside the sources.

    Without it, each of some thousand processes compiles all that it imports: half of its start.
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
