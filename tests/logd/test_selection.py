"""The newest of the selected events, for `logd query --limit` and `logd tail -n`."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from logd.reports.selection import Selection, newest
from tests.logd.test_reports import Trail

EVENTS, PAGE = 2500, 200
SELECTIONS = [
    Selection(),
    Selection(users=("3",)),
    Selection(types=("page_view", "none"), since_ns=1),
    Selection(where=(("n", "0"),)),
    Selection(users=("none",)),
]


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trail]:
    made = Trail(tmp_path_factory.mktemp("selection") / "a.db")
    for start in range(0, EVENTS, 500):
        made.put(
            *(
                ("page_view", str(number % 7), number + 1, {"n": number % 5, "text": "x" * 200})
                for number in range(start, start + 500)
            )
        )
    yield made
    made.store.close()


def ids(trail: Trail, selection: Selection, limit: int, rows_max: int = 200) -> list[int]:
    found = newest(trail.store.connection, selection, limit, up_to_id=EVENTS - 3, rows_max=rows_max)
    return [row["id"] for row in found]


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("rows_max", [7, 200])
def test_any_number_of_the_newest_is_the_end_of_all(
    trail: Trail, selection: Selection, rows_max: int
) -> None:
    every = ids(trail, selection, 10**12)
    assert every == sorted(every)
    assert len(every) == (EVENTS - 3 if not selection.filters else len(every))
    for limit in (0, 1, 6, 7, 8, 199, 200, 201, 400):
        last = every[len(every) - min(limit, len(every)) :]
        assert ids(trail, selection, limit, rows_max) == last, limit


def test_a_limit_past_all_events_takes_no_more_memory_than_a_page(trail: Trail) -> None:
    peaks = []
    for limit in (400, 10**12):
        tracemalloc.start()
        number = 0
        for _ in newest(trail.store.connection, Selection(), limit, up_to_id=EVENTS, rows_max=PAGE):
            number += 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert number == min(limit, EVENTS)
    assert peaks[1] < 2 * peaks[0], peaks
