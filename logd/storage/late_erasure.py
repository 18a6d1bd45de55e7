"""Late erasure: finds events by and about forgotten persons in a batch (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from logd.batch import Batch, Producer, QuarantineEntry
from logd.storage.erasure_list import ErasureList
from logd.storage.mentions import PersonKeys, Value
from logd.storage.senders import sender_of
from logd_wire.wire import Event

Events = list[tuple[Producer, int, Event]]


def split(batch: Batch, forgotten: ErasureList, keys: PersonKeys) -> tuple[Events, list[int]]:
    """Returns the batch's events without mentions of forgotten persons, and which ones to erase.

    Events to erase are given by their places in the list. It returns the batch's own list if
    nothing is redacted. In most batches no event is checked, since all producers are known to have
    made them after every forget.
    """
    check_until_ns = {p: forgotten.check_until_ns(p) for p in batch.producers}
    events = batch.events
    late: list[int] = []
    if max(check_until_ns.values(), default=-1) < 0:
        return events, late
    for place, (producer, sequence, event) in enumerate(batch.events):
        kind, ts_ns, user, props = event
        if ts_ns > check_until_ns[producer]:
            continue
        sender = sender_of(producer.uid, kind, props)
        covers = _check(forgotten, sender, producer, sequence, ts_ns)
        if user is not None and covers(user):
            late.append(place)
            continue
        less = keys.redact(props, covers)
        if less is not None:
            if events is batch.events:
                events = list(events)
            events[place] = producer, sequence, Event(kind, ts_ns, user, less)
    return events, late


def without_excerpts(
    entries: list[QuarantineEntry], forgotten: ErasureList
) -> list[QuarantineEntry]:
    """Returns the quarantine entries, without excerpts of input made before a forget.

    The excerpt and the quote in the reason may be data of the person. Returns the same list if
    nothing changes.
    """
    boundaries = forgotten.boundaries
    late = [
        entry.producer is not None and boundaries.is_before_any(entry.producer, entry.sequence)
        for entry in entries
    ]
    if not any(late):
        return entries
    return [
        replace(entry, excerpt=b"", reason=entry.reason.partition(":")[0]) if is_late else entry
        for entry, is_late in zip(entries, late, strict=True)
    ]


def _check(
    forgotten: ErasureList, sender: int, producer: Producer, sequence: int, ts_ns: int
) -> Callable[[Value], bool]:
    covers = forgotten.covers
    return lambda name: covers(name, sender, producer, sequence, ts_ns)
