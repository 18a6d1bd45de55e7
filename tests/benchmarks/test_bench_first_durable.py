"""`first_durable`: its ratio, sums and table, and one process against a daemon."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.client import first_durable
from benchmarks.client.first_durable import LATER_EVENTS, FirstDurable
from benchmarks.client.measure import FIRST_DURABLE
from benchmarks.harness.sums import Sums
from benchmarks.harness.targets import TARGETS
from tests.support.instance import Instance, check_sums


def test_a_process_is_compared_with_itself() -> None:
    seen = FirstDurable([3_000_000, 8_000_000, 9_000_000], [2_000_000] * 3, Sums(18, 18, 0, 18))
    assert seen.ratio == 4.0
    row = seen.table().splitlines()[-1]
    assert re.search(r"3 processes +8 ms +2 ms +4\.00 +right$", row)
    json.dumps(seen.row())


def test_the_figure_has_a_target() -> None:
    (target,) = (target for target in TARGETS if target.figure == FIRST_DURABLE)
    assert (target.sign, target.limit) == ("<=", 1.5)


def test_a_process_prints_the_time_of_each_event(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(first_durable, "PAUSE_S", 0.0)
    instance.start()
    first_durable.main(instance.socket)
    times = json.loads(capsys.readouterr().out)
    assert len(times) == 1 + LATER_EVENTS and min(times) > 0
    check_sums(instance.settle(), attempted=len(times), accepted=len(times))
