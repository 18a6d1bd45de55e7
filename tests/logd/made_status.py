"""A made-up status of an instance, and the metrics that come of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from logd.reports.ledger_queries import CAUSES
from logd.runtime_stats import RuntimeStats
from logd.status.disk import Disk
from logd.status.metrics import LogdCollector, MetricsSnapshot

NS = 10**9
ZEROS = {"entries": 0, "events": 0, "unknown_extent": 0}
EMPTY: dict[str, Any] = {
    "running_pid": None,
    "trouble": None,
    **dict.fromkeys(
        (
            "stored", "commits", "pending", "outboxes", "outboxes_unreadable", "lost",
            "lost_claimed", "unknown_extent", "unknown_extent_claimed", "quarantined",
            "quarantined_events", "refused_by_clients",
            "duplicates_ignored", "own", "pruned", "erased", "producers", "schema",
            "losses_entries", "outboxes_bytes",
        ),
        0,
    ),
    "last_stored_ns": None,
    "losses": [],
    "losses_by_user": [],
    "outboxes_by_user": [],
    "quarantine_senders": [],
    "duplicate_senders": [],
    "losses_by_cause": {cause: dict(ZEROS) for cause in CAUSES},
    "config": "/srv/logd/logd.toml",
    "at_ns": 1_762_178_700 * NS,
    "figures": None,
    "room_s": None,
    "disk": asdict(Disk(0, 0, None, None)),
    "integrity": None,
    "readers": [],
    "maintenance": [],
    "runtime_files": [],
}  # fmt: skip


FULL: dict[str, Any] = EMPTY | {
    "stored": 100, "room_s": 7200.0, "last_stored_ns": NS,
    "disk": EMPTY["disk"] | {"free_bytes": 10**9, "days_left": 30.0},
    "integrity": {"at_ns": NS, "whole": True, "answer": "whole"},
    "maintenance": [
        {"task": "backup", "at_ns": 2 * NS, "ok_ns": NS, "problem": "the disk is full"},
        {"task": "prune", "at_ns": None, "ok_ns": None, "problem": None},
    ],
    "runtime_files": [
        {"name": "token", "problem": "not there", "restored": 0},
        {"name": "socket", "problem": None, "restored": 3},
    ],
}  # fmt: skip
FIGURES = RuntimeStats(
    at_ns=3 * NS, started_ns=2 * NS, commits=6, commit_s=0.5, commit_counts=(1, 2, *[0] * 11, 3),
    queue_datagrams=513,
)  # fmt: skip


def samples(text: str) -> dict[tuple[str, str], float]:
    """Each sample by its name and its label's value; fails for text of another form."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            found[sample.name, "".join(sample.labels.values())] = sample.value
    return found


def metrics_of(snapshot: MetricsSnapshot) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(LogdCollector(lambda: snapshot))
    return samples(generate_latest(registry).decode())


EVERYTHING = metrics_of(MetricsSnapshot(True, False, FIGURES, FULL))
