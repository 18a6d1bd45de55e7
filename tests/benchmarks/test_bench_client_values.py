"""`benchmarks.client.values`: each value is logged, and its calls are counted and shown."""

from __future__ import annotations

import pytest

from benchmarks.client import values as client_values
from benchmarks.harness.processes import temporary_directory
from benchmarks.harness.targets import TARGETS


def test_every_value_is_logged_shown_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_values, "USUAL_CALLS", 2)
    monkeypatch.setattr(client_values, "HUGE_CALLS", 1)
    small = {"a text": "x" * 100_000, "one more": [1]}
    monkeypatch.setattr(client_values, "huge", lambda: small)
    with temporary_directory(None) as place:
        timed, stats = client_values.measure(place / "i")
    assert client_values.problems(stats) == []
    assert stats["accepted"] == 2 + 2 * len(client_values.usual())
    assert stats["refused_by_cause"] == {"malformed": 1}
    assert [one.accepted for one in timed[-2:]] == [0, 1]
    figures = client_values.figures(timed)
    assert set(figures) <= {target.figure for target in TARGETS}
    assert 0 < figures["client.any_value_p99_ms"] <= figures["client.any_value_worst_ms"]
    assert len(client_values.show(timed).splitlines()) == 2 + len(timed)
    assert client_values.problems({**stats, "refused": 0}) != []
