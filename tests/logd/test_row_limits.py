"""Each check of a stored row at its bounds, and what it reports."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from logd.audit.row_checks import (
    EVENT,
    PROPS_BYTES_MAX,
    UID_MAX,
    Check,
    blob,
    blob_up_to,
    event_problem,
    matching,
    nothing_or,
    problem,
    text_up_to,
    type_name,
    whole,
)
from logd.storage.batch_hash import SALT_BYTES
from logd_wire.schema import INT64_MAX, USER_BYTES_MAX

WORD = re.compile(r"[a-z]+\Z")


@pytest.mark.parametrize(
    ("made", "value", "found"),
    [
        (lambda: whole(2, 5), 2, None),
        (lambda: whole(2, 5), 5, None),
        (lambda: whole(2, 5), 1, "is 1, expected 2 to 5"),
        (lambda: whole(2, 5), 6, "is 6, expected 2 to 5"),
        (lambda: whole(2, 5), "3", "is text, expected a whole number"),
        (lambda: whole(0, 5), True, "is bool, expected a whole number"),
        (lambda: whole(1), 2**63 - 1, None),
        (lambda: whole(1), 2**63, f"is {2**63}, expected 1 to {2**63 - 1}"),
        (lambda: blob(3), b"abc", None),
        (lambda: blob(3), b"ab", "has 2 bytes, expected 3"),
        (lambda: blob(3), b"abcd", "has 4 bytes, expected 3"),
        (lambda: blob(3), "abc", "is text, expected 3 bytes"),
        (lambda: blob_up_to(3), b"", None),
        (lambda: blob_up_to(3), b"abc", None),
        (lambda: blob_up_to(3), b"abcd", "has 4 bytes, expected 3 at most"),
        (lambda: blob_up_to(3), None, "is missing, expected bytes"),
        (lambda: blob_up_to(3), "abc", "is text, expected bytes"),
        (lambda: matching(WORD, "a word"), "abc", None),
        (lambda: matching(WORD, "a word"), "abc1", "is 'abc1', expected a word"),
        (lambda: matching(WORD, "a word"), "é" * 99, "is '" + "\\xe9" * 80 + "', expected a word"),
        (lambda: matching(WORD, "a word"), 7, "is a whole number, expected a word"),
        (lambda: text_up_to(4), "a", None),
        (lambda: text_up_to(4), "abcd", None),
        (lambda: text_up_to(4), "éé", None),
        (lambda: text_up_to(4), "", "has 0 bytes, expected 1 to 4"),
        (lambda: text_up_to(4), "abcde", "has 5 bytes, expected 1 to 4"),
        (lambda: text_up_to(4), "ééé", "has 6 bytes, expected 1 to 4"),
        (lambda: text_up_to(2), "\ud800", "has 3 bytes, expected 1 to 2"),
        (lambda: text_up_to(4), b"a", "is bytes, expected text"),
        (lambda: text_up_to(4), 0.5, "is a fraction, expected text"),
        (lambda: type_name, "page_view", None),
        (lambda: type_name, 7, "is a whole number, expected a type's name"),
        (lambda: type_name, "A" * 99, "is '" + "A" * 80 + "', expected a type's name"),
        (lambda: nothing_or(whole(1)), None, None),
        (lambda: nothing_or(whole(1)), 1, None),
        (lambda: nothing_or(whole(1, 9)), 0, "is 0, expected 1 to 9"),
    ],
)
def test_a_check_accepts_its_bounds_and_reports_what_lies_past_them(
    made: Callable[[], Check], value: object, found: str | None
) -> None:
    """Made in the test: a mutant is not there yet when tests are collected."""
    assert made()(value) == found


def test_the_first_column_that_is_wrong_is_named() -> None:
    checks = {"id": whole(1, 9), "hash": blob(2), "user": nothing_or(text_up_to(2))}
    assert problem((1, b"ab", None), checks) is None
    assert problem((0, b"a", "abc"), checks) == "id is 0, expected 1 to 9"
    assert problem((1, b"ab", "abc"), checks) == "user has 3 bytes, expected 1 to 2"
    with pytest.raises(ValueError, match="zip"):
        problem((1, b"ab"), checks)


GOOD: dict[str, tuple[object, ...]] = {
    "salt": (bytes(SALT_BYTES),),
    "id": (1, 7, INT64_MAX),
    "the producer's uid": (0, UID_MAX),
    "the producer's id": ("0123456789abcdef",),
    "sequence": (1, INT64_MAX),
    "ts_ns": (0, INT64_MAX),
    "type": ("page_view", "a"),
    "user": (None, "7", "u" * USER_BYTES_MAX),
    "props": (b"", bytes(PROPS_BYTES_MAX)),
}
# SQLite gives no integer past 64 bits.
BAD: dict[str, tuple[object, ...]] = {
    "salt": (None, "s" * SALT_BYTES, bytes(SALT_BYTES - 1), bytes(SALT_BYTES + 1)),
    "id": (0, -1, True, 1.0, None),
    "the producer's uid": (-1, UID_MAX + 1, False),
    "the producer's id": ("0123456789abcdeF", "0123456789abcde", None),
    "sequence": (0, 1.0),
    "ts_ns": (-1, None),
    "type": ("Page", "", "a" * 65, b"page_view"),
    "user": ("", "u" * (USER_BYTES_MAX + 1), 7),
    "props": (None, "", bytes(PROPS_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("column", EVENT)
def test_the_fast_check_of_a_row_gives_the_same_result(column: str) -> None:
    good = {name: values[0] for name, values in GOOD.items()}
    for value in GOOD[column]:
        assert event_problem([*{**good, column: value}.values()]) is None, value
    for value in BAD[column]:
        row = [*{**good, column: value}.values()]
        found = event_problem(row)
        assert found == problem(row, EVENT)
        assert found is not None and found.startswith(column), value
