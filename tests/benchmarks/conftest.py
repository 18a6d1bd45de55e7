"""Fixtures for the tests of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness import slow_flush


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """No C compiler is installed: the shim for slow flushes cannot be built."""

    def build(_source: Path, _directory: Path) -> Path:
        raise slow_flush.NoCompiler("no C compiler")

    monkeypatch.setattr(slow_flush, "build", build)
