"""Copies of events that lie outside the trail, backups and exports: noted in it, with their expiry.

A command notes a copy by itself, in a short transaction, whether a daemon runs or not: the row that
says where it is, and the event that the daemon stores at its next look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from logd.clock import readings
from logd.clock.readings import Reading
from logd.config.settings import Config
from logd.storage import job_table, keyfile, trail_clock
from logd.storage.database import Connection, DatabaseError, connect, translate
from logd.storage.migrations import check_not_older

BACKUP = "backup"
EXPORT = "export"
_EVENT_TYPES = {BACKUP: "trail_backed_up", EXPORT: "trail_exported"}


@dataclass(frozen=True)
class Copy:
    """Where a copy is, and when who made it means to remove it; times in nanoseconds since 1970."""

    kind: str
    place: str
    made_ns: int
    expires_ns: int | None


def register_copy(
    config: Config, copy: Copy, said: Mapping[str, Any], gone: Iterable[str] = ()
) -> None:
    """Notes a copy, with what its event says, and that those at `gone` are no more.

    Raises LogdError kinds.
    """
    connection = connect(config.database, keyfile.read(config.key_file))
    try:
        check_not_older(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "DELETE FROM copy WHERE kind = ? AND place = ?", [(copy.kind, place) for place in gone]
        )
        connection.execute(
            "INSERT INTO copy (kind, made_ns, expires_ns, place) VALUES (?, ?, ?, ?)",
            (copy.kind, copy.made_ns, copy.expires_ns, copy.place),
        )
        record = {"type": _EVENT_TYPES[copy.kind], "props": dict(said)}
        job_table.add_job(
            connection, job_table.RECORD, record, copy.made_ns
        )  # the daemon stores it
        connection.execute("COMMIT")
    except DatabaseError as error:
        raise translate(error, config.database) from error
    finally:
        connection.close()


def list_copies(connection: Connection) -> list[Copy]:
    """Every copy that was noted and not taken back, the oldest first."""
    rows = connection.execute(
        "SELECT kind, place, made_ns, expires_ns FROM copy ORDER BY made_ns, id"
    )
    return [Copy(*row) for row in rows.fetchall()]


def list_unexpired(connection: Connection, now: Reading) -> list[Copy]:
    """Copies that may still be there, the oldest first; all, if the clock cannot be believed."""
    copies = list_copies(connection)
    if readings.implausible(trail_clock.load(connection), now) is not None:
        return copies
    return [copy for copy in copies if copy.expires_ns is None or copy.expires_ns > now.wall_ns]
