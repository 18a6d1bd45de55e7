"""The plain form of each type of value that an event cannot carry as it is.

A form is made by the type's own methods, never by those of a subclass. Errors are left to the
caller, `logd_client.values`, which bounds the work and marks values that have no form.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import PurePath
from types import MemberDescriptorType
from typing import Any, Protocol
from uuid import UUID

INT_MIN, INT_MAX = -(2**63), 2**64 - 1  # the range of msgpack's integers
# Decimal text of larger numbers takes long to make; no key or counter is as large.
INT_BITS_MAX = 8192
# How many times a value is read that another thread changes meanwhile.
_TRIES = 3

_MICROSECOND = timedelta(microseconds=1)
_empty: dict[Any, Any] = {}
_VIEWS: tuple[type, ...] = (type(_empty.keys()), type(_empty.values()), type(_empty.items()))


class Conversion(Protocol):
    """The methods of `logd_client.values.Conversion` that the forms use."""

    def expect(self, count: int) -> None: ...

    def value(self, value: Any, depth_left: int) -> Any: ...

    def text(self, text: str) -> str: ...

    def map(self, given: dict[Any, Any], depth_left: int) -> Any: ...

    def renamed(self, keys: list[Any], values: Iterable[Any], depth_left: int) -> Any: ...

    def array(self, given: list[Any], depth_left: int) -> Any: ...

    def mark(self, kind: type) -> str: ...


# A form is called with the conversion, the value, and how many levels may still be in it.
Form = Callable[[Conversion, Any, int], Any]


def _decimal_text(number: int) -> str:
    if number.bit_length() > INT_BITS_MAX:
        raise ValueError("a number of too many digits")
    return int.__repr__(number)


def _read(iterate: Callable[[], Iterable[Any]]) -> list[Any]:
    """Reads all items consistently, though another thread may add and remove some."""
    for _ in range(_TRIES - 1):
        try:
            return list(iterate())
        except RuntimeError:
            continue
    return list(iterate())


def _map(work: Conversion, value: Any, depth_left: int) -> Any:
    work.expect(dict.__len__(value))
    # The items are not copied to a dict, which would call the keys' own `__hash__` and `__eq__`.
    items = _read(partial(dict.items, value))
    return work.renamed([key for key, _ in items], [item for _, item in items], depth_left)


def _mapping(work: Conversion, value: Any, depth_left: int) -> Any:
    """Converts a mapping of the caller's own type, whose iteration may never end."""
    keys: list[Any] = []
    values: list[Any] = []
    for key in value:
        work.expect(len(keys) + 1)
        keys.append(key)
        values.append(value[key])
    return work.renamed(keys, values, depth_left)


def _array_of(base: Any) -> Form:
    def form(work: Conversion, value: Any, depth_left: int) -> Any:
        work.expect(base.__len__(value))
        return work.array(_read(partial(base.__iter__, value)), depth_left)

    return form


def _set_of(base: Any) -> Form:
    array = _array_of(base)

    def form(work: Conversion, value: Any, depth_left: int) -> Any:
        plain = array(work, value, depth_left)
        if type(plain) is list:
            try:
                plain.sort()
            except TypeError:  # items of several types have no order of their own
                plain.sort(key=lambda item: (type(item).__name__, repr(item)))
        return plain

    return form


def _text_by(method: Callable[[Any], str]) -> Form:
    return lambda work, value, _depth_left: work.text(str.__str__(method(value)))


def _hexadecimal(base: Any) -> Form:
    def form(work: Conversion, value: Any, _depth_left: int) -> str:
        work.expect(2 * (value.nbytes if base is memoryview else base.__len__(value)))
        return work.text(base.hex(value))

    return form


def _integer(work: Conversion, value: Any, _depth_left: int) -> Any:
    number = int.__int__(value)
    return number if INT_MIN <= number <= INT_MAX else work.text(_decimal_text(number))


def _number(_work: Conversion, value: Any, _depth_left: int) -> float:
    return float.__float__(value)


def _decimal(work: Conversion, value: Any, _depth_left: int) -> str:
    work.expect(Decimal.__sizeof__(value))
    return work.text(Decimal.__str__(value))


def _fraction(work: Conversion, value: Any, _depth_left: int) -> str:
    above, below = value._numerator, value._denominator
    return work.text(f"{_decimal_text(int(above))}/{_decimal_text(int(below))}")


