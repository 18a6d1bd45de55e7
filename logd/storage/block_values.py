"""What the properties of a block's events hold, so that a search skips blocks and parts of them.

For each path to a property (`.view_args.user_id`), a block has the different values with a mask: a
bit for each of its 64 parts of 256 events that have that value. Two more rows are TEXTS: all texts,
without upper and lower case, and PERSONS: the ids of those whom the events name. A path with too
many values (ids of requests, measured times) is *open*: its values are not listed, and a search for
one of them cannot skip the block; of texts that are not listed, the characters are.

The rows of a block are a cache: removing an event deletes them (`forget`), and the daemon computes
them again. They take at most BYTES_MAX of a block, and PATHS_MAX paths.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgpack import packb

from logd.render import to_json
from logd.storage.database import Connection, in_parts, question_marks
from logd.storage.mentions import PersonKeys, canonical
from logd.storage.time_blocks import BLOCK_BITS, BLOCK_EVENTS
from logd_wire.schema import Malformed
from logd_wire.wire import unpack_props

PART_BITS = 8
PARTS = 1 << (BLOCK_BITS - PART_BITS)
EVERY_PART = (1 << PARTS) - 1
# The bytes of listed values, with their masks: of one path, and of all paths of a block. TEXTS has
# at most as many again, and PERSONS as many as a path.
PATH_BYTES_MAX = 32 * 1024
BLOCK_BYTES_MAX = 64 * 1024
PATHS_MAX = 256
VALUE_BYTES_MAX = 256
PATH_CHARS_MAX = 256
# Names of rows that are no paths, which all begin with a point.
TEXTS, PERSONS = "texts", "persons"
CHARS_MAX = 512
# Bytes of properties that are read in one step.
STEP_BYTES_MAX = 128 * 1024
ANY_CHAR = "*"

_FIXMAP = 0x80
_SEPARATOR = b"\0"
_MASK = struct.Struct("<Q")
_ENTRY_BYTES = _MASK.size + len(_SEPARATOR)
_CONTAINERS = frozenset({dict, list})


class ValueRow(NamedTuple):
    """The values of one path in a block."""

    path: str
    open: bool  # the values are not listed; the only mask is that of the path itself
    chars: str  # of the texts that are not listed; only in TEXTS
    entries: bytes  # the values, each between two separators
    masks: bytes  # the mask of each value


def mask_of(entries: bytes | None, masks: bytes, value: str) -> int:
    """Returns the parts that may have a value of a path; `entries` is None if the path is open."""
    if entries is None:
        return _mask(masks, 0)
    at = entries.find(bytes_of(value))
    return 0 if at < 0 else _mask(masks, entries.count(_SEPARATOR, 0, at))


def mask_with(entries: bytes, masks: bytes, part: str) -> int:
    """Returns the parts that have a value in which a text occurs."""
    sought, found = part.encode(), 0
    at = entries.find(sought)
    while at >= 0:
        found |= _mask(masks, max(0, entries.count(_SEPARATOR, 0, at) - 1))
        at = entries.find(sought, entries.index(_SEPARATOR, at + len(sought)))
    return found


def bytes_of(value: str) -> bytes:
    """Returns the bytes by which a whole value is found among entries."""
    return _SEPARATOR + value.encode() + _SEPARATOR


def _mask(masks: bytes, number: int) -> int:
    return int(_MASK.unpack_from(masks, number * _MASK.size)[0])


def names_of(keys: PersonKeys) -> str:
    """Returns the person keys with which PERSONS is computed, as they are kept with a block."""
    return to_json(sorted(keys.names))


def scalar_text(value: object) -> str:
    """Returns the text by which a property is sought: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else to_json(value)


