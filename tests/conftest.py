"""Fixtures for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Instance, short_directory

pytest_plugins = [
    "tests.namespaces",
    "tests.processes",
    "tests.progress",
    "tests.tally",
    "tests.timeouts",
]


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