def _duration(value: timedelta) -> str:
    """Formats a duration as ISO 8601: P1DT2H3M4.5S."""
    microseconds = timedelta.__floordiv__(value, _MICROSECOND)
    sign = "-" if microseconds < 0 else ""
    seconds, microseconds = divmod(abs(microseconds), 10**6)
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    part = f".{microseconds:06}".rstrip("0") if microseconds else ""
    clock = "".join(f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M")) if number)
    if seconds or part or not (days or clock):
        clock += f"{seconds}{part}S"
    return f"{sign}P{f'{days}D' if days else ''}{f'T{clock}' if clock else ''}"


def _member(work: Conversion, value: Any, depth_left: int) -> Any:
    """Converts an enumeration's member by its value, which may not be a member itself."""
    inner = object.__getattribute__(value, "_value_")
    if issubclass(type(inner), Enum):
        return work.mark(type(value))
    return work.value(inner, depth_left)


def _numpy_scalar(work: Conversion, value: Any, depth_left: int) -> Any:
    numpy, kind = sys.modules["numpy"], type(value)
    is_time, is_duration = issubclass(kind, numpy.datetime64), issubclass(kind, numpy.timedelta64)
    if (is_time or is_duration) and numpy.isnat(value):
        return None
    if is_time:
        return work.text(str(numpy.datetime_as_string(value)))
    if is_duration:
        value = numpy.timedelta64(value, "us")
    work.expect(numpy.generic.nbytes.__get__(value))  # a structured value may have any size
    item = numpy.generic.item(value)
    # For a long double, `item` returns another long double, not a Python number.
    if issubclass(type(item), numpy.generic):
        return work.mark(kind)
    return work.value(item, depth_left)


def _dataclass(work: Conversion, value: Any, depth_left: int) -> Any:
    """Converts the dataclass fields that `repr` shows and that can be read without running code."""
    kind = type(value)
    fields = dataclasses.fields(kind)
    work.expect(len(fields))
    try:
        state = object.__getattribute__(value, "__dict__")
    except AttributeError:
        state = {}  # an instance of a class with __slots__ has no __dict__
    shown = {}
    for field in fields:
        name = field.name
        if not field.repr:
            continue
        if name in state:
            shown[name] = state[name]
        elif type(slot := _class_entry(kind, name)) is MemberDescriptorType:
            shown[name] = slot.__get__(value)
    return work.map(shown, depth_left)


def _class_entry(kind: type, name: str) -> Any:
    return next((base.__dict__[name] for base in kind.__mro__ if name in base.__dict__), None)


def _missing(_work: Conversion, _value: Any, _depth_left: int) -> None:
    """Converts pandas' NA and NaT to None."""


def _unknown(work: Conversion, value: Any, _depth_left: int) -> str:
    return work.mark(type(value))


# The order matters: a member of an IntEnum is an int, a datetime is a date.
_FORMS: tuple[tuple[type, Form], ...] = (
    (str, _text_by(str.__str__)),
    (int, _integer),
    (float, _number),
    (dict, _map),
    *((base, _array_of(base)) for base in (list, tuple, deque, range)),
    *((base, _array_of(base)) for base in _VIEWS),
    *((base, _set_of(base)) for base in (set, frozenset)),
    *((base, _hexadecimal(base)) for base in (bytes, bytearray, memoryview)),
    (Enum, _member),
    (datetime, _text_by(datetime.isoformat)),
    (date, _text_by(date.isoformat)),
    (time, _text_by(time.isoformat)),
    (timedelta, _text_by(_duration)),
    (Decimal, _decimal),
    (Fraction, _fraction),
    (UUID, _text_by(UUID.__str__)),
    (PurePath, _text_by(PurePath.__str__)),
)


def _find_form(kind: type) -> Form:
    # A program that has not loaded these modules cannot pass a value of theirs.
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if kind in (type(getattr(pandas, "NA", None)), type(getattr(pandas, "NaT", None))):
        return _missing  # found before `datetime`, since NaT is an instance of it
    for base, form in _FORMS:
        if issubclass(kind, base):
            return form
    if issubclass(kind, getattr(numpy, "generic", ())):
        return _numpy_scalar
    if _class_entry(kind, "__dataclass_fields__") is not None:
        return _dataclass
    return _mapping if issubclass(kind, Mapping) else _unknown


# Finds the form for a type's values. The cache is bounded, since it keeps the types alive.
form_of: Callable[[type], Form] = lru_cache(maxsize=256)(_find_form)


def is_map_form(form: Form) -> bool:
    """Whether a value of this form always becomes a map, as properties must."""
    return form in (_map, _mapping)
