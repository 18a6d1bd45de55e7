"""An anchor's line is read back as it was written, and is written when the head has moved."""

from __future__ import annotations

from itertools import pairwise

import pytest

from logd.audit.anchors import Anchor, AnchorSchedule, format_anchor, parse
from logd.storage.tree_head import Head

HEADS = [Head(n, 10 * n, bytes([n]) * 32) for n in range(5)]


def test_a_head_that_has_not_moved_or_is_not_due_is_not_logged_again() -> None:
    pace = AnchorSchedule(60)
    assert pace.due_heads(HEADS[0], None, 5.0) == [HEADS[0]], "at the start"
    assert pace.due_heads(HEADS[1], None, 64.9) == []
    assert pace.due_heads(HEADS[1], None, 65.0) == [HEADS[1]]
    assert pace.due_heads(HEADS[1], None, 500.0) == [], "nothing new"
    assert pace.due_heads(HEADS[2], None, 500.0) == [HEADS[2]]
    assert pace.due_heads(HEADS[3], None, 501.0, now=True) == [HEADS[3]], "at the stop"
    assert pace.due_heads(HEADS[3], None, 501.0, now=True) == []


def test_a_lasting_head_goes_with_the_next_anchor_once_it_is_passed() -> None:
    pace = AnchorSchedule(60)
    tile, later, next_tile = (Head(n, n, bytes([n % 251]) * 32) for n in (256, 300, 512))
    assert pace.due_heads(later, tile, 0.0) == [tile, later], "it may not be logged yet"
    assert pace.due_heads(Head(301, 301, b"x"), tile, 30.0) == []
    assert pace.due_heads(Head(301, 301, b"x"), tile, 60.0) == [Head(301, 301, b"x")]
    assert pace.due_heads(next_tile, next_tile, 120.0) == [next_tile], "not twice"
    assert pace.due_heads(Head(513, 513, b"y"), next_tile, 180.0) == [Head(513, 513, b"y")]
    far = Head(900, 900, b"z")
    assert pace.due_heads(far, Head(768, 768, b"t"), 181.0) == [], "it waits for the next anchor"
    assert pace.due_heads(far, Head(768, 768, b"t"), 240.0) == [Head(768, 768, b"t"), far]
    assert pace.due_heads(far, Head(768, 768, b"t"), 1e6) == [far]


@pytest.mark.parametrize("interval_s", [1, 60, 86_400])
def test_an_anchor_is_logged_every_day_also_when_nothing_happens(interval_s: int) -> None:
    pace, logged = AnchorSchedule(interval_s), [0.0]
    assert pace.due_heads(HEADS[1], None, 0.0) == [HEADS[1]]
    for now_s in range(0, 5 * 86_400, 30):
        if pace.due_heads(HEADS[1], None, float(now_s)):
            logged.append(float(now_s))
    apart_s = [later - earlier for earlier, later in pairwise(logged)]
    assert len(apart_s) >= 4 and all(12 * 3600 <= apart <= 86_400 for apart in apart_s)


def test_with_an_interval_of_0_none_is_repeated() -> None:
    assert AnchorSchedule(0).due_heads(HEADS[1], HEADS[0], 1e6) == []


TRAIL = "0123456789abcdef"


@pytest.mark.parametrize("trail_id", [None, TRAIL])
def test_a_line_with_and_without_the_id_of_its_trail_is_read_back(trail_id: str | None) -> None:
    assert parse(format_anchor(HEADS[3], trail_id)) == Anchor(HEADS[3], None, trail_id)


@pytest.mark.parametrize("before", ["", "logd: ", "<6>", "Mar  1 12:00:00 host logd[7]: logd: "])
def test_a_line_is_read_back_whatever_a_log_put_before_it(before: str) -> None:
    assert parse(before + format_anchor(HEADS[3])) == Anchor(HEADS[3])


@pytest.mark.parametrize(
    "text",
    [
        "", "anchor", format_anchor(HEADS[3])[:-1], format_anchor(HEADS[3]) + "0",
        format_anchor(HEADS[3]) + " and more", "x" + format_anchor(HEADS[3]),
        format_anchor(HEADS[3]).replace("=3", "=-3"),
        format_anchor(HEADS[3]).replace("=3", "=" + "3" * 30),
        format_anchor(HEADS[3], "0123456789abcde"), format_anchor(HEADS[3], "0" * 17),
        format_anchor(HEADS[3], "0123456789ABCDEF"), format_anchor(HEADS[3], ""),
    ],
)  # fmt: skip
def test_a_line_that_only_looks_like_an_anchor_is_ignored(text: str) -> None:
    assert parse(text) is None
