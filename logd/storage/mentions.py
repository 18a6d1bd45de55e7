"""Finds where the properties of an event name a person, for access, erasure and reports (pure).

This is the only definition; shared/PROTOCOL.md explains it to authors of clients ("Naming
persons").

A value names a person by its place and its spelling (`canonical`). Its place is, at any depth,

- under a person key (`PersonKeys`): the value itself, or the items of a list, however nested;
- as a key of a map that stands there: `{"users": {"7": 0.5}}`; unless it is a map under a singular
  key that has an IDENTITY: then it describes a person, and its keys are names of fields;
- under an IDENTITY of a map that stands there: `{"user": {"id": 7, "score": 7}}`;
- in a list of a map that stands under a plural key, as text: `{"users": {"red": ["7", "8"]}}`.

Everything else in such a map is a figure or a text of its own. So is a number alone under a plural
key, which is a count: `{"users": 7}`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

import msgpack

from logd.config.table import DEFAULTS
from logd_wire.schema import Malformed
from logd_wire.wire import unpack_pairs, unpack_props

ERASED = "(erased)"
ANOTHER = "(another)"
# The properties of a map that identify the person whom it describes, in the spelling of keys.
IDENTITY = frozenset({"id", "uid", "pk", "sub", "name"})
# Keys that logd and its Flask extension write themselves; they name persons in any configuration.
OWN_KEYS = ("user", "login", "actor", "switched_to", "member")

# The ASCII characters that are the normalisation (NFC) of another one: the Kelvin sign is K.
NORMAL_OF_ANOTHER = frozenset("K;`")

_SEPARATORS = b"_-. "
# The text in place of an erased person, which is no id, even if a user has it.
_ERASED = re.compile(r"\(erased\)(?: [0-9]+)?")
_MASKED = re.compile(r"\((?:erased|another)\)(?: [0-9]+)?")
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")

Value = str | int | float
IsPerson = Callable[[Value], bool]
# A function that returns what replaces a value in the place of a person; None to keep it.
_Change = Callable[[Value], str | None]


def canonical(value: Value) -> str:
    """Returns the spelling of an id by which ids are compared.

    4711, 4711.0 and "4711.0" are "4711"; texts that Unicode defines as the same (NFC, NFD) are one.
    No other spellings are the same: "007" and "7", "Anna" and "anna" are two persons each.
    """
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    if value.endswith("0") and (whole := _WHOLE.fullmatch(value)):
        return whole[1]
    return value if value.isascii() else unicodedata.normalize("NFC", value)


def is_person(user: str) -> IsPerson:
    """Returns a check whether a value is the user's id, in any spelling."""
    wanted = canonical(user)
    return lambda value: canonical(value) == wanted


class _Place(Enum):
    NONE = 0
    ONE = 1  # a value below a singular key, or in a list below any person key
    MANY = 2  # a value below a plural key, such as `users`: a text is a person, a number a count
    GROUP = 3  # a value in a list of a map below a plural key


class _Pairs(list[tuple[str, Any]]):
    """A map as it is stored: a repeated key, as in events of earlier versions, is kept."""


_CONTAINERS = frozenset({dict, list, _Pairs})
_FIXMAP = 0x80
_KNOWN_MAX, _KNOWN_CHARS_MAX = 10_000, 64


