"""Values that applications log, and some that they should not: plain, huge and hostile ones."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import types
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from markupsafe import Markup

from logd_client.payload import event_payload
from logd_wire.wire import unpack_payload, unpack_props


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


def stored(value: Any, strict: bool = False) -> Any:
    """What the daemon takes for that value."""
    packed = event_payload("page_view", 1, None, {"value": value}, strict)
    return unpack_props(unpack_payload(packed).props)["value"]
