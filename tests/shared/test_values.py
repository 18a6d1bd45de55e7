"""Values that applications log: a plain form, a mark, or a refusal as too large."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import math
import pathlib
import threading
import tracemalloc
import types
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from logd_client import Client
from logd_client import payload as payload_module
from logd_client.payload import event_payload
from logd_client.values import Conversion, TooLarge, plain_props
from logd_wire import schema as schema_module
from logd_wire.schema import PAYLOAD_BYTES_MAX, Malformed, check_ts_ns
from logd_wire.wire import unpack_payload, unpack_props
from tests.support import client_parts as parts
from tests.support.instance import Instance


class Role(enum.StrEnum):
    STUDENT = "student"


class Level(enum.IntEnum):
    THIRD = 3


class Colour(enum.Enum):
    RED = "red"
    RGB = (255, 0, 0)


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Result:
    score: float
    at: dt.date
    password: str = dataclasses.field(default="secret", repr=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    score: float


class Lying(dict[str, Any]):
    """A dict whose own methods say that it is empty."""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def keys(self) -> Any:
        return ()

    def items(self) -> Any:
        return ()


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


UTC = dt.UTC


def stored(value: Any, strict: bool = False) -> Any:
    """What the daemon takes for that value."""
    packed = event_payload("page_view", 1, None, {"value": value}, strict)
    return unpack_props(unpack_payload(packed).props)["value"]


PLAIN_FORMS: list[tuple[Any, Any]] = [
    (np.float64(0.8), 0.8),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (pd.NA, None),
    (pd.NaT, None),
    (np.datetime64("NaT"), None),
    (np.datetime64("2026-01-02"), "2026-01-02"),
    (np.timedelta64(90, "s"), "PT1M30S"),
    (pd.Timestamp("2026-01-02", tz="UTC"), "2026-01-02T00:00:00+00:00"),
    (pd.Timedelta("1 days 2 hours"), "P1DT2H"),
    (Markup("<b>"), "<b>"),
    (Loud("quiet"), "quiet"),
    (Role.STUDENT, "student"),
    (Level.THIRD, 3),
    (Colour.RED, "red"),
    (Colour.RGB, [255, 0, 0]),
    (Point(1, 2), [1, 2]),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(int, a=1), {"a": 1}),
    (Lying(a=1), {"a": 1}),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (collections.ChainMap({"a": 1}), {"a": 1}),
    (collections.deque([1]), [1]),
    (range(3), [0, 1, 2]),
    ({"a": 1}.keys(), ["a"]),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", 1, None}), [None, 1, "b"]),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.time(3, 4), "03:04:00"),
    (dt.timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=500_000), "P1DT2H3M4.5S"),
    (dt.timedelta(0), "PT0S"),
    (-dt.timedelta(microseconds=1), "-PT0.000001S"),
    (decimal.Decimal("0.80"), "0.80"),
    (fractions.Fraction(1, 3), "1/3"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (pathlib.PurePosixPath("/a/b"), "/a/b"),
    (b"\x01\xff", "01ff"),
    (bytearray(b"\x01"), "01"),
    (memoryview(b"\x02"), "02"),
    (2**64, "18446744073709551616"),
    (-(2**63) - 1, "-9223372036854775809"),
    ("a\udcff", "a\\udcff"),
    (Result(0.8, dt.date(2026, 1, 2)), {"score": 0.8, "at": "2026-01-02"}),
    (Slotted(0.8), {"score": 0.8}),
]
MARKS: list[tuple[Any, str]] = [
    (object(), "<not logged: object>"),
    (iter([]), "<not logged: list_iterator>"),
    (ValueError("x"), "<not logged: ValueError>"),
    (np.array([1]), "<not logged: numpy.ndarray>"),
    (pd.Series([1]), "<not logged: pandas.Series>"),
    (10**5000, "<not logged: int>"),
    (len, "<not logged: builtin_function_or_method>"),
    (int, "<not logged: type>"),
]


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
    Endless.MEMBER._value_ = Endless.MEMBER  # type: ignore[assignment]
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


# -- bounds --------------------------------------------------------------------------------------


def nested(levels: int, width: int) -> list[Any]:
    value: list[Any] = [1] * width
    for _ in range(levels - 1):
        value = [value] * width
    return value


class EndlessMap(Mapping[int, int]):
    def __iter__(self) -> Iterator[int]:
        number = 0
        while True:
            yield (number := number + 1)

    def __getitem__(self, key: int) -> int:
        return key

    def __len__(self) -> int:
        return 1


HUGE: dict[str, Any] = {
    "a million numbers": [1] * 10**6,
    "text": "x" * 10**7,
    "a text that is not ASCII": "é" * 10**7,
    "bytes": b"x" * 10**7,
    "a long range": range(10**12),
    "a wide map": {str(n): n for n in range(50_000)},
    "a key": {"k" * 10**6: 1},
    "a set": set(range(50_000)),
    "shared references": nested(14, 10),
    "shared maps": {"a": (a := dict.fromkeys(map(str, range(5000)), 1)), "b": [a] * 20},
    "many marks": [object()] * 30_000,
    "many empty arrays": [[]] * 32_000,
    "many dates": [dt.date(2026, 1, 1)] * 10_000,
    "a mapping without an end": EndlessMap(),
    "a number": decimal.Decimal("1" * 100_000),
}


@pytest.mark.parametrize("what", HUGE)
@pytest.mark.parametrize("within", [False, True])
def test_what_is_too_large_is_refused_before_it_is_looked_through_or_packed(
    monkeypatch: pytest.MonkeyPatch, what: str, within: bool
) -> None:
    visited = packed = 0
    visit = Conversion.value

    def counted(self: Conversion, value: Any, depth_left: int) -> Any:
        nonlocal visited
        visited += 1
        return visit(self, value, depth_left)

    def pack(value: object) -> bytes:
        nonlocal packed
        made: bytes = msgpack.packb(value)
        packed += len(made)
        return made

    monkeypatch.setattr(Conversion, "value", counted)
    monkeypatch.setattr(payload_module, "_spare_pack", pack)
    value = HUGE[what]
    props = {"a": [value]} if within else value if type(value) is dict else {"a": value, "b": 1}
    with pytest.raises(Malformed, match="too large"):
        event_payload("page_view", 1, None, props, strict=False)
    assert visited <= PAYLOAD_BYTES_MAX
    assert packed <= 2 * PAYLOAD_BYTES_MAX


class _Looked(set[str]):
    """A set that lists what is looked up in it: that reads all of a text that is new."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0

    def __contains__(self, text: object) -> bool:
        self.longest = max(self.longest, len(str(text)))
        return super().__contains__(text)


