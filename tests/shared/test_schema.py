"""The event schema: the daemon accepts what the client accepts, and nothing else."""

from __future__ import annotations

import datetime
import enum
import unicodedata
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd_wire.schema import (
    INT64_MAX,
    PROPS_DEPTH_MAX,
    USER_BYTES_MAX,
    Malformed,
    check_event_type,
    check_props,
    check_stored_user,
    check_ts_ns,
    check_user,
)
from logd_wire.wire import Event, pack_payload, unpack_payload, unpack_props

PACKER = msgpack.Packer()

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=4)
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.binary(), inner, max_size=3)
    ),
    max_leaves=8,
)
nearly_types = st.just("page_view") | st.from_regex(
    r"[a-z_0-9A-Z]{0,66}|[a-z_.-]{0,6}", fullmatch=True
)
nearly_times = st.just(5) | st.integers(-2, 2) | st.integers(INT64_MAX - 2, INT64_MAX + 2)
nearly_users = st.none() | st.integers() | st.text(max_size=280) | st.booleans()


def client_side(event_type: Any, ts_ns: Any, user: Any, props: Any) -> bytes:
    """An event's payload as the client makes it. Raises Malformed."""
    check_props(props)
    return pack_payload(
        PACKER, check_event_type(event_type), check_ts_ns(ts_ns), check_user(user), props
    )


def daemon_side(event_type: Any, ts_ns: Any, user: Any, props: Any) -> Event:
    """The event a client sends that checks nothing at all. Raises Malformed."""
    return unpack_payload(msgpack.packb((event_type, ts_ns, user, msgpack.packb(props))))


def accepts(side: Any, *event: Any) -> bool:
    try:
        side(*event)
    except Malformed:
        return False
    return True


@given(nearly_types, nearly_times, nearly_users, anything)
def test_what_the_client_accepts_the_daemon_takes_unchanged(
    event_type: Any, ts_ns: Any, user: Any, value: Any
) -> None:
    try:
        payload = client_side(event_type, ts_ns, user, {"value": value})
    except Malformed:
        return
    event = unpack_payload(payload)
    assert (event.type, event.ts_ns) == (event_type, ts_ns)
    assert event.user == (None if user is None else str(user))
    assert set(unpack_props(event.props)) == {"value"}


@given(nearly_types, nearly_times, st.none() | st.text(max_size=280), anything)
def test_what_the_daemon_refuses_the_client_refuses(
    event_type: Any, ts_ns: Any, user: Any, value: Any
) -> None:
    event = (event_type, ts_ns, user, {"value": value})
    try:
        taken = accepts(daemon_side, *event)
    except (TypeError, ValueError, OverflowError):
        taken = False  # msgpack has no form for it
    # One thing the daemon stores that no client writes any more: control characters in a user.
    controlled = any(unicodedata.category(char) == "Cc" for char in user or "")
    assert accepts(client_side, *event) is (taken and not controlled)


@pytest.mark.parametrize(
    "event_type",
    ["a", "page_view", "a1_", "a" * 64, "order.paid", "user-login", "a.b-c_d.1", "a." * 31 + "ab"],
)
def test_an_event_type_is_lower_case_words_of_at_most_64_characters(event_type: str) -> None:
    assert check_event_type(event_type) == event_type


@pytest.mark.parametrize(
    "event_type",
    ["", "1a", "_a", "Login", "page view", "login\n", "é", "a" * 65, b"a", 1, None]
    + ["a.", "a-", ".a", "-a", "a..b", "a-.b", "a.B", "a/b", "a.b\n", "a." * 32 + "b", "٣", "a٣"],
)
def test_any_other_event_type_is_named_in_the_refusal(event_type: object) -> None:
    with pytest.raises(Malformed, match="event type"):
        check_event_type(event_type)


def test_a_user_is_text_or_a_whole_number_or_none() -> None:
    assert [check_user(user) for user in ("7", 7, -1, None)] == ["7", "7", "-1", None]


class Number(int, enum.Enum):
    SEVEN = 7


class Name(str, enum.Enum):  # noqa: UP042 - its text is "Name.SEVEN", which is the point
    SEVEN = "7"


