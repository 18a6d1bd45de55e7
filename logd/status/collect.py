"""Collects the status of an instance: totals, losses, outboxes, disk, runtime statistics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from logd import instance_lock
from logd.batch import LOST_CLAIMED
from logd.config.settings import Config
from logd.runtime_stats import RuntimeStats
from logd.self_repair.repairs import read_state
from logd.self_repair.runtime_files import observed
from logd.status.maintenance import maintenance_state
from logd.status.outboxes import OutboxListing, outboxes_by_user, read_outboxes, total_outboxes
from logd.status.trail import LISTED_MAX, TrailTotals, read_trail
from logd.storage import last_verification


@dataclass(frozen=True)
class DaemonState:
    """The running daemon's pid and page in the lock file, and its statistics or the last ones."""

    pid: int | None
    page: instance_lock.Page
    figures: RuntimeStats | None

    def stalled_s(self, now_ns: int) -> float:
        """Returns for how many seconds nothing has been stored; 0 if the daemon stores events."""
        if self.pid is not None and self.page.trouble is None:
            return 0.0
        if self.pid is not None:
            since_ns = self.page.since_ns
        else:
            since_ns = self.figures.at_ns if self.figures else now_ns
        return max(0.0, (now_ns - since_ns) / 1e9)


def collect_status(config: Config, *, from_figures: bool = False) -> dict[str, Any]:
    """Returns the status of the instance, whether or not the daemon runs.

    Counts are of events, except `commits`, `producers`, and `quarantined`, which also counts
    datagrams that were not events. `losses` are the newest entries of the ledger. Losses that only
    an outbox reports are in `lost_claimed`, and in no other count. `trouble` is the reason why
    nothing can be stored now or, if no daemon runs, why the last one failed. `figures` are the
    runtime statistics of the daemon, or of the last one. `room_s` is the time until the first
    outbox is full, if nothing more is stored, at its producer's current pace. `maintenance` has the
    last backup, prune and forget, each with its `problem`, or null. `runtime_files` are the files
    that a running daemon depends on (see `logd.self_repair`).

    With `from_figures` no outbox is opened, and the daemon's statistics are used instead: a process
    that has an outbox itself would drop its lock by opening and closing the file.
    """
    now_ns = time.time_ns()
    # Outboxes are read first, so that an event stored in between counts as stored, not as pending.
    listing = OutboxListing() if from_figures else read_outboxes(config)
    trail = read_trail(config, listing.states, now_ns)
    pid, page = instance_lock.read_lock_page(config.lock_file)
    daemon = DaemonState(pid, page, instance_lock.read_runtime_stats(config.lock_file))
    verified = last_verification.read_verification(config.database)
    return {
        "at_ns": now_ns,
        "running_pid": pid,
        "trouble": page.trouble and {"what": page.trouble, "since_ns": page.since_ns},
        **trail.counts,
        "refused_by_clients": trail.refused_by_clients,
        **_losses(trail),
        **_outboxes(config, listing, trail, daemon, now_ns),
        **(_outboxes_from_figures(daemon.figures or RuntimeStats()) if from_figures else {}),
        "quarantine_senders": trail.quarantine_senders,
        **_figures(daemon.figures),
        "disk": asdict(trail.disk),
        "integrity": verified and asdict(verified),
        "maintenance": maintenance_state(config.database, trail.last_forget, trail.job_troubles),
        "config": str(config.path),
        "readers": instance_lock.read_report_usage(config.lock_file),
        "runtime_files": observed(
            instance_lock.read_runtime_files(config.lock_file), read_state, now_ns
        ),
    }


def _losses(trail: TrailTotals) -> Mapping[str, Any]:
    by_cause = trail.losses_by_cause
    return {
        "unknown_extent": sum(
            totals["unknown_extent"] for cause, totals in by_cause.items() if cause != LOST_CLAIMED
        ),
        "unknown_extent_claimed": by_cause[LOST_CLAIMED]["unknown_extent"],
        "losses": trail.losses,
        "losses_entries": sum(totals["entries"] for totals in by_cause.values()),
        "losses_by_cause": by_cause,
        "losses_by_user": trail.losses_by_user,
    }


def _outboxes(
    config: Config, listing: OutboxListing, trail: TrailTotals, daemon: DaemonState, now_ns: int
) -> Mapping[str, Any]:
    stalled_s = daemon.stalled_s(now_ns)
    totals = total_outboxes(listing, trail.watermarks, stalled_s, now_ns)
    # While events are stored, only the daemon can measure each producer's rate.
    room_s = totals.pace.room_s if stalled_s else daemon.figures and daemon.figures.room_s
    return {
        "pending": totals.pace.backlog,
        "outboxes": len(listing.states),
        "outboxes_unreadable": totals.unreadable,
        "room_s": room_s,
        "outboxes_bytes": sum(size for _files, size in listing.usage.values()),
        "outboxes_by_user": outboxes_by_user(config, listing, totals)[:LISTED_MAX],
    }


def _outboxes_from_figures(figures: RuntimeStats) -> Mapping[str, Any]:
    return {
        "pending": figures.backlog,
        "room_s": figures.room_s,
        "outboxes": figures.outboxes,
        "outboxes_bytes": figures.outboxes_bytes,
    }


def _figures(figures: RuntimeStats | None) -> Mapping[str, Any]:
    if figures is None:
        return {"figures": None, "duplicate_senders": []}
    shown = asdict(figures)
    return {"duplicate_senders": list(shown.pop("ignored")), "figures": shown}
