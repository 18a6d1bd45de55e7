"""Logs what a commit has recorded: losses, quarantine, and events that clients refused.

One line for each user and cause in a batch, at the bounded rate of `warn`. The trail has all of it.
"""

from __future__ import annotations

from collections.abc import Callable

from logd.batch import Batch, Loss, Producer, QuarantineEntry
from logd.render import printable

Warn = Callable[..., None]


def log_commit(batch: Batch, warn: Warn) -> None:
    """Logs what a batch that is now on disk has recorded."""
    if batch.losses:
        _log_losses(batch.losses, warn)
    if batch.quarantine_entries:
        _log_quarantine(batch.quarantine_entries, warn)
    for producer in batch.producers:
        if producer.refused:
            _log_refusals(producer, warn)


def _log_losses(losses: list[Loss], warn: Warn) -> None:
    found: dict[tuple[int, str], list[Loss]] = {}
    for loss in losses:
        found.setdefault((loss.producer.uid, loss.cause), []).append(loss)
    for (uid, cause), some in found.items():
        numbers = [loss.events for loss in some]
        events = sum(number or 0 for number in numbers)
        known = f"{events:,} events" if events else ""
        unknown = "an unknown number of events" if None in numbers else ""
        # The cause is a part of the message, so that each cause has log lines of its own.
        warn(
            f"lost, {cause}: %s of user %d, pid %d, producer %s (logd losses)",
            " and ".join(filter(None, (known, unknown))),
            uid,
            some[0].producer.pid,
            some[0].producer.label + (f" and {len(some) - 1:,} more" if len(some) > 1 else ""),
            user=uid,
        )


def _log_quarantine(entries: list[QuarantineEntry], warn: Warn) -> None:
    counts: dict[int, int] = {}
    newest: dict[int, QuarantineEntry] = {}
    for entry in entries:
        if entry.reason.startswith("outbox: "):
            continue  # this entry was logged when its file was refused or given up
        counts[entry.uid] = counts.get(entry.uid, 0) + 1
        newest[entry.uid] = entry
    for uid, entry in newest.items():
        warn(
            "quarantine: %d of user %d, the last of pid %d: %s (logd quarantine)",
            counts[uid],
            uid,
            entry.pid,
            printable(entry.reason),
            user=uid,
        )


def _log_refusals(producer: Producer, warn: Warn) -> None:
    events = sum(producer.refused.values())
    more, producer.refused_logged = events - producer.refused_logged, events
    if more > 0:
        causes = ", ".join(f"{cause} {count:,}" for cause, count in producer.refused.items())
        warn(
            "refused: %d events by the client of user %d, pid %d, in all: %s",
            more,
            producer.uid,
            producer.pid,
            printable(causes),
            user=producer.uid,
        )
