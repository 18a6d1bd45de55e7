"""The events of a reading: the whole question and everyone whom the answer is about."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest

from logd.reports.readings import Concerned
from logd.serve import access_events
from logd.serve.access_events import CUT, EVENTS_MAX, TEXT_CHARS_MAX
from logd.serve.access_messages import pack_request, unpack_request
from logd.storage.mentions import DEFAULT_KEYS
from logd_wire.query import QueryError
from logd_wire.schema import USER_BYTES_MAX
from logd_wire.wire import unpack_props


def recorded(
    params: dict[str, Any], found: Iterable[str] = (), everyone: bool = False
) -> list[Any]:
    """The properties as they are stored, of a reader whose id is as long as one can be."""
    concerned = Concerned(frozenset(found), everyone)
    events = access_events.access_events("completions", params, concerned, uid=2**32 - 1, pid=2**22)
    requests = [pack_request(1, 5, "r" * USER_BYTES_MAX, props) for props in events]
    return [unpack_props(unpack_request(request)[1].props) for request in requests]


def test_a_question_is_recorded_as_it_was_asked() -> None:
    params = {"type": "quiz_submitted", "users": ["7", "x1", "x2", "x3", "x4", "x5"], "after": 5}
    (props,) = recorded(params, {"7", "9"})
    assert props == {
        "report": "completions", "params": params, "peer_uid": 2**32 - 1, "peer_pid": 2**22,
        "everyone": False, "users": ["9"],
    }  # fmt: skip
    assert "users" not in recorded({"user": "7"}, {"7"})[0]
    assert recorded({"users": []})[0]["params"] == {"users": []}
    assert recorded({})[0]["params"] == {}


def test_a_subject_that_is_a_users_id_does_not_hide_the_user() -> None:
    (props,) = recorded({"subjects": ["7"]}, {"7"})
    assert "7" in DEFAULT_KEYS.persons(props)


@pytest.mark.parametrize("length", [4, 8, USER_BYTES_MAX])
@pytest.mark.parametrize("asked", [True, False])
def test_a_list_too_long_for_one_event_is_whole_in_several(length: int, asked: bool) -> None:
    members = [f"{number:0{length}}" for number in range(5000)]
    subjects = ["\u00e9" * 300] * 3
    texts_of_four_bytes = dict.fromkeys("abcd", "\U0001f600" * TEXT_CHARS_MAX)
    params: dict[str, Any] = {
        "type": "quiz_submitted", "subjects": subjects, **texts_of_four_bytes,
    }  # fmt: skip
    if asked:
        events = recorded({**params, "users": members})
        lists = [event["params"].get("users", []) for event in events]
    else:
        events = recorded(params, set(members))
        lists = [event.get("users", []) for event in events]
    assert list(chain.from_iterable(lists)) == members, "in order"
    assert set().union(*map(DEFAULT_KEYS.persons, events)) == set(members)
    texts = chain.from_iterable(event["params"].get("subjects", []) for event in events)
    assert list(texts) == ["\u00e9" * TEXT_CHARS_MAX + CUT] * 3
    assert {event["params"]["type"] for event in events} == {"quiz_submitted"}
    numbers = [(event.get("part"), event.get("parts")) for event in events]
    assert numbers == [(number + 1, len(events)) for number in range(len(events))]
    assert 1 < len(events) <= EVENTS_MAX


def test_a_user_is_never_cut_and_a_longer_text_is_no_user() -> None:
    user = "u" * USER_BYTES_MAX
    (props,) = recorded({"user": user})
    assert user in DEFAULT_KEYS.persons(props)
    for longer in ({"user": user + "u"}, {"users": [user + "u"]}):
        (props,) = recorded(longer)
        assert user not in DEFAULT_KEYS.persons(props)


def test_an_event_is_filled_before_the_next_one_begins() -> None:
    items = [("users", "abc")] * 7
    assert [len(part) for part in access_events._parts(items, 3 * 8)] == [3, 3, 1]
    assert [len(part) for part in access_events._parts(items, 3 * 8 - 1)] == [2, 2, 2, 1]
    assert list(access_events._parts([], 8)) == [[]]


def test_more_persons_than_one_commit_can_list_are_to_be_asked_for_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = {f"{number:0{USER_BYTES_MAX}}" for number in range(1000)}
    events = len(recorded({}, many))
    monkeypatch.setattr(access_events, "EVENTS_MAX", events)
    assert len(recorded({}, many)) == events
    monkeypatch.setattr(access_events, "EVENTS_MAX", events - 1)
    with pytest.raises(QueryError) as caught:
        recorded({}, many)
    assert caught.value.code == "too_large"
    assert str(caught.value) == "the answer names too many persons: ask for fewer rows"
