"""Turns a batch into the rows that its transaction inserts (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from logd.batch import Batch, Producer
from logd.storage import batch_hash, merkle
from logd.storage.tree import kept_nodes
from logd_wire.wire import Event

NO_EVENTS: frozenset[int] = frozenset()


@dataclass(frozen=True)
class LastRows:
    """The numbers of the last rows that a batch adds to, and the right edge of the tree."""

    batch: int = 0
    event: int = 0
    tree: merkle.Growing = field(default_factory=merkle.Growing)
    producer: int = 0
    quarantine: int = 0


@dataclass
class BatchRows:
    """The rows of one batch, table by table. `events` and `quarantine` are flat lists of values."""

    ids: dict[Producer, int] = field(default_factory=dict)  # the id of each producer's row
    new_producers: list[tuple[Any, ...]] = field(default_factory=list)
    known_producers: list[tuple[Any, ...]] = field(default_factory=list)
    refusals: list[tuple[int, str, int]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    # Includes the ids of events that are not stored.
    leaves: list[bytes] = field(default_factory=list)
    batch: tuple[Any, ...] | None = None
    nodes: list[tuple[Any, ...]] = field(default_factory=list)
    losses: list[tuple[Any, ...]] = field(default_factory=list)
    quarantine: list[Any] = field(default_factory=list)
    quarantine_first: int = 0  # the number of the oldest row that is kept
    last: LastRows = field(default_factory=LastRows)


def build(
    batch: Batch,
    types: Mapping[str, int],
    last: LastRows,
    now_ns: int,
    boot_id: str,
    *,
    late: frozenset[int] = NO_EVENTS,
    quarantine_rows_max: int,
) -> BatchRows:
    """Returns the rows of the batch, numbered after those in `last`.

    The events at the places in `late` are hashed but not stored. `types` has the number of each
    event type.
    """
    rows = BatchRows()
    producer = _add_producers(rows, batch, last.producer, now_ns, boot_id)
    _add_events(rows, batch, types, last.event + 1, late)
    batch_id, tree = last.batch, last.tree
    if rows.leaves or batch.losses:
        batch_id += 1
        tree = _add_batch(rows, batch, batch_id, last, now_ns)
    quarantine = _add_quarantine(rows, batch, last.quarantine, now_ns, quarantine_rows_max)
    rows.last = LastRows(batch_id, last.event + len(rows.leaves), tree, producer, quarantine)
    return rows


def stored_runs(
    first_event: int, batch: Batch, late: frozenset[int]
) -> Iterator[tuple[int, list[tuple[Producer, int, Event]]]]:
    """Yields the batch's stored events in runs, each with the id of its first event."""
    if not late:
        yield first_event, batch.events
        return
    start = 0
    for place in (*sorted(late), len(batch.events)):
        if place > start:
            yield first_event + start, batch.events[start:place]
        start = place + 1


def _add_producers(rows: BatchRows, batch: Batch, last_row: int, now_ns: int, boot_id: str) -> int:
    """Adds the rows of the producers; returns the id of the last row."""
    for producer in batch.producers:
        if producer.row is None:
            last_row += 1
            rows.ids[producer] = last_row
            rows.new_producers.append(
                (last_row, producer.uid, f"{producer.id:016x}", producer.taken)
                + (producer.has_outbox, producer.ended, boot_id, producer.pid, now_ns, now_ns)
            )
        else:
            rows.ids[producer] = producer.row
            rows.known_producers.append(
                (producer.taken, producer.ended, producer.has_outbox, boot_id, producer.pid)
                + (now_ns, producer.row)
            )
        rows.refusals += [
            (rows.ids[producer], cause, count) for cause, count in producer.refused.items()
        ]
    return last_row


def _add_events(
    rows: BatchRows, batch: Batch, types: Mapping[str, int], first: int, late: frozenset[int]
) -> None:
    values, leaves = rows.events, rows.leaves
    of = {p: (p.label, rows.ids[p]) for p in batch.producers}
    salts = batch_hash.new_salts(len(batch.events))
    pack, begin, bind = batch_hash.pack_fields, merkle.LEAF.copy, bytearray
    event_id = first
    for (producer, sequence, event), salt in zip(batch.events, salts, strict=True):
        kind, ts_ns, user, props = event
        label, row = of[producer]
        fields = event_id, label, sequence, ts_ns, kind, user, props
        # This is `merkle.leaf_hash` of `batch_hash.event_data`,
        # inlined since the two calls took as long.
        leaf = begin()
        leaf.update(salt + pack(fields))
        leaves.append(leaf.digest())
        if late and event_id - first in late:
            event_id += 1
            continue
        # These values are bytearrays: for bytes, sqlcipher3 looks up adapters,
        # which takes as long as the insert itself.
        values += (event_id, row, sequence, ts_ns, types[kind], user, bind(props), bind(salt))
        event_id += 1


def _add_batch(
    rows: BatchRows, batch: Batch, batch_id: int, last: LastRows, now_ns: int
) -> merkle.Growing:
    """Adds the batch's row, its losses, and the tree nodes that it completes; returns the tree."""
    events_root = merkle.root(rows.leaves)
    losses = [
        merkle.leaf_hash(
            batch_hash.loss_data(loss.producer.label, loss.first, loss.last, loss.cause)
        )
        for loss in batch.losses
    ]
    numbers = batch_id, now_ns, last.event + 1, len(rows.leaves)
    leaf = merkle.leaf_hash(batch_hash.entry(*numbers, events_root, losses))
    tree = last.tree.copy()
    rows.nodes = kept_nodes(batch_id, tree.append(leaf))
    rows.batch = (*numbers, events_root, leaf)
    rows.losses = [
        (batch_id, rows.ids[loss.producer], loss.first, loss.last, loss.cause, now_ns)
        for loss in batch.losses
    ]
    return tree


def _add_quarantine(
    rows: BatchRows, batch: Batch, last_row: int, now_ns: int, rows_max: int
) -> int:
    """Adds rows to the quarantine, only the newest `rows_max`; returns the id of the last row."""
    newest = last_row + len(batch.quarantine_entries)
    if not batch.quarantine_entries:
        return newest
    rows.quarantine_first = newest - rows_max + 1
    for number, entry in enumerate(batch.quarantine_entries, start=last_row + 1):
        if number >= rows.quarantine_first:
            rows.quarantine += (number, now_ns, entry.uid, entry.pid, entry.reason)
            rows.quarantine.append(rows.ids[entry.producer] if entry.producer else None)
            rows.quarantine += (entry.sequence, entry.bytes, entry.excerpt)
    return newest
