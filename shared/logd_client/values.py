"""Converts the values that applications log into values that an event can carry.

Used where an event's properties are not all plain text and numbers. The work for one event is
bounded. The text forms, the marks and the names of keys are in PROTOCOL.md, "Other values of a
program".

A subclass of a plain type goes as that type, by the type's own methods, so that no overridden one
runs. The only caller's code that runs here is that of time zones and of mappings other than dict;
an exception in it replaces the value by a mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from logd_client.forms import INT_MAX, INT_MIN, form_of, is_map_form
from logd_wire.schema import PAYLOAD_BYTES_MAX, PROPS_DEPTH_MAX, Malformed, type_name

KEY_CHARS_SHOWN = 40
# The cost of converting a container or another value,
# counted in plain values. It bounds the time that any event takes.
CONTAINER_COST = 4
FORM_COST = 8

_AS_THEY_ARE = frozenset({float, bool, type(None)})


class TooLarge(Malformed):
    """The event has more values, or more text, than an event may have."""


class Unloggable(Malformed):
    """A value that has no form in an event. `place` is its place in the properties."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.place = ""
        self._why = why

    def found_in(self, key: str | None) -> None:
        """Prepends to `place` the key that holds the value; `[]` if `key` is None (an array)."""
        self.place = ("[]" if key is None else f".{key[:KEY_CHARS_SHOWN]}") + self.place

    def __str__(self) -> str:
        return f"props{self.place}: {self._why}"


def plain_props(props: object, strict: bool = False) -> dict[str, Any]:
    """Returns the properties as a dict of plain values that the caller cannot change any more.

    Raises TooLarge, and Malformed if `props` is not a mapping or cannot be read. With `strict` also
    Unloggable, for a value that would be marked.
    """
    work = Conversion(strict)
    if type(props) is dict:
        made: dict[str, Any] = work.value(props, PROPS_DEPTH_MAX)
        return made
    name = type_name(type(props))
    try:
        form = form_of(type(props))
        if not is_map_form(form):
            raise Malformed(f"props: expected a map, not {name}")
        made = form(work, props, PROPS_DEPTH_MAX)
    except Malformed:
        raise
    except Exception as error:
        raise Malformed(f"props: a {name} that cannot be read: {type_name(type(error))}") from error
    return made


def plain_text(value: object) -> object:
    """Returns the text that an instance of str or its subclass holds; any other value unchanged."""
    return str.__str__(value) if issubclass(type(value), str) else value


