"""Reads the outboxes of an instance, and adds up the events that wait in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logd.config.settings import Config
from logd.ingest.outbox_directory import OutboxDirectory
from logd.ingest.outbox_reader import check_numbers, ring_events_max
from logd.runtime_stats import PACE_MIN_S, OutboxTotals
from logd_wire.outbox.layout import Header
from logd_wire.wire import WireError

Producer = tuple[int, int]  # a producer: its uid and id


class OutboxState(NamedTuple):
    """The header of an outbox, and whether its producer is alive."""

    header: Header
    alive: bool


@dataclass
class OutboxListing:
    """The existing outboxes.

    Events in unreadable ones (foreign, or of a newer version) do not count.
    """

    states: dict[Producer, OutboxState] = field(default_factory=dict)
    unreadable: int = 0
    # (files, bytes) by uid of the owner.
    usage: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass
class ListingTotals:
    """Numbers of events that wait in the outboxes, and of outboxes that cannot be read."""

    pace: OutboxTotals = field(default_factory=OutboxTotals)
    pending: Counter[int] = field(default_factory=Counter)
    unreadable: int = 0


def read_outboxes(config: Config) -> OutboxListing:
    """Reads the header of each outbox, without changing anything."""
    listing = OutboxListing()
    outboxes = OutboxDirectory(config.outbox_directory, read_only=True)
    try:
        outboxes.attach()
    except OSError:
        return listing
    try:
        for name, uid, producer_id in outboxes.names():
            _read_outbox(outboxes, listing, name, uid, producer_id)
    except OSError:
        listing.unreadable += 1  # the directory cannot be read: count at least one outbox
    finally:
        outboxes.close()
    listing.usage = outboxes.usage
    return listing


def _read_outbox(
    outboxes: OutboxDirectory, listing: OutboxListing, name: str, uid: int, producer_id: int
) -> None:
    outbox = None
    try:
        outbox = outboxes.open(name, uid, producer_id)
        if outbox is not None:
            listing.states[uid, producer_id] = OutboxState(outbox.header, False)
            with suppress(OSError):
                listing.states[uid, producer_id] = OutboxState(outbox.header, outbox.alive())
    except (OSError, WireError):
        listing.unreadable += 1
    finally:
        if outbox is not None:
            outboxes.release(outbox)


def total_outboxes(
    listing: OutboxListing, watermarks: Mapping[Producer, int], stalled_s: float, now_ns: int
) -> ListingTotals:
    """Adds up the events above the watermarks.

    `stalled_s` is for how long nothing has been stored.
    """
    totals = ListingTotals(unreadable=listing.unreadable)
    for producer, (header, alive) in listing.states.items():
        watermark = min(watermarks.get(producer, 0), header.written)
        try:
            check_numbers(header, watermark)
        except WireError:
            # Unreadable for the daemon too: the header claims more than the ring can hold.
            totals.unreadable += 1
            continue
        waiting = min(header.written - watermark, ring_events_max(header))
        totals.pending[producer[0]] += waiting
        # These events were written since nothing is stored any more,
        # or since the outbox was created.
        since_s = min(stalled_s, max(0.0, (now_ns - header.created_ns) / 1e9)) if alive else 0.0
        per_s = waiting / since_s if since_s >= PACE_MIN_S else 0.0
        totals.pace.add(waiting, header.room_bytes, _event_bytes(listing, producer), per_s)
    return totals


def _event_bytes(listing: OutboxListing, producer: Producer) -> float:
    """Returns the mean size of an outbox's events, or 0 if it is unknown.

    It is computed from the confirmed events, or else from the full ring that this outbox replaced.
    """
    header = listing.states[producer].header
    if header.confirmed_sequence:
        return header.confirmed_position / header.confirmed_sequence
    former = listing.states.get((producer[0], header.follows))
    if former is None or former.header.ring_bytes >= header.ring_bytes:
        return 0.0  # the outbox replaced none, or one that was lost
    return former.header.ring_bytes / max(
        1, former.header.written - former.header.confirmed_sequence
    )


def outboxes_by_user(
    config: Config, listing: OutboxListing, totals: ListingTotals
) -> list[dict[str, Any]]:
    """Returns the files, bytes and waiting events of each user, those with the most bytes first."""
    share = config.outboxes_max // 2 if config.many_users else config.outboxes_max
    open_max = min(share, config.outboxes_per_user_max)  # the open outboxes that one user may have
    return [
        {
            "uid": uid,
            "files": files,
            "bytes": size,
            "pending": totals.pending[uid],
            "surplus": files > open_max,
        }
        for uid, (files, size) in sorted(listing.usage.items(), key=lambda user: -user[1][1])
    ]
