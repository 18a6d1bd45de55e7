"""Reads the totals of the trail from the database, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from logd.config.settings import Config
from logd.errors import NoDatabase
from logd.reports.event_queries import trail_totals
from logd.reports.ledger_queries import CAUSES, loss_page, losses_by_user, totals_by_cause
from logd.status.disk import Disk, measure_disk
from logd.status.maintenance import job_troubles, last_forget
from logd.status.outboxes import Producer
from logd.storage.database import Connection
from logd.storage.last_runs import Run
from logd.storage.opening import open_for_reading
from logd.storage.store import COUNTERS
from logd_wire.query import Row

_BY_CAUSE = ("entries", "events", "unknown_extent")
# How many entries of the loss ledger the status shows; `logd losses` prints all of them.
STATUS_LOSSES_MAX = 10
# How many users or senders each list of the status has, the largest first.
LISTED_MAX = 10


@dataclass(frozen=True)
class TrailTotals:
    """The part of the status that is in the database."""

    counts: Mapping[str, Any]
    disk: Disk
    watermarks: Mapping[Producer, int] = field(default_factory=dict)
    refused_by_clients: int = 0
    losses: list[Row] = field(default_factory=list)
    losses_by_cause: Mapping[str, dict[str, Any]] = field(
        default_factory=lambda: {cause: dict.fromkeys(_BY_CAUSE, 0) for cause in CAUSES}
    )
    losses_by_user: list[Row] = field(default_factory=list)
    quarantine_senders: list[dict[str, Any]] = field(default_factory=list)
    job_troubles: Mapping[str, str] = field(default_factory=dict)
    last_forget: Run | None = None


def read_trail(config: Config, producers: Iterable[Producer], now_ns: int) -> TrailTotals:
    """Reads the totals from the database; zeros without a database."""
    try:
        connection = open_for_reading(config)
    except NoDatabase:
        counts = dict.fromkeys((*COUNTERS, "producers", "batches", "schema"), 0)
        return TrailTotals(counts | {"last_stored_ns": None}, measure_disk(config))
    try:
        connection.execute("BEGIN")
        counts = trail_totals(connection)
        rows = counts["stored"] - counts.get("pruned", 0) - counts.get("erased", 0)
        (refused,) = connection.execute("SELECT coalesce(sum(events), 0) FROM refusal").fetchone()
        return TrailTotals(
            counts,
            measure_disk(config, connection, rows, now_ns),
            _watermarks(connection, producers),
            refused,
            loss_page(connection, None, STATUS_LOSSES_MAX, claimed=False).rows,
            {
                row["cause"]: {name: row[name] for name in _BY_CAUSE}
                for row in totals_by_cause(connection)
            },
            losses_by_user(connection, LISTED_MAX),
            _quarantine_senders(connection),
            job_troubles(connection, counts["schema"]),
            last_forget(connection, counts["schema"]),
        )
    finally:
        connection.close()


def _watermarks(connection: Connection, producers: Iterable[Producer]) -> dict[Producer, int]:
    # Watermarks are read for existing outboxes only: clients may have made any number of producers.
    return {
        (uid, producer_id): watermark
        for uid, producer_id in producers
        for (watermark,) in connection.execute(
            "SELECT watermark FROM producer WHERE uid = ? AND key = ?", (uid, f"{producer_id:016x}")
        )
    }


def _quarantine_senders(connection: Connection) -> list[dict[str, Any]]:
    """Returns the senders of the entries kept in quarantine, those with the most entries first."""
    rows = connection.execute(
        # With max(id), SQLite takes `reason` from the same row.
        "SELECT uid, pid, count(*), max(id), reason FROM quarantine"
        " GROUP BY uid, pid ORDER BY count(*) DESC, max(id) DESC LIMIT ?",
        (LISTED_MAX,),
    ).fetchall()
    return [
        {"uid": uid, "pid": pid, "rows": count, "newest_reason": reason}
        for uid, pid, count, _newest, reason in rows
    ]