class Described(str):
    """A text that describes itself as another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "a user"


class Counted(int):
    def __abs__(self) -> int:
        return 0

    def __str__(self) -> str:
        return "a user"


@pytest.mark.parametrize("user", [Number.SEVEN, Name.SEVEN, Described("7"), Counted(7)])
def test_a_user_is_what_a_text_or_number_is_and_not_how_it_describes_itself(user: object) -> None:
    stored = check_user(user)
    assert (stored, type(stored)) == ("7", str)


def test_a_user_has_at_most_255_bytes_of_utf_8() -> None:
    longest = ["s" * 255, "é" * 127 + "u", "🙂" * 63 + "abc"]
    assert [check_user(user) for user in longest] == longest
    for user in longest:
        with pytest.raises(Malformed, match=f"over the limit of {USER_BYTES_MAX}"):
            check_user(user + "u")


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0)])
@pytest.mark.parametrize("length", [0, 2, 200])
def test_a_client_logs_no_user_with_control_characters_and_the_daemon_still_stores_one(
    number: int, length: int
) -> None:
    user = "u" * length + chr(number)
    with pytest.raises(Malformed, match=rf"^user .*control character U\+{number:04X}; log an id"):
        check_user(user)
    assert check_stored_user(user) == user


@pytest.mark.parametrize(
    "user", [" a b ", "\u202egro", "7\u200b", "\u2028", "\xa0", "\ufeff7", "🙂"]
)
def test_a_user_may_have_what_is_not_printable_but_no_control_character(user: str) -> None:
    assert check_user(user) == user


class Claims:
    """Says that it is a text, as a mock with a specification does."""

    __class__ = str  # type: ignore[assignment] # it lies about its class


@pytest.mark.parametrize(
    "user",
    ["", True, 1.0, b"7", ["7"], "x" * 100 + "\ud800", object(), Claims(), 2**63, Counted(2**63)],
    ids=lambda user: type(user).__name__,
)
def test_anything_else_is_not_a_user(user: object) -> None:
    with pytest.raises(Malformed, match="user"):
        check_user(user)


@pytest.mark.parametrize("ts_ns", [-1, INT64_MAX + 1, 1.0, True, None, "1"])
def test_a_time_is_whole_nanoseconds_within_signed_64_bits(ts_ns: object) -> None:
    assert check_ts_ns(0) == 0
    assert check_ts_ns(INT64_MAX) == INT64_MAX
    with pytest.raises(Malformed, match="ts_ns"):
        check_ts_ns(ts_ns)


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return {"a": value}


def test_props_may_be_16_levels_deep_and_no_deeper() -> None:
    check_props(nested(PROPS_DEPTH_MAX))
    with pytest.raises(Malformed, match="nested deeper than 16"):
        check_props(nested(PROPS_DEPTH_MAX + 1))


def test_props_that_hold_themselves_are_nested_too_deep() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(Malformed, match="nested deeper"):
        check_props(endless)


@pytest.mark.parametrize(
    "value", [b"bytes", {1}, object(), datetime.datetime(2026, 1, 1), {1: 2}, [b"x"], {"a": {2: 3}}]
)
def test_props_hold_plain_values_under_text_keys_only(value: object) -> None:
    with pytest.raises(Malformed, match=r"props\.deep"):
        check_props({"deep": value})


@pytest.mark.parametrize("props", [[], "text", 1, [("a", 1)], {1}])
def test_props_are_a_map(props: object) -> None:
    with pytest.raises(Malformed, match="expected a map"):
        check_props(props)


def test_a_refusal_shows_at_most_80_characters_of_what_it_was_given() -> None:
    with pytest.raises(Malformed) as refused:
        check_event_type("x" * 10**6)
    assert len(str(refused.value)) < 250


def test_no_props_are_an_empty_map() -> None:
    payloads = {pack_payload(PACKER, "a", 1, None, None), pack_payload(PACKER, "a", 1, None, {})}
    assert [unpack_props(unpack_payload(payload).props) for payload in payloads] == [{}]