class _Values:
    """Different values with their masks, up to a number of bytes."""

    def __init__(self) -> None:
        self.masks: dict[str, int] = {}
        self.texts: set[str] = set()  # those that are texts, not numbers
        self.mask = 0  # of the path, also where values are not listed
        self.bytes = 0
        self.open = False

    def add(self, value: str, mask: int) -> bool:
        """Adds a value; False if it cannot be listed."""
        if value in self.masks:
            self.masks[value] |= mask
            return True
        size = len(value.encode()) + _ENTRY_BYTES
        if size > VALUE_BYTES_MAX or "\0" in value or self.bytes + size > PATH_BYTES_MAX:
            return False
        self.masks[value] = mask
        self.bytes += size
        return True

    def clear(self) -> None:
        """Lists no values any more."""
        self.open, self.bytes, self.masks, self.texts = True, 0, {}, set()

    def row(self, path: str, chars: str = "") -> ValueRow:
        if self.open:
            return ValueRow(path, True, chars, b"", _MASK.pack(self.mask))
        values = sorted(self.masks)
        entries = b"".join((_SEPARATOR, *(one.encode() + _SEPARATOR for one in values)))
        masks = b"".join(_MASK.pack(self.masks[one]) for one in values)
        return ValueRow(path, False, chars, entries, masks)


class BlockValues:
    """Collects the values of one block, a part after the other."""

    def __init__(self, keys: PersonKeys) -> None:
        self._keys = keys
        self._names_persons: dict[str, bool] = {}  # of keys that were seen
        self._paths: dict[str, _Values] = {}
        self._names = _Values()  # the keys and types
        self._persons = _Values()
        self._chars: set[str] = set()
        self.more = False  # whether there are paths that have no row

    def add(self, number: int, events: Iterable[tuple[str, bytes]]) -> None:
        """Adds a step's events of one part: the type and the packed properties of each."""
        mask = 1 << number
        # Each value once: most events of a part have the same ones. By class, since 1 == True.
        flat: set[tuple[str, type, Any]] = set()
        maps: dict[tuple[str, str], Any] = {}
        names: set[str] = set()
        persons: set[str] = set()
        for event_type, props in events:
            names.add(event_type)
            try:
                opened = unpack_props(props)
            except Malformed:
                continue  # `verify` reports it; a search does not find it either
            flat.update(
                [
                    (key, value.__class__, value)
                    for key, value in opened.items()
                    if value.__class__ not in _CONTAINERS
                ]
            )
            is_whole = props[0] - _FIXMAP == len(opened)
            for key, value in opened.items():
                if value.__class__ in _CONTAINERS:
                    maps[key, repr(value)] = value
                    is_whole = is_whole and len(packb(opened)) == len(props)
            if not is_whole:  # a key may be repeated, as in events of earlier versions
                persons |= self._keys.persons_in(props)
        nested: set[tuple[str, type, Any]] = set()
        for (key, _), value in maps.items():
            names.add(key)
            _walk("." + key, value, nested, names)
            persons |= self._keys.persons({key: value})
        by_path: defaultdict[str, list[tuple[type, Any]]] = defaultdict(list)
        for key, kind, value in flat:
            by_path["." + key].append((kind, value))
            names.add(key)
            if self._names_person(key):
                persons |= self._keys.persons({key: value})
        for path, kind, value in nested:
            by_path[path].append((kind, value))
        # In an order that does not depend on sets, so that `verify` computes the same.
        for path in sorted(by_path):
            self._add(path, by_path[path], mask)
        for name in sorted(names):
            if not self._names.add(name, mask):
                self._add_chars(name)
        for person in persons:
            self._persons.mask |= mask
            if not self._persons.open and not self._persons.add(canonical(person), mask):
                self._persons.clear()
        while sum(values.bytes for values in self._paths.values()) > BLOCK_BYTES_MAX:
            path = max(self._paths, key=lambda one: (self._paths[one].bytes, one))
            self._open(self._paths[path])

    def _names_person(self, key: str) -> bool:
        names = self._names_persons.get(key)
        if names is None:
            names = bool(self._keys.persons({key: "x"}))
            if len(self._names_persons) < PATHS_MAX:
                self._names_persons[key] = names
        return names

    def _add(self, path: str, found: list[tuple[type, Any]], mask: int) -> None:
        values = self._paths.get(path)
        if values is None and len(self._paths) < PATHS_MAX and _is_plain(path):
            values = self._paths[path] = _Values()
        if values is None:
            self.more = True
        else:
            values.mask |= mask
        for kind, value in found:
            if values is not None and not values.open:
                text = value if kind is str else scalar_text(value)
                if values.add(text, mask):
                    if kind is str:
                        values.texts.add(text)
                    continue
                self._open(values)
            if kind is str:
                self._add_chars(value)

    def _open(self, values: _Values) -> None:
        for text in values.texts:
            self._add_chars(text)
        values.clear()

    def _add_chars(self, text: str) -> None:
        if len(self._chars) <= CHARS_MAX:
            self._chars.update(text.casefold())

    def rows(self) -> list[ValueRow]:
        """Returns the rows of the block."""
        texts = _Values()
        for values in (self._names, *self._paths.values()):
            for text in values.masks if values is self._names else values.texts:
                folded = text.casefold()
                texts.masks[folded] = texts.masks.get(folded, 0) | values.masks[text]
        chars = "".join(sorted(self._chars)) if len(self._chars) <= CHARS_MAX else ANY_CHAR
        made = [values.row(path) for path, values in sorted(self._paths.items())]
        return [*made, self._persons.row(PERSONS), texts.row(TEXTS, chars)]