class Conversion:
    """Converts one event's properties, within a bound on their size.

    Each value takes at least a byte and a text its length, so one number bounds both the values
    visited (those referred to twice count twice) and the bytes.
    """

    __slots__ = ("left", "strict")

    def __init__(self, strict: bool) -> None:
        self.left = PAYLOAD_BYTES_MAX
        self.strict = strict

    def charge(self, count: int) -> None:
        """Takes `count` values or bytes off the bound.

        Raises TooLarge if the bound is exceeded.
        """
        self.left -= count
        if self.left < 0:
            raise TooLarge(
                f"too large: over the limit of {PAYLOAD_BYTES_MAX} bytes, counting at least one for"
                " each value"
            )

    def expect(self, count: int) -> None:
        """Raises TooLarge if that many more values or bytes would exceed the bound."""
        if count > self.left:
            self.charge(count)

    def value(self, value: Any, depth_left: int) -> Any:
        """Returns the plain form of a value, or a mark. Raises as `plain_props` does.

        The value itself is already charged for.
        """
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is dict:
            return self.map(value, depth_left)
        if kind is list:
            return self.array(value, depth_left)
        if kind in _AS_THEY_ARE or (kind is int and INT_MIN <= value <= INT_MAX):
            return value
        self.charge(FORM_COST)
        try:
            return form_of(kind)(self, value, depth_left)
        except Malformed:
            raise
        except Exception:  # noqa: BLE001 - the caller's code raises what it likes
            return self.mark(kind)

    def text(self, text: str) -> str:
        """Returns the text with lone surrogates, as in names of files, written out as escapes."""
        self.charge(len(text))
        if text.isascii():
            return text
        return text.encode("utf-8", "backslashreplace").decode()

    def map(self, given: dict[Any, Any], depth_left: int) -> Any:
        """Converts a plain dict to a map."""
        if depth_left == 0:
            return self.too_deep()
        before, count = self.left, len(given)
        if count > before:
            self.charge(count)
        # The dict is copied, since another thread may be changing it.
        own = given.copy()
        # The items are charged before they are converted,
        # so that a map that contains itself reaches the limit.
        self.left -= CONTAINER_COST + count
        key, chars = None, 0
        try:
            for key, value in own.items():
                if type(key) is not str or not key.isascii():
                    self.left = before
                    return self.renamed(list(own), own.values(), depth_left)
                chars += len(key)
                kind = type(value)
                if kind is str:
                    if value.isascii():
                        chars += len(value)
                        continue
                elif kind in _AS_THEY_ARE or (kind is int and INT_MIN <= value <= INT_MAX):
                    continue
                own[key] = self.value(value, depth_left - 1)
        except Unloggable as error:
            error.found_in(key)
            raise
        self.left -= chars
        if self.left < 0:
            self.charge(0)
        return own

    def renamed(self, keys: list[Any], values: Iterable[Any], depth_left: int) -> Any:
        """Returns a map with the keys converted to text, and made distinct."""
        if depth_left == 0:
            return self.too_deep()
        self.charge(CONTAINER_COST + len(keys))
        # The keys' length is charged before they are hashed, which reads all of them.
        self.expect(sum(len(key) for key in keys if type(key) is str))
        # A key that is text keeps its name; a converted key with the same text gets another one.
        taken = {key for key in keys if type(key) is str}
        numbers: dict[str, int] = {}
        made = {}
        for key, value in zip(keys, values, strict=True):
            name = self._name(key, depth_left)
            if type(key) is not str or name != key:
                name = _free_name(name, taken, numbers)
                taken.add(name)
            try:
                made[name] = self.value(value, depth_left - 1)
            except Unloggable as error:
                error.found_in(name)
                raise
        return made

    def _name(self, key: Any, depth_left: int) -> str:
        plain = self.value(key, depth_left)
        if type(plain) is str:
            return plain
        return self.text(json.dumps(plain, ensure_ascii=False, separators=(",", ":")))

    def array(self, given: list[Any], depth_left: int) -> Any:
        """Converts a plain list to an array."""
        if depth_left == 0:
            return self.too_deep()
        count = len(given)
        if count > self.left:
            self.charge(count)
        own = given.copy()
        self.left -= CONTAINER_COST + count
        chars = 0
        try:
            for at, item in enumerate(own):
                kind = type(item)
                if kind is str:
                    if item.isascii():
                        chars += len(item)
                        continue
                elif kind in _AS_THEY_ARE or (kind is int and INT_MIN <= item <= INT_MAX):
                    continue
                own[at] = self.value(item, depth_left - 1)
        except Unloggable as error:
            error.found_in(None)
            raise
        self.left -= chars
        if self.left < 0:
            self.charge(0)
        return own

    def mark(self, kind: type) -> str:
        """Returns the mark that replaces a value of a type that an event cannot carry."""
        name = type_name(kind)
        return self._marked(name, f"a value of type {name} has no form in an event")

    def too_deep(self) -> str:
        """Returns the mark that replaces a container that is one level too deep."""
        name = f"nested deeper than {PROPS_DEPTH_MAX} levels"
        return self._marked(name, name)

    def _marked(self, name: str, why: str) -> str:
        if self.strict:
            raise Unloggable(why)
        return self.text(f"<not logged: {name}>")


def _free_name(name: str, taken: set[str], numbers: dict[str, int]) -> str:
    if name not in taken:
        return name
    number = numbers.get(name, 1)
    while True:
        number += 1
        free = f"{name} ({number})"
        if free not in taken:
            numbers[name] = number
            return free
