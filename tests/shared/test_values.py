"""Values that applications log: a plain form, a mark, or a refusal as too large."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import math
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from logd_client import Client
from logd_client import payload as payload_module
from logd_client.payload import event_payload
from logd_client.producer import Producer
from logd_client.values import plain_props
from logd_wire.schema import Malformed, check_ts_ns
from logd_wire.wire import unpack_payload, unpack_props
from tests.shared.sample_values import (
    CALLED,
    MARKS,
    PLAIN_FORMS,
    EndlessMap,
    Role,
    anything,
    hashable,
    hostile,
    stored,
)
from tests.support import client_parts as parts
from tests.support.instance import Instance


@pytest.mark.parametrize(("value", "form"), PLAIN_FORMS, ids=lambda one: type(one).__name__)
def test_a_value_that_people_log_goes_in_its_plain_form(value: Any, form: Any) -> None:
    for strict in (False, True):
        found = stored(value, strict)
        assert (found, type(found)) == (form, type(form))
        assert stored([{"within": value}], strict) == [{"within": form}]


@pytest.mark.parametrize(("value", "mark"), MARKS, ids=lambda one: type(one).__name__)
def test_what_has_no_form_is_marked_and_keeps_the_event(value: Any, mark: str) -> None:
    assert stored(value) == mark
    assert stored({"deep": [value, 1]}) == {"deep": [mark, 1]}
    with pytest.raises(Malformed, match=r"^props\.value\.deep\[\]: "):
        stored({"deep": [value]}, strict=True)


def test_a_cycle_ends_in_a_mark_at_the_depth_that_an_event_may_have() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    text = str(stored(cycle))
    assert text == "[" * 15 + "'<not logged: nested deeper than 16 levels>'" + "]" * 15


class Endless(enum.Enum):
    MEMBER = 1


def test_a_member_whose_value_is_itself_is_marked() -> None:
    Endless.MEMBER._value_ = Endless.MEMBER  # type: ignore[assignment] # no enum has this
    assert stored(Endless.MEMBER).startswith("<not logged: ")


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_floats_that_are_no_numbers_go_as_they_are(value: float) -> None:
    assert stored(value) == value
    assert math.isnan(stored([math.nan])[0])


# -- keys ----------------------------------------------------------------------------------------


def test_keys_become_the_text_that_json_has_for_them() -> None:
    keys: dict[Any, int] = {
        1: 1, 2.5: 2, True + 1: 3, None: 4, (1, "a"): 5, dt.date(2026, 1, 2): 6,
        Role.STUDENT: 7, b"\x01": 8, "é": 9, "\udcff": 10, False: 11,
    }  # fmt: skip
    assert list(stored(keys)) == [
        "1", "2.5", "2", "null", '[1,"a"]', "2026-01-02",
        "student", "01", "é", "\\udcff", "false",
    ]  # fmt: skip


def test_no_two_keys_become_one_and_text_keeps_its_name() -> None:
    given = {1: "number", "1": "text", "1 (2)": "other", object(): "a", object(): "b"}
    assert stored(given) == {
        "1 (3)": "number",
        "1": "text",
        "1 (2)": "other",
        "<not logged: object>": "a",
        "<not logged: object> (2)": "b",
    }


# -- foreign code --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "argument", "form"),
    [
        (str, "x", "x"),
        (int, 7, 7),
        (float, 0.5, 0.5),
        (dict, {"a": 1}, {"a": 1}),
        (list, [1], [1]),
        (tuple, [1], [1]),
        (frozenset, [1], [1]),
        (bytes, b"x", "78"),
        (decimal.Decimal, "0.80", "0.80"),
        (np.float64, 0.5, 0.5),
        (np.int64, 7, 7),
        (ValueError, "x", "<not logged: tests.shared.sample_values.Hostile>"),
    ],
)
def test_no_method_of_a_value_s_own_is_run(base: Any, argument: Any, form: Any) -> None:
    value = hostile(base, argument)
    CALLED.clear()
    packed = event_payload("page_view", 1, None, {"value": value, "list": [value]}, False)
    assert CALLED == []
    assert unpack_props(unpack_payload(packed).props) == {"value": form, "list": [form]}


def test_a_refusal_does_not_ask_a_value_what_it_is() -> None:
    value = hostile(object)
    CALLED.clear()
    for event_type, user, props in ((value, None, None), ("x", value, None), ("x", None, value)):
        with pytest.raises(Malformed):
            event_payload(event_type, 1, user, props, False)
    with pytest.raises(Malformed):
        check_ts_ns(value)
    assert CALLED == []


def test_a_mapping_that_fails_is_marked_and_as_props_refused() -> None:
    class Failing(EndlessMap):
        def __iter__(self) -> Iterator[int]:
            raise OSError

    assert stored(Failing()).startswith("<not logged: ")
    with pytest.raises(Malformed, match="cannot be read: OSError"):
        plain_props(Failing())


def test_a_type_is_taken_from_an_enumeration_as_its_text() -> None:
    packed = event_payload(Role.STUDENT, 1, Role.STUDENT, None, False)
    event = unpack_payload(packed)
    assert (event.type, event.user) == ("student", "student")


def test_props_that_another_thread_changes_are_those_of_one_moment() -> None:
    shared: dict[Any, Any] = {"first": {}}
    done = threading.Event()

    def change() -> None:
        number = 0
        while not done.is_set():
            number += 1
            shared[f"k{number % 50}"] = [number, {"n": number}]
            shared["first"][number % 40] = b"bytes"
            shared.pop(f"k{(number + 25) % 50}", None)
            shared["first"].pop((number + 20) % 40, None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            unpack_payload(event_payload("page_view", 1, None, shared, True))
            unpack_payload(
                event_payload("page_view", 1, None, collections.OrderedDict(shared), True)
            )
    finally:
        done.set()
        thread.join()


def test_flat_props_are_copied_at_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    props: dict[str, Any] = {"a": 1}

    def pack(value: object) -> bytes:
        props["a"] = b"another thread's"
        made: bytes = msgpack.packb(value)
        return made

    monkeypatch.setattr(payload_module, "_spare_pack", pack)
    packed = event_payload("page_view", 1, None, props, False)
    assert unpack_props(unpack_payload(packed).props) == {"a": 1}


# -- whatever is logged --------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(hashable, anything, max_size=4) | anything)
@example({"a": "\ud800", "b": 2**70})
def test_whatever_is_logged_the_event_is_whole_marked_or_refused_and_counted(
    instance: Instance, props: Any
) -> None:
    written: list[bytes] = []
    with Client(instance.socket, outbox_bytes=256 * 1024) as client:
        assert client.emit("page_view")
        write = parts.session(client).write

        def noted(producer: Producer, packed: bytes, awaited: bool) -> int:
            written.append(packed)
            return write(producer, packed, awaited)

        with pytest.MonkeyPatch.context() as context:
            context.setattr(parts.session(client), "write", noted)
            accepted = client.emit("quiz_submitted", user="7", props=props)
        stats = client.stats()
    assert stats["attempted"] == 2 == stats["accepted"] + stats["refused"]
    assert stats["refused_by_cause"] == ({} if accepted else {"malformed": 1})
    assert len(written) == accepted
    for packed in written:
        unpack_payload(packed)  # and so the daemon takes it
