"""Time limits: a test that hangs fails with a traceback, and its fixtures are torn down.

`timeout` in pyproject.toml applies to each test, set-up included. Tests marked `long` or `booted`
get longer limits, unless they are marked with `timeout`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

LONG_FACTOR = 4  # over the minutes that a test takes on two idle cores
LONG_MIN_S = 300.0
BOOTED_S = 600.0


def limit_s(item: pytest.Item) -> float | None:
    """The limit of a `long` or `booted` test; None for the default."""
    long = item.get_closest_marker("long")
    if long is not None:
        return float(max(LONG_MIN_S, long.kwargs["minutes"] * 60 * LONG_FACTOR))
    return BOOTED_S if item.get_closest_marker("booted") is not None else None


@pytest.hookimpl
def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Called by pytest."""
    for item in items:
        limit = limit_s(item)
        if limit is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(limit))
