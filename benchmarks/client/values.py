"""Measure the time of a call for any value: usual, odd and huge ones, up to 100 MB.

The caller waits while its values are checked, whether they are accepted or not. No daemon runs:
accepted events stay in the outbox and are counted.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import gc
import time
import uuid
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import table
from benchmarks.harness.processes import Instance
from logd_client import Client

USUAL_CALLS, HUGE_CALLS = 400, 5
HEAD = ("value", "calls", "accepted", "p50", "p99", "worst")


class _Role(enum.Enum):
    STUDENT = "student"


class _Object:
    """An object that an event cannot hold."""


@dataclass(frozen=True)
class Timed:
    """The timed calls with one value."""

    name: str
    calls_ns: array[int]
    accepted: int


def _shared_references(levels: int, width: int) -> list[Any]:
    value: list[Any] = [1] * width
    for _ in range(levels - 1):
        value = [value] * width
    return value


def usual() -> dict[str, Any]:
    """Return values that applications log."""
    return {
        "plain and flat": "a text",
        "nested": {"part": [1, 2.5, {"right": True}]},
        "a date and time": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "a decimal": decimal.Decimal("0.80"),
        "a UUID": uuid.UUID(int=5),
        "an enumeration's member": _Role.STUDENT,
        "a set": {1, 2, 3},
        "bytes": b"\x01" * 32,
        "keys that are numbers": {1: "a", 2: "b"},
        "no Unicode": "a\udcff",
        "an object, marked": _Object(),
    }


def huge() -> dict[str, Any]:
    """Return values that are too large, or nearly."""
    cycle: list[Any] = []
    cycle.extend([cycle] * 10)
    return {
        "100 MB of text": "x" * 100_000_000,
        "100 MB of text, within": [{"text": "x" * 100_000_000}],
        "100 MB of bytes": bytes(100_000_000),
        "10,000,000 numbers": [1] * 10_000_000,
        "1,000,000 keys": dict.fromkeys(map(str, range(1_000_000)), 1),
        "shared references, 14 levels of 10": _shared_references(14, 10),
        "a list that holds itself ten times": cycle,
        "32,000 numbers": [1] * 32_000,
        "6,000 lists": [[] for _ in range(6_000)],
        "3,000 members": [_Role.STUDENT] * 3_000,
    }


def measure(place: Path) -> tuple[list[Timed], dict[str, Any]]:
    """Log each value repeatedly, with an instance in `place`; return times and client counts."""
    timed = []
    with Instance(place) as instance, Client(str(instance.socket)) as client:
        client.emit("page_view")
        for values, calls in ((usual(), USUAL_CALLS), (huge(), HUGE_CALLS)):
            for name, value in values.items():
                timed.append(_calls(client, name, {"value": value}, calls))
        return timed, client.stats()


def _calls(client: Client, name: str, props: Mapping[str, Any], calls: int) -> Timed:
    calls_ns, accepted = array("Q"), 0
    gc.collect()
    for _ in range(calls):
        start_ns = time.perf_counter_ns()
        accepted += client.emit("quiz_submitted", user="7", props=props)
        calls_ns.append(time.perf_counter_ns() - start_ns)
    return Timed(name, calls_ns, accepted)


def show(timed: list[Timed]) -> str:
    """Return the table."""
    rows = [
        [
            one.name,
            f"{len(one.calls_ns):,}",
            f"{one.accepted:,}",
            *(table.duration(table.quantile(one.calls_ns, share)) for share in (0.5, 0.99, 1.0)),
        ]
        for one in timed
    ]
    return table.render(HEAD, rows)


def figures(timed: list[Timed]) -> dict[str, float]:
    """Return p99 of all calls, about one in a hundred with a huge value, and the longest call."""
    every = array("Q")
    for one in timed:
        every.extend(one.calls_ns)
    return {
        "client.any_value_p99_ms": table.quantile(every, 0.99) / 1e6,
        "client.any_value_worst_ms": max(every) / 1e6,
    }


def problems(stats: Mapping[str, Any]) -> list[str]:
    """Return the wrong sums."""
    whole = stats["attempted"] == stats["accepted"] + stats["refused"]
    kept = stats["accepted"] == stats["confirmed"] + stats["pending"] + stats["unconfirmable"]
    return [] if whole and kept else [f"values: the client's counts do not add up: {stats}"]
