"""Collects the status of an instance: totals, losses, outboxes, disk, the daemon's figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from logd import instance_lock
from logd.audit import last_verification
from logd.batch import LOST_CLAIMED
from logd.config.settings import Config
from logd.errors import NoDatabase
from logd.ingest.outbox_directory import Outboxes
from logd.ingest.outbox_reader import capacity, check_numbers
from logd.reports.event_queries import summary
from logd.reports.ledger_queries import CAUSES, loss_page, losses_by_cause, losses_by_user
from logd.reports.parameters import Parameters
from logd.runtime_stats import PACE_MIN_S, Figures, Survey
from logd.self_repair.repairs import look
from logd.self_repair.runtime_files import observed
from logd.status import disk
from logd.storage.database import Connection
from logd.storage.opening import open_for_reading
from logd.storage.store import COUNTERS
from logd_wire.outbox.layout import Header
from logd_wire.wire import WireError

_BY_CAUSE = ("entries", "events", "unknown_extent")
# Of the loss ledger, so many entries are in the status; `logd losses` has all of them.
STATUS_LOSSES_MAX = 10
# Users and senders shown, those with the most first.
LISTED_MAX = 10


def status(config: Config, *, from_figures: bool = False) -> dict[str, Any]:
    """The sums of the instance, from its database and its outboxes; the daemon need not run.

    Counts are of events, except `commits`, `producers`, and `quarantined`, which also counts
    datagrams that were no events at all. `losses` are the newest entries of the ledger; what only
    an outbox's own word says was lost is in `lost_claimed`, and in none of these. `trouble`
    is what nothing can be stored for just now, or, with no daemon running, what ended the last one.
    `figures` are the daemon's own, or the last one's; `room_s` is how long the first outbox to be
    full has room from now on, if nothing is stored any more, at the pace of its producer.
    `runtime_files` are the files that a running daemon depends on (see `logd.self_repair`).

    With `from_figures` the outboxes are not looked into, only what the daemon says of them: for a
    process that has an outbox itself, and would drop its lock by opening and closing the file.
    """
    now_ns = time.time_ns()
    totals: dict[str, Any]
    # Outboxes first: what is stored in between is then counted as stored, not as pending.
    headers, unreadable, usage = ({}, 0, {}) if from_figures else _headers(config)
    senders: list[dict[str, Any]] = []
    by_user: list[Any] = []
    try:
        connection = open_for_reading(config)
    except NoDatabase:
        totals = dict.fromkeys((*COUNTERS, "producers", "batches", "schema"), 0)
        totals |= {"last_stored_ns": None}
        watermarks, refused = {}, 0
        by_cause: dict[str, Any] = {cause: dict.fromkeys(_BY_CAUSE, 0) for cause in CAUSES}
        newest: list[Any] = []
        space = disk.look(config)
    else:
        try:
            connection.execute("BEGIN")
            totals = summary(connection, Parameters({})).rows[0]
            # Of the outboxes that are there: clients may have made any number of producers.
            watermarks = {
                (uid, producer_id): watermark
                for uid, producer_id in headers
                for (watermark,) in connection.execute(
                    "SELECT watermark FROM producer WHERE uid = ? AND key = ?",
                    (uid, f"{producer_id:016x}"),
                )
            }
            (refused,) = connection.execute(
                "SELECT coalesce(sum(events), 0) FROM refusal"
            ).fetchone()
            by_cause = {
                row["cause"]: {name: row[name] for name in _BY_CAUSE}
                for row in losses_by_cause(connection, Parameters({})).rows
            }
            newest = loss_page(connection, None, STATUS_LOSSES_MAX, claimed=False).rows
            by_user = losses_by_user(connection, LISTED_MAX)
            senders = _senders(connection)
            rows = totals["stored"] - totals.get("pruned", 0) - totals.get("erased", 0)
            space = disk.look(config, connection, rows, now_ns)
        finally:
            connection.close()
    pid, page = instance_lock.look(config.lock_file)
    figures = instance_lock.figures(config.lock_file)
    quiet_s = _quiet_s(now_ns, pid, page, figures)
    survey = Survey()
    pending_of: Counter[int] = Counter()
    for key, (header, alive) in headers.items():
        watermark = min(watermarks.get(key, 0), header.written)
        try:
            check_numbers(header, watermark)
        except WireError:
            unreadable += 1  # as the daemon sees it: it claims what it cannot hold
        else:
            waiting = min(header.written - watermark, capacity(header))
            pending_of[key[0]] += waiting
            # All that waits in it came while nothing was stored, and since it was made.
            since_s = min(quiet_s, max(0.0, (now_ns - header.created_ns) / 1e9)) if alive else 0.0
            per_s = waiting / since_s if since_s >= PACE_MIN_S else 0.0
            survey.add(waiting, header.room_bytes, _event_bytes(headers, key), per_s)
    verified = last_verification.last(config)
    state = {
        "at_ns": now_ns,
        "running_pid": pid,
        "trouble": page.trouble and {"what": page.trouble, "since_ns": page.since_ns},
        **totals,
        "pending": survey.backlog,
        "refused_by_clients": refused,
        "unknown_extent": sum(
            totals["unknown_extent"] for cause, totals in by_cause.items() if cause != LOST_CLAIMED
        ),
        "unknown_extent_claimed": by_cause[LOST_CLAIMED]["unknown_extent"],
        "losses": newest,
        "losses_entries": sum(totals["entries"] for totals in by_cause.values()),
        "losses_by_cause": by_cause,
        "losses_by_user": by_user,
        "outboxes": len(headers),
        "outboxes_unreadable": unreadable,
        "room_s": survey.room_s if quiet_s else figures and figures.room_s,
        "outboxes_bytes": sum(size for _, size in usage.values()),
        "outboxes_by_user": [
            {
                **{"uid": uid, "files": files, "bytes": size, "pending": pending_of[uid]},
                "surplus": files > _files_max(config),
            }
            for uid, (files, size) in sorted(usage.items(), key=lambda user: -user[1][1])
        ][:LISTED_MAX],
        "quarantine_senders": senders,
        "duplicate_senders": list(figures.ignored) if figures else [],
        "figures": figures and {k: v for k, v in asdict(figures).items() if k != "ignored"},
        "disk": asdict(space),
        "integrity": verified and asdict(verified),
        "config": str(config.path),
        "readers": instance_lock.readers(config.lock_file),
        "runtime_files": observed(instance_lock.files(config.lock_file), look, now_ns),
    }
    if from_figures:
        said = figures or Figures()
        state |= {"pending": said.backlog, "room_s": said.room_s}
        state |= {"outboxes": said.outboxes, "outboxes_bytes": said.outboxes_bytes}
    return state


def _quiet_s(
    now_ns: int, pid: int | None, page: instance_lock.Page, figures: Figures | None
) -> float:
    """For how long nothing has been stored that producers could tell of; 0: it is being stored."""
    if pid is not None and page.trouble is None:
        return 0.0
    since_ns = page.since_ns if pid is not None else figures.at_ns if figures else now_ns
    return max(0.0, (now_ns - since_ns) / 1e9)


def _event_bytes(
    headers: Mapping[tuple[int, int], tuple[Header, bool]], key: tuple[int, int]
) -> float:
    """The mean size of an outbox's events; 0 where nothing tells it.

    What is confirmed tells it, else the ring that this one follows: that was full.
    """
    header = headers[key][0]
    if header.confirmed_sequence:
        return header.confirmed_position / header.confirmed_sequence
    before = headers.get((key[0], header.follows))
    if before is None or before[0].ring_bytes >= header.ring_bytes:
        return 0.0  # it follows none, or one that was lost
    return before[0].ring_bytes / max(1, before[0].written - before[0].confirmed_sequence)


def _files_max(config: Config) -> int:
    """How many outboxes of one user are open at once at most; further ones wait."""
    share = config.outboxes_max // 2 if config.many_users else config.outboxes_max
    return min(share, config.outboxes_per_user_max)


def _senders(connection: Connection) -> list[dict[str, Any]]:
    """Whose the rows in quarantine are, most rows first; the oldest rows have given way."""
    rows = connection.execute(
        # SQLite takes the bare column from the row that max() chose.
        "SELECT uid, pid, count(*), max(id), reason FROM quarantine"
        " GROUP BY uid, pid ORDER BY count(*) DESC, max(id) DESC LIMIT ?",
        (LISTED_MAX,),
    ).fetchall()
    return [
        {"uid": uid, "pid": pid, "rows": count, "newest_reason": reason}
        for uid, pid, count, _newest, reason in rows
    ]


def _headers(
    config: Config,
) -> tuple[dict[tuple[int, int], tuple[Header, bool]], int, dict[int, tuple[int, int]]]:
    """The header of each outbox and whether its producer lives, by (uid, producer id), how many
    cannot be read, and how many files and bytes each user has.

    Unreadable are foreign ones, and those of a newer version: what waits in them is in no sum.
    """
    headers, unreadable = {}, 0
    outboxes = Outboxes(config.outbox_directory, read_only=True)
    try:
        outboxes.attach()
    except OSError:
        return {}, 0, {}
    try:
        for name, uid, producer_id in outboxes.names():
            outbox = None
            try:
                outbox = outboxes.open(name, uid, producer_id)
                if outbox is not None:
                    headers[uid, producer_id] = outbox.header, False
                    with suppress(OSError):
                        headers[uid, producer_id] = outbox.header, outbox.alive()
            except (OSError, WireError):
                unreadable += 1
            finally:
                if outbox is not None:
                    outboxes.release(outbox)
    except OSError:
        unreadable += 1  # the listing itself: at least one is not looked at
    finally:
        outboxes.close()
    return headers, unreadable, outboxes.usage
