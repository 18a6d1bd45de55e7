"""The shim for slow flushes: it is built on demand, and a missing compiler is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.slow_flush import NoCompiler, environment


def test_without_a_compiler_the_reason_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment(tmp_path, 0) == {}
    with pytest.raises(NoCompiler, match="C compiler"):
        environment(tmp_path, 80)