class PersonKeys:
    """The property names (keys) whose value names a person.

    A name stands for itself, with `id` and in the plural (`student`: also `students`, `student_id`,
    `studentIds`); case, the separators `_`, `-`, `.` and the Unicode normalisation do not matter. A
    name that ends in `s` is a plural itself, but not one in `ss` (`boss`).
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = frozenset(names)
        stems = {_normal(name) for name in (*self.names, *OWN_KEYS)}
        plural = {stem for stem in stems if stem.endswith(b"s") and not stem.endswith(b"ss")}
        plural |= {stem + end for stem in stems for end in (b"s", b"ids")}
        self._places = dict.fromkeys(stems | {stem + b"id" for stem in stems}, _Place.ONE)
        self._places |= dict.fromkeys(plural, _Place.MANY)
        self._known: dict[str, _Place] = {}  # the places of keys that were seen, to save work

    def extended(self, names: Iterable[str]) -> PersonKeys:
        """Returns person keys that have the given names as well."""
        every = self.names.union(names)
        return self if every == self.names else PersonKeys(every)

    def may_name(self, props: bytes) -> bool:
        """Whether packed properties have a person key; most events are skipped by this check alone.

        False for invalid msgpack, which `verify` reports.
        """
        try:
            opened, none = unpack_props(props), _Place.NONE
            if type(opened) is not dict:
                return False
            # A map has no key twice if its head has the number of keys that were unpacked.
            plain = props[0] - _FIXMAP == len(opened)
            for key, value in opened.items():
                if (self._known.get(key) or self._place_of(key)) is not none:
                    return True
                plain = plain and value.__class__ not in _CONTAINERS
            return not plain and self._has_person_key(unpack_pairs(props, _Pairs))
        except Malformed:
            return False

    def _has_person_key(self, value: Any) -> bool:
        if isinstance(value, _Pairs):
            return any(
                self._place_of(key) is not _Place.NONE
                or (item.__class__ in _CONTAINERS and self._has_person_key(item))
                for key, item in value
            )
        return any(item.__class__ in _CONTAINERS and self._has_person_key(item) for item in value)

    def mentions(self, props: bytes, is_person: IsPerson) -> bool:
        """Whether the packed properties name a person for whom the check is true.

        Raises Malformed.
        """
        return self.redact(props, is_person) is not None

    def persons_in(self, props: bytes) -> set[str]:
        """Returns the persons whom packed properties name, also by a repeated key.

        Raises Malformed.
        """
        return self._persons(unpack_pairs(props, _Pairs)) if self.may_name(props) else set()

    def persons(self, props: Mapping[str, Any]) -> set[str]:
        """Returns the persons whom the properties name, each in the spelling used there."""
        return self._persons(props)

    def _persons(self, props: Any) -> set[str]:
        found: set[str] = set()

        def collect(value: Value) -> None:
            # Text is kept as it is, since "1e+17" is not the id 100000000000000000.
            found.add(value if isinstance(value, str) else canonical(value))

        self._changed(props, collect, _Place.NONE)
        return {name for name in found if not _MASKED.fullmatch(name)}

    def redact(self, props: bytes, is_person: IsPerson) -> bytes | None:
        """Returns the packed properties with `(erased)` in place of the person; None if not named.

        Raises Malformed for invalid msgpack.
        """
        if not self.may_name(props):
            return None

        def change(value: Value) -> str | None:
            erased = isinstance(value, str) and _ERASED.fullmatch(value)
            return ERASED if not erased and is_person(value) else None

        before = unpack_pairs(props, _Pairs)
        after = self._changed(before, change, _Place.NONE)
        return None if after is before else _packed(after)

    def without_others(self, props: Mapping[str, Any], is_person: IsPerson) -> dict[str, Any]:
        """Returns the properties with `(another)` in place of every other person.

        So data about one person can be handed over without revealing another.
        """

        def change(value: Value) -> str | None:
            return None if is_person(value) or _MASKED.fullmatch(str(value)) else ANOTHER

        return dict(self._changed(props, change, _Place.NONE))

    def _place_of(self, key: str) -> _Place:
        place = self._known.get(key)
        if place is None:
            place = self._places.get(_normal(key), _Place.NONE)
            if len(key) <= _KNOWN_CHARS_MAX:
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()  # emptied, since clients may invent any number of keys
                self._known[key] = place
        return place

    def _changed(self, value: Any, change: _Change, place: _Place) -> Any:
        """Returns the value with its persons replaced; the same object if nothing changes."""
        if isinstance(value, _Pairs):
            made: Any = _Pairs(self._changed_items(value, change, place))
            same = all(a is c and b is d for (a, b), (c, d) in zip(value, made, strict=True))
            return value if same else made
        if isinstance(value, Mapping):
            made = self._changed_items(value.items(), change, place)
            same = all(
                a is c and b is d for (a, b), (c, d) in zip(value.items(), made, strict=True)
            )
            return value if same else dict(made)
        if isinstance(value, list):
            place = _Place.ONE if place is _Place.MANY else place
            made = [self._changed(item, change, place) for item in value]
            return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
        if place is _Place.NONE or isinstance(value, bool) or not isinstance(value, Value):
            return value
        if place is not _Place.ONE and not isinstance(value, str):
            return value  # the number is a count, or a figure about a person
        new = change(value)
        return value if new is None else new

    def _changed_items(
        self, items: Iterable[tuple[str, Any]], change: _Change, place: _Place
    ) -> list[tuple[str, Any]]:
        items = list(items)
        names = place in (_Place.ONE, _Place.MANY)
        described = place is _Place.ONE and any(_is_identity(key) for key, _ in items)
        taken = {key for key, _ in items}
        made = []
        for key, item in items:
            inner = self._place_of(key)
            if inner is _Place.NONE and names:
                if _is_identity(key):
                    inner = _Place.ONE
                elif place is _Place.MANY and isinstance(item, list):
                    inner = _Place.GROUP
            new = change(key) if names and not described else None
            if new is not None:
                key = _free(new, taken)
                taken.add(key)
            made.append((key, self._changed(item, change, inner)))
        return made


def _normal(key: str) -> bytes:
    if not key.isascii():
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())
    return key.encode().lower().translate(None, _SEPARATORS)


def _is_identity(key: str) -> bool:
    return _normal(key).decode() in IDENTITY


def _free(key: str, taken: set[str]) -> str:
    """Returns the key, with a number if the map has it: several erased persons may be keys."""
    number, free = 1, key
    while free in taken:
        number += 1
        free = f"{key} {number}"
    return free


def _packed(value: Any) -> bytes:
    packer = msgpack.Packer(autoreset=False)

    def pack(value: Any) -> None:
        if isinstance(value, _Pairs):
            packer.pack_map_header(len(value))
            for key, item in value:
                packer.pack(key)
                pack(item)
        elif isinstance(value, list):
            packer.pack_array_header(len(value))
            for item in value:
                pack(item)
        else:
            packer.pack(value)

    pack(value)
    return bytes(packer.bytes())


# The person keys of a logd.toml that sets none.
DEFAULT_KEYS = PersonKeys(DEFAULTS["person_keys"])