def test_a_type_that_is_too_long_is_refused_before_it_is_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = _Looked()
    monkeypatch.setattr(payload_module, "_known_types", known)
    monkeypatch.setattr(schema_module, "_known_types", known)
    event_payload("page_view", 1, None, None, strict=False)
    with pytest.raises(Malformed, match="event type"):
        event_payload("x" * 10**6, 1, None, None, strict=False)
    assert known.longest == len("page_view")


class _Unequal(str):
    """A key of the caller's own that cannot be compared."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("compared")


def test_a_key_that_raises_in_a_look_up_is_logged_as_its_text() -> None:
    event_payload("page_view", 1, None, {"path": "/"}, strict=False)
    payload = event_payload("page_view", 1, None, {_Unequal("path"): "/"}, strict=False)
    assert unpack_props(unpack_payload(payload).props) == {"path": "/"}


def test_keys_are_remembered_up_to_a_number_and_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()
    monkeypatch.setattr(payload_module, "_known_keys", known)
    monkeypatch.setattr(payload_module, "_KNOWN_KEYS_MAX", 3)
    props = {"x" * 65: 1, "y" * 64: 2, "a": 3, "b": 4, "c": 5}
    for _ in range(2):
        payload = event_payload("page_view", 1, None, props, strict=False)
        assert unpack_props(unpack_payload(payload).props) == props
    assert known == {"y" * 64, "a", "b"}


@pytest.mark.parametrize("key", [1, b"path", None, Role.STUDENT])
def test_a_key_that_is_not_plain_text_is_not_remembered(
    key: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: set[str] = set()
    monkeypatch.setattr(payload_module, "_known_keys", known)
    payload = event_payload("page_view", 1, None, {key: 1}, strict=False)
    assert all(type(name) is str for name in unpack_props(unpack_payload(payload).props))
    assert known == set()


def test_keys_of_a_mapping_are_measured_before_any_is_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converted: list[object] = []
    visit = Conversion.value

    def noted(self: Conversion, value: Any, depth_left: int) -> Any:
        converted.append(value)
        return visit(self, value, depth_left)

    monkeypatch.setattr(Conversion, "value", noted)
    keys = types.MappingProxyType({1: 1, "k" * (PAYLOAD_BYTES_MAX + 1): 2})
    with pytest.raises(TooLarge):
        plain_props(keys)
    assert not converted


def test_a_record_of_numpy_that_is_too_large_is_not_copied() -> None:
    record = np.zeros(1, dtype="V10000000")[0]
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            plain_props({"a": record})
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10**6


def test_the_largest_text_is_taken_and_a_byte_more_is_not() -> None:
    room = PAYLOAD_BYTES_MAX - len(event_payload("a", 1, None, {"v": "x" * 1000}, False)) + 1000
    for value in ("x", Loud("x")):
        assert len(event_payload("a", 1, None, {"v": value * room}, False)) == PAYLOAD_BYTES_MAX
        with pytest.raises(Malformed, match="too large"):
            event_payload("a", 1, None, {"v": value * (room + 1)}, False)


def test_as_many_values_as_bytes_are_taken() -> None:
    assert len(stored([1] * 32_000)) == 32_000
    with pytest.raises(TooLarge):
        plain_props({"a": [[1] * 20_000, [1] * 20_000]})


# -- foreign code --------------------------------------------------------------------------------

CALLED: list[str] = []


def _hostile(name: str) -> Any:
    def method(*_: Any, **__: Any) -> Any:
        CALLED.append(name)
        raise RuntimeError(name)

    return method


METHODS = [
    *("__repr__", "__str__", "__eq__", "__len__", "__iter__", "__getitem__", "__contains__"),
    *("__bool__", "__int__", "__float__", "__index__", "__format__", "__getattr__"),
    *("__getattribute__", "items", "keys", "values", "copy", "isoformat", "hex", "encode", "item"),
]


def hostile(base: Any, *arguments: Any) -> Any:
    """Of a subclass whose every method fails, and which claims another class."""
    methods = {name: _hostile(name) for name in METHODS}
    claims = property(_hostile("__class__"))
    kind = type("Hostile", (base,), {**methods, "__hash__": base.__hash__, "__class__": claims})
    return kind(*arguments)


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
        (ValueError, "x", "<not logged: tests.shared.test_values.Hostile>"),
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

KNOWN = [
    *(value for value, _ in PLAIN_FORMS + MARKS),
    *(np.float16(1), np.longdouble(1.5), np.complex64(1), np.void(b"x"), np.datetime64(1, "ns")),
    *(np.timedelta64(3, "Y"), pd.Period("2026-01"), pd.Interval(0, 1), pd.DataFrame({"a": [1]})),
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=8)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.fractions()
    | st.uuids()
    | st.complex_numbers()
    | st.integers(0, len(KNOWN) - 1).map(lambda number: KNOWN[number])
    | st.builds(hostile, st.just(object))
    | st.sampled_from(list(HUGE)).map(lambda what: HUGE[what])
)
hashable = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.frozensets(hashable, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(types.MappingProxyType)
        | st.builds(Result, inner, inner)
        | inner.map(lambda value: (value for _ in range(2)))
    ),
    max_leaves=10,
)


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
        parts.session(client).write = lambda *args: (written.append(args[1]), write(*args))[1]  # type: ignore
        accepted = client.emit("quiz_submitted", user="7", props=props)
        stats = client.stats()
    assert stats["attempted"] == 2 == stats["accepted"] + stats["refused"]
    assert stats["refused_by_cause"] == ({} if accepted else {"malformed": 1})
    assert len(written) == accepted
    for packed in written:
        unpack_payload(packed)  # and so the daemon takes it
