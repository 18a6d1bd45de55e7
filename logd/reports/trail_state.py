"""Reports whether the trail can be relied on: the daemon, anchors, backups, copies, retention.

It names no person. What is beside the database (the daemon's statistics, the last runs of commands)
is read from its files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from logd import instance_lock
from logd.clock import times
from logd.config import retention
from logd.reports.context import Context
from logd.reports.parameters import Parameters
from logd.storage import last_runs
from logd.storage.copy_registry import BACKUP, EXPORT
from logd.storage.database import Connection
from logd.storage.job_table import FORGET, PRUNE
from logd.storage.last_runs import Run
from logd_wire.query import Answer, Row

_NEVER: Mapping[str, Any] = {"at_ns": None, "ok_ns": None, "problem": None}
# The last anchor of a file is looked for in its last bytes: a line has at most 9 KiB.
_FILE_END_BYTES = 16 * 1024


def trail_state(connection: Connection, parameters: Parameters) -> Answer:
    """Reports the state of the trail, in one row."""
    parameters.done()
    (_, _, name), *_ = connection.execute("PRAGMA database_list").fetchall()
    database = Path(name)
    (refused,) = connection.execute("SELECT coalesce(sum(events), 0) FROM refusal").fetchone()
    (quarantine_kept,) = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    now_ns = time.time_ns()
    return Answer(
        [
            {
                "at_ns": now_ns,
                **_daemon(database),
                "refused_by_clients": refused,
                "quarantine_kept": quarantine_kept,
                **_last_runs(connection, database),
                **_copies(connection, now_ns),
                **_configured(parameters.context),
            }
        ]
    )


def _configured(context: Context) -> Row:
    """Returns where anchors are written, and for how long events of each type are kept."""
    config = context.config
    file = None if config is None else config.anchor_file
    return {
        "anchor_interval_s": config and config.anchor_interval_s,
        "anchor_file": None if file is None else str(file),
        "anchor_file_ns": None if file is None else _last_line_ns(file),
        "retention": retention.periods(context.retention),
    }


def _daemon(database: Path) -> Row:
    """Returns the daemon's own statistics, as `logd status` reads them from the lock file."""
    lock_file = database.with_name(database.name + ".lock")
    pid, page = instance_lock.read_lock_page(lock_file)
    stats = instance_lock.read_runtime_stats(lock_file)
    return {
        "running": pid is not None,
        "started_ns": stats and stats.started_ns,
        "stats_ns": stats and stats.at_ns,
        "pending": stats and stats.backlog,
        "trouble": page.trouble,
        "trouble_since_ns": page.since_ns if page.trouble else None,
        "heads_signed": stats and stats.heads_signed,
        "anchored_ns": stats and stats.anchored_ns,
    }


def _last_runs(connection: Connection, database: Path) -> Row:
    """Returns the last end, last success and problem of backups, prunes and erasures."""
    runs = last_runs.read_runs(database)
    waiting = dict(
        connection.execute(
            "SELECT kind, trouble FROM job WHERE trouble IS NOT NULL AND id IN"
            " (SELECT max(id) FROM job GROUP BY kind)"
        ).fetchall()
    )
    ended_ns, good_ns = connection.execute(
        "SELECT max(finished_ns), max(iif(trouble IS NULL, finished_ns, NULL)) FROM job"
        " WHERE kind = ?",
        (FORGET,),
    ).fetchone()
    erasure = None if ended_ns is None else Run(ended_ns, good_ns)
    return {
        "backup": _run(runs.get(last_runs.BACKUP), None),
        "prune": _run(runs.get(last_runs.PRUNE), waiting.get(PRUNE)),
        "erasure": _run(erasure, waiting.get(FORGET)),
    }


def _run(run: Run | None, trouble: str | None) -> Row:
    shown = dict(_NEVER) if run is None else asdict(run)
    return {**shown, "problem": shown["problem"] or trouble}


def _copies(connection: Connection, now_ns: int) -> Row:
    """Returns how many backups and exports may still exist, and when the newest was made."""
    rows = connection.execute(
        "SELECT kind, count(*), max(made_ns) FROM copy"
        " WHERE expires_ns IS NULL OR expires_ns > ? GROUP BY kind",
        (now_ns,),
    )
    found = {kind: (count, newest_ns) for kind, count, newest_ns in rows.fetchall()}
    backups, backup_ns = found.get(BACKUP, (0, None))
    exports, export_ns = found.get(EXPORT, (0, None))
    return {
        "backups": backups,
        "newest_backup_ns": backup_ns,
        "exports": exports,
        "newest_export_ns": export_ns,
    }


def _last_line_ns(path: Path) -> int | None:
    """Returns the time of the last complete anchor in the file; None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        end = os.fstat(fd).st_size
        data = os.pread(fd, _FILE_END_BYTES, max(0, end - _FILE_END_BYTES))
    except OSError:
        return None
    finally:
        os.close(fd)
    for line in reversed(data.decode("ascii", "replace").split("\n")[:-1]):
        moment, mark, _rest = line.partition(" anchor batch=")
        if mark:
            try:
                return times.parse(moment, 0)
            except ValueError:
                continue
    return None