def _walk(path: str, value: Any, found: set[tuple[str, type, Any]], names: set[str]) -> None:
    """Finds the values in a map or list, by their path, and all keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            names.add(key)
            _walk(f"{path}.{key}", item, found, names)
    elif isinstance(value, list):
        for item in value:
            _walk(path, item, found, names)
    else:
        found.add((path, value.__class__, value))


def _is_plain(path: str) -> bool:
    return len(path) <= PATH_CHARS_MAX and "\0" not in path


def read(
    connection: Connection, first: int, end: int, types: Mapping[int, str]
) -> Iterator[tuple[int, int, list[tuple[str, bytes]]]]:
    """Yields the events from `first` to before `end`, in the steps in which they are added.

    That is a part of a block or less, if it has more than STEP_BYTES_MAX; each with the number of
    the part, and the event with which the next step begins.
    """
    while first < end:
        upto = min(end, (first | ((1 << PART_BITS) - 1)) + 1)
        number = (first % BLOCK_EVENTS) >> PART_BITS
        events, size = [], 0
        for event_id, kind, props in connection.execute(
            "SELECT id, type, props FROM event WHERE id >= ? AND id < ? ORDER BY id", (first, upto)
        ):
            events.append((types[kind], props))
            size += len(props)
            if size > STEP_BYTES_MAX:
                upto = event_id + 1
                break
        yield number, upto, events
        first = upto


def write(
    connection: Connection, block: int, last: int, keys: PersonKeys, values: BlockValues
) -> None:
    """Replaces the rows of a block, whose events up to `last` they are of."""
    forget(connection, [block])
    connection.execute(
        "INSERT INTO block_search VALUES (?, ?, ?, ?)", (block, last, names_of(keys), values.more)
    )
    connection.executemany(
        "INSERT INTO block_value VALUES (?, ?, ?, ?, ?, ?)",
        [(row.path, block, *row[1:]) for row in values.rows()],
    )


def forget(connection: Connection, blocks: Sequence[int]) -> None:
    """Deletes what is known of blocks: one of their events is removed or changed."""
    for part in in_parts(blocks):
        for table in ("block_search", "block_value"):
            connection.execute(
                f"DELETE FROM {table} WHERE block IN ({question_marks(part)})",  # noqa: S608 - question marks only
                part,
            )
