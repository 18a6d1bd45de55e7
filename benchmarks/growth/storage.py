"""Measure a trail's bytes on disk, compared with JSON lines, and the time to open it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.growth.history import EVENTS_PER_BATCH, History, Trail, build
from benchmarks.harness.processes import Failed, Instance, temporary_directory
from benchmarks.harness.table import quantile
from logd.config.settings import Config
from logd.config.settings import load as load_config
from logd.errors import LogdError
from logd.render import to_json
from logd.reports.event_queries import event_page
from logd.reports.parameters import PAGE_ROWS_MAX
from logd.storage import keyfile
from logd.storage.opening import open_for_reading
from logd.storage.store import Store

# The number of places, evenly over the trail, from which pages of events are counted as JSON lines.
PLACES = 50
LEAN = ("type", "ts_ns", "user", "props")
OPENINGS = 5
SINGLY_EVENTS = 2000
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Storage:
    """Bytes per event: in the database, and as JSON lines, with all fields and lean."""

    events: int
    stored_bytes: float
    jsonl_bytes: float
    lean_bytes: float
    sampled: int
    open_ns: int

    @property
    def over_jsonl(self) -> float:
        """Stored bytes / bytes of JSON lines with all fields."""
        return self.stored_bytes / self.jsonl_bytes

    @property
    def over_lean(self) -> float:
        """Stored bytes / bytes of JSON lines without the fields that logd adds."""
        return self.stored_bytes / self.lean_bytes


def measure(trail: Trail) -> Storage:
    """Measure a trail while no daemon runs. Raises Failed."""
    config, events = trail.config, trail.instance.status()["stored"]
    try:
        open_ns = quantile([_open_ns(config) for _ in range(OPENINGS)], 0.5)
        stored_bytes = _bytes_on_disk(config) / events  # opening the trail has checkpointed the WAL
        whole, lean, sampled = _json_bytes(config, events)
    except LogdError as error:
        raise Failed(f"the trail of {trail.size} events cannot be read: {error}") from error
    return Storage(events, stored_bytes, whole / sampled, lean / sampled, sampled, open_ns)


def _bytes_on_disk(config: Config) -> int:
    wal = config.database.with_name(config.database.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        raise Failed(f"{wal.name} is not in the database yet")
    return config.database.stat().st_size


def _json_bytes(config: Config, events: int) -> tuple[int, int, int]:
    """Return the bytes of JSON lines, with all fields and lean, and the number of events."""
    connection = open_for_reading(config)
    whole = lean = sampled = 0
    try:
        for place in range(PLACES):
            after = place * events // PLACES
            for row in event_page(connection, after_id=after, limit=PAGE_ROWS_MAX).rows:
                whole += _line_bytes(row)
                lean += _line_bytes({name: row[name] for name in LEAN})
                sampled += 1
    finally:
        connection.close()
    return whole, lean, sampled


def _line_bytes(row: dict[str, Any]) -> int:
    return len(to_json(row).encode()) + 1


def _open_ns(config: Config) -> int:
    """Return the time to open the store: check, checkpoint and a first commit."""
    key = keyfile.read(config.key_file)
    start_ns = time.perf_counter_ns()
    store = Store(config.database, key, time.time_ns(), config.quarantine_rows_max)
    took_ns = time.perf_counter_ns() - start_ns
    store.close()
    return took_ns


def bytes_of_a_commit() -> float:
    """Return the bytes that a commit adds, from the same events stored one by one and at once.

    The database is in memory, since two thousand flushes may take minutes. Raises Failed.
    """
    history = History(SINGLY_EVENTS, time.time_ns())
    sizes = []
    with temporary_directory(MEMORY) as place:
        for per_batch in (1, EVENTS_PER_BATCH):
            directory = place / str(per_batch)
            with Instance(directory) as instance:
                config = load_config(instance.config)
                build(config, history, events_per_batch=per_batch)
                sizes.append(_bytes_on_disk(config))
    return (sizes[0] - sizes[1]) / SINGLY_EVENTS
