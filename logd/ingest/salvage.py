"""Reads the readable rest of an outbox before it is given up. Pure, apart from `read_at`.

The header can no longer be trusted, or the system cannot read all of the file: only the last header
that passed its checks is used, and records with a valid CRC.
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
    """Marks an outbox as unusable, so that its producer soon continues in another one."""
    if outbox.unusable is None:
        outbox.unusable = reason
        outbox.header = replace(outbox.header, written=_last_written(producer, outbox))
        # An error is ignored, since the producer also notices the removal.
        with contextlib.suppress(OSError):
            # While it need not wake the daemon, the producer does not read GIVEN_UP at each event.
            outbox.resume_wakeups()
            outbox.give_up()


def _last_written(producer: Producer, outbox: Outbox) -> int:
    """Returns the highest sequence that the outbox may hold: its WRITTEN word, if plausible."""
    header = outbox.header
    try:
        written = outbox.written()
    except OSError:
        return header.written
    plausible = header.written <= written <= producer.taken + ring_events_max(header)
    return written if plausible else header.written


def read_rest(
    producer: Producer, outbox: Outbox, batch: Batch, intake: Intake, capacity: Capacity
) -> bool:
    """Takes the readable records after `taken`; returns True if the batch has no room for all.

    Raises nothing: it ends at the first error or unreadable record. It takes at most as many
    records written since `begin_salvage` as the ring can hold.
    """
    end = outbox.header.written + ring_events_max(outbox.header)
    written = min(_last_written(producer, outbox), end)
    if producer.taken >= written:
        return False
    if not capacity:
        return True
    try:
        page = read_records(
            outbox.read_at,
            outbox.header.ring_bytes,
            producer.seed,
            producer.position,
            after=producer.taken,
            written=written,
            bytes_max=capacity.bytes,
            records_max=capacity.events,
        )
    except OSError:
        return False
    intake.take_outbox_records(producer, page.payloads, batch)
    producer.position = page.position
    return page.damage is None and producer.taken < written
