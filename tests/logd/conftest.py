"""Fixtures of tests of the daemon."""

from __future__ import annotations

import pytest

from logd.clock import readings
from logd.maintenance import stored_times


@pytest.fixture
def clocks_from_1970(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets made-up times of days after 1970 count as times that a clock may show."""
    for module in (readings, stored_times):
        monkeypatch.setattr(module, "EARLIEST_NS", 0)
