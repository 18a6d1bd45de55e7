"""Exports the status and the runtime statistics as Prometheus metrics.

Labels name causes and files, never persons. There are also metrics for a daemon that is down and a
database that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from logd import instance_lock
from logd.batch import LOST_CLAIMED
from logd.config.settings import Config
from logd.errors import LogdError
from logd.runtime_stats import COMMIT_BOUNDS_S, RuntimeStats
from logd.status.collect import collect_status
from logd.storage.last_verification import NOT_PROVEN

# Counters that the trail keeps across restarts: key in the status, name of the metric, help text.
_COUNTERS = (
    ("stored", "logd_events_stored", "Events stored"),
    ("own", "logd_own_events", "Stored events that logd itself wrote"),
    ("pruned", "logd_pruned_events", "Stored events removed after the retention of their type"),
    ("erased", "logd_erased_events", "Stored events of forgotten persons, erased"),
    ("lost_claimed", "logd_events_lost_claimed", "Events that only an outbox reports as lost"),
    (
        *("unknown_extent_claimed", "logd_losses_claimed_of_unknown_extent"),
        "Such reports without a known number of events",
    ),
    ("quarantined", "logd_quarantined", "Datagrams, outboxes and events put into quarantine"),
    ("refused_by_clients", "logd_refused_events", "Events that clients report as refused"),
    ("duplicates_ignored", "logd_duplicates_ignored", "Datagrams that had been stored before"),
)
_GAUGES = (
    ("pending", "logd_pending_events", "Events accepted and not yet stored"),
    ("outboxes", "logd_outboxes", "Outboxes of processes that log"),
    ("outboxes_bytes", "logd_outbox_bytes", "Memory of the outboxes"),
    ("producers", "logd_producers", "Producers ever seen"),
    ("schema", "logd_schema_version", "Schema of the database"),
    (
        "room_s",
        "logd_outbox_room_seconds",
        "Time until the first outbox is full, if nothing is stored",
    ),
)
_DAY_S = 86_400


@dataclass(frozen=True)
class MetricsSnapshot:
    """The values for the metrics; `state` is None if the database cannot be read."""

    running: bool
    stalled: bool
    figures: RuntimeStats | None
    state: dict[str, Any] | None


def collect_metrics(config: Config, *, from_figures: bool) -> MetricsSnapshot:
    """Collects the values as of now; for `from_figures` see `collect_status`."""
    pid, page = instance_lock.read_lock_page(config.lock_file)
    try:
        state = collect_status(config, from_figures=from_figures)
    except LogdError:
        state = None
    stalled = pid is not None and page.trouble is not None
    return MetricsSnapshot(
        pid is not None, stalled, instance_lock.read_runtime_stats(config.lock_file), state
    )


class LogdCollector(Collector):
    """Collects new values each time that the metrics are requested."""

    def __init__(self, snapshot: Callable[[], MetricsSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Returns nothing: naming the metrics would collect them before the first request."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields every metric whose value is known."""
        found = self._snapshot()
        yield _gauge("logd_up", "Whether the daemon runs", found.running)
        yield _gauge("logd_stalled", "Whether the daemon cannot store events now", found.stalled)
        readable = found.state is not None
        yield _gauge(
            "logd_trail_readable", "Whether the database can be read with the key", readable
        )
        if found.figures is not None:
            yield from _of_the_daemon(found.figures)
        if found.state is not None:
            yield from _of_the_trail(found.state)


def metrics_registry(config: Config, *, from_figures: bool) -> CollectorRegistry:
    """Returns a registry that has the metrics of logd only."""
    made = CollectorRegistry()
    made.register(LogdCollector(lambda: collect_metrics(config, from_figures=from_figures)))
    return made


def metrics_text(config: Config) -> str:
    """Returns the metrics as of now, in the text format of Prometheus."""
    return generate_latest(metrics_registry(config, from_figures=False)).decode()


