"""The registry of copies made of the trail, backups and exports, with their expiry.

A command registers a copy in a short transaction of its own, whether a daemon runs or not: the row
with its place, and a job for the event, which the daemon stores when it next polls the jobs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logd.clock import readings
from logd.clock.readings import Reading
from logd.config.settings import Config
from logd.storage import job_table, opening, trail_clock
from logd.storage.database import Connection

BACKUP = "backup"
EXPORT = "export"
_EVENT_TYPES = {BACKUP: "trail_backed_up", EXPORT: "trail_export_started"}
_EXPORT_ENDED = "trail_exported"


@dataclass(frozen=True)
class Copy:
    """The place of a copy, and when it is to be removed; times in nanoseconds since 1970."""

    kind: str
    place: str
    made_ns: int
    expires_ns: int | None


def register_copy(
    config: Config, copy: Copy, props: Mapping[str, Any], removed: Iterable[str] = ()
) -> int:
    """Registers a copy with its event's properties, and unregisters the copies at `removed`.

    It is on disk on return. Returns the number of the job that stores the event. Raises LogdError
    kinds.
    """
    with opening.open_for_writing(config) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "DELETE FROM copy WHERE kind = ? AND place = ?",
            [(copy.kind, place) for place in removed],
        )
        connection.execute(
            "INSERT INTO copy (kind, made_ns, expires_ns, place) VALUES (?, ?, ?, ?)",
            (copy.kind, copy.made_ns, copy.expires_ns, copy.place),
        )
        event = {"type": _EVENT_TYPES[copy.kind], "props": dict(props)}
        job_id = job_table.add_job(connection, job_table.RECORD, event, copy.made_ns)
        connection.execute("COMMIT")
    return job_id


def register_export_end(
    config: Config, copy: Copy, props: Mapping[str, Any], now_ns: int, *, kept: bool
) -> None:
    """Records that an export has ended; its copy stays registered only if it is `kept`.

    Raises a LogdError.
    """
    with opening.open_for_writing(config) as connection:
        connection.execute("BEGIN IMMEDIATE")
        if not kept:
            connection.execute(
                "DELETE FROM copy WHERE kind = ? AND made_ns = ? AND place = ?",
                (copy.kind, copy.made_ns, copy.place),
            )
        event = {"type": _EXPORT_ENDED, "props": dict(props)}
        job_table.add_job(connection, job_table.RECORD, event, now_ns)
        connection.execute("COMMIT")


def list_copies(connection: Connection) -> list[Copy]:
    """Returns all registered copies, the oldest first."""
    rows = connection.execute(
        "SELECT kind, place, made_ns, expires_ns FROM copy ORDER BY made_ns, id"
    )
    return [Copy(*row) for row in rows.fetchall()]


def list_unexpired(connection: Connection, now: Reading) -> list[Copy]:
    """Returns copies that may still exist, oldest first; all copies if the clock is not trusted.

    A copy past its expiry is included if its file is still there, since only a backup removes such
    files.
    """
    copies = list_copies(connection)
    if readings.implausible(trail_clock.load(connection), now) is not None:
        return copies
    return [
        copy
        for copy in copies
        if copy.expires_ns is None
        or copy.expires_ns > now.wall_ns
        or (Path(copy.place).is_absolute() and os.path.lexists(copy.place))
    ]
