"""Late erasure: finds the events of forgotten persons in a batch, and mentions of them (pure)."""

from __future__ import annotations

from logd.batch import Batch, Producer
from logd.storage import mentions
from logd.storage.erasure_list import ErasureList
from logd_wire.wire import Event

Events = list[tuple[Producer, int, Event]]


def split(batch: Batch, forgotten: ErasureList) -> tuple[Events, list[int]]:
    """Returns the events without mentions of forgotten persons, and the places of those to erase.

    Returns the batch's own list if nothing is redacted. In most batches no event is checked: all
    their producers are known to have made them after every forget.
    """
    covers = forgotten.covers
    check_until_ns = {p: forgotten.check_until_ns(p) for p in batch.producers}
    events = batch.events
    late: list[int] = []
    if max(check_until_ns.values(), default=-1) < 0:
        return events, late
    for place, (producer, sequence, event) in enumerate(batch.events):
        kind, ts_ns, user, props = event
        if ts_ns > check_until_ns[producer]:
            continue
        if user is not None and covers(user, producer, sequence, ts_ns):
            late.append(place)
            continue
        of_event = producer, sequence, ts_ns
        less = mentions.redact(props, lambda name, of=of_event: covers(name, *of))  # type: ignore[misc] # a lambda's default
        if less is not None:
            if events is batch.events:
                events = list(events)
            events[place] = producer, sequence, Event(kind, ts_ns, user, less)
    return events, late