def _of_the_daemon(figures: RuntimeStats) -> Iterator[Metric]:
    yield _gauge("logd_start_time_seconds", "When the daemon started", figures.started_ns / 1e9)
    yield _gauge("logd_last_turn_timestamp_seconds", "When its loop last ran", figures.at_ns / 1e9)
    buckets, total = [], 0
    for bound, count in zip((*COMMIT_BOUNDS_S, "+Inf"), figures.commit_counts, strict=True):
        total += count
        buckets.append((str(bound), total))
    yield HistogramMetricFamily(
        "logd_commit_duration_seconds",
        "Commits since the start, by duration",
        buckets=buckets,
        sum_value=figures.commit_s,
    )
    yield _gauge(
        "logd_commit_longest_seconds",
        "The longest commit since the start",
        figures.commit_longest_s,
    )
    yield _gauge("logd_wal_bytes", "Size of the WAL", figures.wal_bytes)
    yield _gauge(
        "logd_heads_signed", "Whether it signs the heads that it logs", int(figures.heads_signed)
    )
    if figures.queue_datagrams is not None:
        yield _gauge(
            "logd_queue_datagrams", "Datagrams that the socket can hold", figures.queue_datagrams
        )


def _of_the_trail(state: dict[str, Any]) -> Iterator[Metric]:
    for key, name, help_text in _COUNTERS:
        yield CounterMetricFamily(name, help_text, value=state[key])
    for key, name, help_text in _GAUGES:
        if state[key] is not None:
            yield _gauge(name, help_text, state[key])
    lost = CounterMetricFamily("logd_lost_events", "Events in the loss ledger", labels=["cause"])
    unknown = CounterMetricFamily(
        "logd_losses_of_unknown_extent", "Losses of an unknown number of events",
        labels=["cause"],
    )  # fmt: skip
    for cause, totals in state["losses_by_cause"].items():
        if cause == LOST_CLAIMED:
            continue  # counted apart, since any user who may log can claim losses
        lost.add_metric([cause], totals["events"])
        unknown.add_metric([cause], totals["unknown_extent"])
    yield from (lost, unknown)
    if state["last_stored_ns"] is not None:
        yield _gauge(
            "logd_last_stored_timestamp_seconds",
            "When the newest batch was stored",
            state["last_stored_ns"] / 1e9,
        )
    yield from _of_the_files(state["runtime_files"])
    yield from _of_maintenance(state["maintenance"])
    disk, verified = state["disk"], state["integrity"]
    yield _gauge(
        "logd_database_bytes", "Size of the database without the WAL", disk["database_bytes"]
    )
    if disk["free_bytes"] is not None:
        yield _gauge("logd_disk_free_bytes", "Free on the database's disk", disk["free_bytes"])
    if disk["days_left"] is not None:
        yield _gauge(
            "logd_disk_room_seconds", "Time until it is full, at the growth of the last days",
            disk["days_left"] * _DAY_S,
        )  # fmt: skip
    if verified is not None:
        yield _gauge(
            "logd_verified_timestamp_seconds", "When logd verify last ran", verified["at_ns"] / 1e9
        )
        yield _gauge(
            "logd_trail_whole", "Whether logd verify found the trail whole", verified["whole"]
        )
        yield _gauge(
            "logd_trail_not_proven",
            "Whether logd verify found it whole in itself, and no anchors to prove it",
            verified["answer"] == NOT_PROVEN,
        )


def _of_the_files(files: list[dict[str, Any]]) -> Iterator[Metric]:
    if not files:
        return
    wrong = GaugeMetricFamily(
        "logd_file_missing", "Whether a file that the daemon depends on is missing or wrong",
        labels=["file"],
    )  # fmt: skip
    restored = CounterMetricFamily(
        "logd_files_restored", "Files that the daemon has put back since its start", labels=["file"]
    )
    for file in files:
        wrong.add_metric([file["name"]], float(file["problem"] is not None))
        restored.add_metric([file["name"]], file["restored"])
    yield from (wrong, restored)


def _of_maintenance(runs: list[dict[str, Any]]) -> Iterator[Metric]:
    failed = GaugeMetricFamily(
        "logd_maintenance_failed", "Whether the last run failed, or waits", labels=["task"]
    )
    good = GaugeMetricFamily(
        "logd_maintenance_success_timestamp_seconds", "When a run last succeeded", labels=["task"]
    )
    for run in runs:
        failed.add_metric([run["task"]], float(run["problem"] is not None))
        if run["ok_ns"] is not None:
            good.add_metric([run["task"]], run["ok_ns"] / 1e9)
    yield from (failed, good)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=float(value))
