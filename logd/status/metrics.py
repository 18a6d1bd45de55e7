"""How it stands, in the form that Prometheus reads. Labels name causes, never persons.

Of the daemon's own figures and of what `logd status` finds; a daemon that is down or a database
that cannot be read is a metric too.
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
from logd.runtime_stats import COMMIT_BOUNDS_S, Figures
from logd.status.collect import collect_status

# What the trail counts for ever, restarts or not: the name in the status, the metric, its help.
_COUNTERS = (
    ("stored", "logd_events_stored", "Events stored"),
    ("own", "logd_own_events", "Events that logd wrote of its own acts, among those stored"),
    ("pruned", "logd_pruned_events", "Events removed since, past the time that their type is kept"),
    ("erased", "logd_erased_events", "Events of forgotten persons, erased since"),
    ("lost_claimed", "logd_events_lost_claimed", "Events lost by an outbox's own word alone"),
    (
        *("unknown_extent_claimed", "logd_losses_claimed_of_unknown_extent"),
        "Such claims whose number of events nobody knows",
    ),
    ("quarantined", "logd_quarantined", "Datagrams, outboxes and events put into quarantine"),
    ("refused_by_clients", "logd_refused_events", "Events that clients refused, by their own word"),
    ("duplicates_ignored", "logd_duplicates_ignored", "Datagrams that were stored already"),
)
_GAUGES = (
    ("pending", "logd_pending_events", "Events accepted and not yet stored"),
    ("outboxes", "logd_outboxes", "Outboxes of processes that log"),
    ("outboxes_bytes", "logd_outbox_bytes", "Memory that the outboxes take"),
    ("producers", "logd_producers", "Producers that have ever been heard of"),
    ("schema", "logd_schema_version", "Schema of the database"),
    ("room_s", "logd_outbox_room_seconds", "Until the first outbox is full, if nothing is stored"),
)
_DAY_S = 86_400


@dataclass(frozen=True)
class Standing:
    """What the metrics are made of; `state` is None where the database cannot be read."""

    running: bool
    stalled: bool
    figures: Figures | None
    state: dict[str, Any] | None


def look(config: Config, *, from_figures: bool) -> Standing:
    """How it stands now; for `from_figures` see `collect.status`."""
    pid, page = instance_lock.look(config.lock_file)
    try:
        state = collect_status(config, from_figures=from_figures)
    except LogdError:
        state = None
    stalled = pid is not None and page.trouble is not None
    return Standing(pid is not None, stalled, instance_lock.figures(config.lock_file), state)


class LogdCollector(Collector):
    """Looks anew each time it is asked."""

    def __init__(self, look: Callable[[], Standing]) -> None:
        self._look = look

    def describe(self) -> list[Metric]:
        """Nothing: to name the metrics would take a look, before anybody has asked."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics; those that are not known are left out."""
        found = self._look()
        yield _gauge("logd_up", "Whether a daemon serves the instance", found.running)
        yield _gauge("logd_stalled", "Whether it can store nothing at present", found.stalled)
        readable = found.state is not None
        yield _gauge("logd_trail_readable", "Whether the database opens with the key", readable)
        if found.figures is not None:
            yield from _of_the_daemon(found.figures)
        if found.state is not None:
            yield from _of_the_trail(found.state)


def registry(config: Config, *, from_figures: bool) -> CollectorRegistry:
    """A registry with these metrics and no others."""
    made = CollectorRegistry()
    made.register(LogdCollector(lambda: look(config, from_figures=from_figures)))
    return made


def text(config: Config) -> str:
    """The metrics of this moment in Prometheus' text format."""
    return generate_latest(registry(config, from_figures=False)).decode()


def _of_the_daemon(figures: Figures) -> Iterator[Metric]:
    yield _gauge("logd_start_time_seconds", "When the daemon started", figures.started_ns / 1e9)
    yield _gauge(
        "logd_last_turn_timestamp_seconds", "When its loop last turned", figures.at_ns / 1e9
    )
    buckets, total = [], 0
    for bound, count in zip((*COMMIT_BOUNDS_S, "+Inf"), figures.commit_counts, strict=True):
        total += count
        buckets.append((str(bound), total))
    yield HistogramMetricFamily(
        "logd_commit_duration_seconds",
        "Commits since the start, by how long they took",
        buckets=buckets,
        sum_value=figures.commit_s,
    )
    yield _gauge(
        "logd_commit_longest_seconds", "The longest since the start", figures.commit_longest_s
    )
    yield _gauge("logd_wal_bytes", "The database's log", figures.wal_bytes)
    if figures.queue_datagrams is not None:
        yield _gauge(
            "logd_queue_datagrams", "Datagrams that the socket holds", figures.queue_datagrams
        )


def _of_the_trail(state: dict[str, Any]) -> Iterator[Metric]:
    for key, name, help_text in _COUNTERS:
        yield CounterMetricFamily(name, help_text, value=state[key])
    for key, name, help_text in _GAUGES:
        if state[key] is not None:
            yield _gauge(name, help_text, state[key])
    lost = CounterMetricFamily("logd_lost_events", "Events in the loss ledger", labels=["cause"])
    unknown = CounterMetricFamily(
        "logd_losses_of_unknown_extent", "Losses whose number of events nobody knows",
        labels=["cause"],
    )  # fmt: skip
    for cause, totals in state["losses_by_cause"].items():
        if cause == LOST_CLAIMED:
            continue  # metrics of their own: anybody who may log can raise them
        lost.add_metric([cause], totals["events"])
        unknown.add_metric([cause], totals["unknown_extent"])
    yield from (lost, unknown)
    if state["last_stored_ns"] is not None:
        yield _gauge(
            "logd_last_stored_timestamp_seconds", "The newest batch", state["last_stored_ns"] / 1e9
        )
    yield from _of_the_files(state["runtime_files"])
    disk, verified = state["disk"], state["integrity"]
    yield _gauge("logd_database_bytes", "The database, without its log", disk["database_bytes"])
    if disk["free_bytes"] is not None:
        yield _gauge("logd_disk_free_bytes", "Free on the database's disk", disk["free_bytes"])
    if disk["days_left"] is not None:
        yield _gauge(
            "logd_disk_room_seconds", "Until it is full, at the growth of the last days",
            disk["days_left"] * _DAY_S,
        )  # fmt: skip
    if verified is not None:
        yield _gauge(
            "logd_verified_timestamp_seconds", "When logd verify last ran", verified["at_ns"] / 1e9
        )
        yield _gauge("logd_trail_whole", "Whether it found the trail whole", verified["whole"])


def _of_the_files(files: list[dict[str, Any]]) -> Iterator[Metric]:
    if not files:
        return
    wrong = GaugeMetricFamily(
        "logd_file_missing", "Whether a file that the daemon depends on is gone, or not its own",
        labels=["file"],
    )  # fmt: skip
    restored = CounterMetricFamily(
        "logd_files_restored", "Such files that it has put back since its start", labels=["file"]
    )
    for file in files:
        wrong.add_metric([file["name"]], float(file["problem"] is not None))
        restored.add_metric([file["name"]], file["restored"])
    yield from (wrong, restored)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=float(value))
