"""Mentions of persons in events: one definition for reports about a person and for erasure."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from logd.storage.mentions import (
    ERASED,
    KEYS,
    MARKS,
    mentions,
    persons,
    redact,
    without_others,
)

MENTIONS: list[dict[str, Any]] = [
    {"user": "7"},
    {"user": 7},
    {"users": ["3", "7"]},
    {"users": [3, 7]},
    {"user_id": "7", "other": 1},
    {"login": "7"},
    {"report": "timeline", "params": {"user": "7", "limit": 50}},
    {"a": [{"b": {"users": [["7"]]}}]},
    {"users": [{"user": 7}]},
    {"user": {"id": "7"}},
    {"actor": "7", "switched_to": "8"},
    {"actor": "8", "switched_to": "7"},
]
NO_MENTIONS: list[dict[str, Any]] = [
    {},
    {"task": 7},
    {"user": "77"},
    {"user": "a7"},
    {"user": 7.0},
    {"user": None},
    {"users": "12 of them"},
    {"users": {"7": 1}},
    {"names": ["7"]},
    {"User": "7"},
]


def redacted(props: dict[str, Any], user: str) -> Any:
    """What is left of the properties once that user is taken out; the same where nothing is."""
    packed = redact(msgpack.packb(props), lambda person: person == user)
    return props if packed is None else msgpack.unpackb(packed)


@pytest.mark.parametrize("props", MENTIONS)
def test_a_person_named_under_one_of_the_keys_is_mentioned_and_can_be_taken_out(
    props: dict[str, Any],
) -> None:
    assert mentions(props, "7")
    taken_out = redacted(props, "7")
    assert not mentions(taken_out, "7")
    assert ERASED in str(taken_out)
    assert redacted(taken_out, "7") is taken_out


@pytest.mark.parametrize("props", NO_MENTIONS)
def test_a_value_that_only_looks_like_a_mention_stays(props: dict[str, Any]) -> None:
    assert not mentions(props, "7")
    assert redacted(props, "7") is props


def test_only_the_mention_itself_is_replaced() -> None:
    props = {"user": "7", "n": [1, {"users": ["3", "7", 7], "task": 7}], "f": True}
    assert redacted(props, "7") == {
        "user": ERASED, "n": [1, {"users": ["3", ERASED, ERASED], "task": 7}], "f": True,
    }  # fmt: skip


@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_not_a_mention(value: bool) -> None:
    assert not mentions({"user": value}, "1")
    assert not mentions({"user": value}, "True")


@pytest.mark.parametrize("key", sorted(KEYS))
def test_an_id_is_any_text_and_every_key_has_a_mark(key: str) -> None:
    assert mentions({key: "anna o'hara\n"}, "anna o'hara\n")
    assert any(mark in key.encode() for mark in MARKS)


def test_what_is_handed_to_one_person_names_no_other() -> None:
    props = {
        "user": "9", "params": {"users": ["7", 8, ["9"]], "task": 9, "login": None},
        "user_id": 7, "n": ["9"], "a": {"login": ERASED},
    }  # fmt: skip
    assert without_others(props, "7") == {
        "user": "(another)",
        "params": {"users": ["7", "(another)", ["(another)"]], "task": 9, "login": None},
        "user_id": 7, "n": ["9"], "a": {"login": ERASED},
    }  # fmt: skip


def test_the_persons_that_are_mentioned_are_those_whom_a_search_would_find() -> None:
    for props in MENTIONS:
        assert "7" in persons(props)
    for props in NO_MENTIONS:
        assert "7" not in persons(props)
    assert persons({"user": "7", "deep": [{"users": [8, "9", ERASED]}], "task": 5}) == {
        "7",
        "8",
        "9",
    }
