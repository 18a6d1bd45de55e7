"""Measures the disk space of the trail, its growth, and when the disk will be full.

Sizes are in bytes, times in seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from logd.config.settings import Config
from logd.storage.database import Connection, file_bytes, wal_path

DAY_S = 86_400
WINDOW_S = 7 * DAY_S
# No forecast is made from less than a day, or from a trail with few events.
GROWTH_S_MIN = DAY_S
GROWTH_ROWS_MIN = 1000


@dataclass(frozen=True)
class Disk:
    """Sizes of the trail, and its growth in the last days; a figure is None if unknown."""

    database_bytes: int
    wal_bytes: int
    free_bytes: int | None
    total_bytes: int | None
    growth_days: float | None = None  # the days over which the growth was measured
    growth_bytes_per_day: int | None = None
    days_left: float | None = None


def measure_disk(
    config: Config, connection: Connection | None = None, rows: int = 0, now_ns: int = 0
) -> Disk:
    """Measures the disk space; with a connection and the number of events, the growth too."""
    database_bytes = file_bytes(config.database)
    free_bytes, total_bytes = measure_space(config.database.parent)
    disk = Disk(database_bytes, file_bytes(wal_path(config.database)), free_bytes, total_bytes)
    if connection is None:
        return disk
    unused_bytes = _pragma(connection, "freelist_count") * _pragma(connection, "page_size")
    events, window_s = _stored_lately(connection, now_ns)
    return with_growth(disk, unused_bytes, rows, events, window_s)


def _pragma(connection: Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)  # SQLCipher returns the page size as text


def measure_space(directory: os.PathLike[str]) -> tuple[int | None, int | None]:
    """Returns the bytes of the disk that are free for this user, and all its bytes."""
    try:
        of = os.statvfs(directory)
    except OSError:
        return None, None
    return of.f_bavail * of.f_frsize, of.f_blocks * of.f_frsize


def with_growth(disk: Disk, unused_bytes: int, rows: int, events: int, window_s: float) -> Disk:
    """Adds the growth, of which `events` of the `rows` were stored in the last `window_s`.

    `unused_bytes` are free pages of the database, which are filled first.
    """
    if window_s < GROWTH_S_MIN or rows < GROWTH_ROWS_MIN:
        return disk
    per_day = (disk.database_bytes - unused_bytes) / rows * events / (window_s / DAY_S)
    left = None
    if disk.free_bytes is not None and per_day > 0:
        left = (disk.free_bytes + unused_bytes) / per_day
    return Disk(
        disk.database_bytes,
        disk.wal_bytes,
        disk.free_bytes,
        disk.total_bytes,
        growth_days=window_s / DAY_S,
        growth_bytes_per_day=round(per_day),
        days_left=left,
    )


def _stored_lately(connection: Connection, now_ns: int) -> tuple[int, float]:
    """Returns how many events were stored in the last days, and the length of that period.

    The period is WINDOW_S at most. Batches have no index by time, but their ids are in the order of
    time (except for jumps of the clock), so that a binary search finds the first one.
    """
    first, last = connection.execute("SELECT min(id), max(id) FROM batch").fetchone()
    if first is None:
        return 0, 0.0

    def batch(at: int) -> tuple[int, int, int]:
        row: tuple[int, int, int] = connection.execute(
            "SELECT id, stored_ns, first_event FROM batch WHERE id >= ? ORDER BY id LIMIT 1", (at,)
        ).fetchone()
        return row

    since_ns = now_ns - WINDOW_S * 10**9
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if batch(middle)[1] < since_ns:
            low = middle + 1
        else:
            high = middle
    _id, stored_ns, first_event = batch(low)
    (next_event,) = connection.execute(
        "SELECT first_event + events FROM batch WHERE id = ?", (last,)
    ).fetchone()
    window_s = min(WINDOW_S, (now_ns - stored_ns) / 1e9)
    return next_event - first_event, window_s
