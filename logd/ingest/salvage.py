"""Reads what can still be read of an outbox that is about to be given up. Pure but for `read_at`.

Its header cannot be believed any more, or the system refuses to read all of it: what counts is the
last header that passed its checks, and each record's CRC.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from logd.batch import Batch, Capacity, Producer
from logd.ingest.interfaces import Outbox
from logd.ingest.ordering import Intake
from logd.ingest.outbox_reader import ring_events_max
from logd_wire.outbox.reader import read_records


def begin_salvage(producer: Producer, outbox: Outbox, reason: str) -> None:
    """Marks an outbox as unusable and tells its producer, so that it soon writes elsewhere."""
    if outbox.unusable is None:
        outbox.unusable = reason
        outbox.header = replace(outbox.header, written=_last_written(producer, outbox))
        with contextlib.suppress(OSError):  # its removal, or its silence, says it as well
            outbox.resume_wakeups()  # a producer that is not watched looks at what follows
            outbox.give_up()


def _last_written(producer: Producer, outbox: Outbox) -> int:
    """The highest sequence that the outbox may hold: what its word 8 says now, if that can be."""
    header = outbox.header
    try:
        written = outbox.written()
    except OSError:
        return header.written
    plausible = header.written <= written <= producer.taken + ring_events_max(header)
    return written if plausible else header.written


def read_rest(
    producer: Producer, outbox: Outbox, batch: Batch, intake: Intake, room: Capacity
) -> bool:
    """Takes the records behind `taken` that still read; True when there was no room for all.

    Raises nothing: the first error, or the first record that does not read, is the end of it. So
    is a ring's fill of what its producer has written since `begin_salvage`.
    """
    end = outbox.header.written + ring_events_max(outbox.header)
    written = min(_last_written(producer, outbox), end)
    if producer.taken >= written:
        return False
    if not room:
        return True
    try:
        page = read_records(
            outbox.read_at,
            outbox.header.ring_bytes,
            producer.seed,
            producer.position,
            after=producer.taken,
            written=written,
            bytes_max=room.bytes,
            records_max=room.events,
        )
    except OSError:
        return False
    intake.take_outbox_records(producer, page.payloads, batch)
    producer.position = page.position
    return page.damage is None and producer.taken < written
