"""Selects the events of an evidence sheet: one person's, about an item, claimed in a time range.

They are in the order of storing, in which nothing is inserted later: with the last event to look
through fixed (`up_to`), pages have no gaps and no repeats while events are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from logd.reports.parameters import BadParameter, Parameters
from logd.storage import batch_hash
from logd.storage.database import Connection, question_marks
from logd.storage.time_blocks import BLOCK_BITS
from logd_wire.schema import INT64_MAX
from logd_wire.wire import unpack_props

_CHUNK_EVENTS = 500

# The pairs of names and values that an event about an item has, all in one map.
Item = tuple[tuple[str, str], ...]


class StoredEvent(NamedTuple):
    """An event as it is hashed, with its batch and the time of storing."""

    salt: bytes
    id: int
    producer: str
    sequence: int
    ts_ns: int
    type: str
    user: str | None
    props: bytes
    batch: int
    stored_ns: int

    @property
    def data(self) -> bytes:
        """The data of the event's leaf."""
        return batch_hash.event_data(*self[:8])


@dataclass(frozen=True)
class Wanted:
    """Whose events are wanted, about which items, and of which time; None and () for all."""

    user: str
    items: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    up_to: int | None = None

    @classmethod
    def take(cls, parameters: Parameters) -> Wanted:
        """Takes the parameters that say which events are wanted. Raises BadParameter."""
        wanted = cls(
            parameters.text("user"),
            tuple(parameters.maybe_texts("items") or ()),
            parameters.maybe_whole("since_ns"),
            parameters.maybe_whole("until_ns"),
            parameters.maybe_whole("up_to"),
        )
        assert len(wanted._parsed) == len(wanted.items)  # or one of them is refused here
        return wanted

    @cached_property
    def _parsed(self) -> list[Item]:
        return list(map(parse_item, self.items))

    def find(self, connection: Connection, after_id: int = 0) -> Iterator[StoredEvent]:
        """Yields each event after `after_id` that may be wanted; `is_about` decides which are."""
        while True:
            ids = self._ids(connection, after_id)
            yield from _read(connection, ids)
            if len(ids) < _CHUNK_EVENTS:
                return
            after_id = ids[-1]

    def is_about(self, event: StoredEvent) -> bool:
        """Whether the event is about one of the items."""
        if not self.items:
            return True
        props = unpack_props(event.props)
        return any(names_item(props, item) for item in self._parsed)

    def _ids(self, connection: Connection, after_id: int) -> list[int]:
        values = {
            "user": self.user,
            "since": self.since_ns or 0,
            "until": INT64_MAX if self.until_ns is None else self.until_ns,
            "after": after_id,
            "up_to": INT64_MAX if self.up_to is None else self.up_to,
            "limit": _CHUNK_EVENTS,
        }
        # The plus removes the column's affinity, which would keep SQLite from using the index.
        rows = connection.execute(
            "SELECT e.id FROM event_block b CROSS JOIN event e INDEXED BY event_user"  # noqa: S608 - a number
            f" ON (e.id >> {BLOCK_BITS}) = +b.block"
            " WHERE e.user = :user AND e.ts_ns >= :since AND e.ts_ns < :until"
            " AND e.id > :after AND e.id <= :up_to"
            " AND b.last_ts_ns >= :since AND b.first_ts_ns < :until"
            f" AND b.block >= :after >> {BLOCK_BITS} AND b.block <= :up_to >> {BLOCK_BITS}"
            " ORDER BY b.block, e.id LIMIT :limit",
            values,
        )
        return [event_id for (event_id,) in rows]


def parse_item(text: str) -> Item:
    """Returns the pairs of an item, given as `name=value&name=value`. Raises BadParameter."""
    try:
        pairs: Item = tuple(parse_qsl(text, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        pairs = ()
    if not pairs:
        raise BadParameter(f"items: expected name=value, joined by &, not {text[:60]!r}")
    return pairs


def names_item(props: Mapping[str, Any], item: Item) -> bool:
    """Whether the properties, or a map directly in them, have all of the item's pairs."""
    places = [props, *(value for value in props.values() if isinstance(value, dict))]
    return any(all(_text(place.get(name)) == value for name, value in item) for place in places)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _read(connection: Connection, ids: list[int]) -> Iterator[StoredEvent]:
    rows = connection.execute(
        "SELECT e.salt, e.id, p.uid || '-' || p.key, e.sequence, e.ts_ns, t.name, e.user, e.props,"  # noqa: S608 - question marks only
        " b.id, b.stored_ns FROM event e JOIN producer p ON p.id = e.producer"
        " JOIN event_type t ON t.id = e.type"
        " JOIN batch b ON b.id = (SELECT id FROM batch WHERE first_event <= e.id"
        " ORDER BY first_event DESC, id DESC LIMIT 1)"
        f" WHERE e.id IN ({question_marks(ids)}) ORDER BY e.id",
        ids,
    )
    return map(StoredEvent._make, rows.fetchall())
