"""The bound that the configuration states of logd's resident memory, held against /proc.

`VmHWM` is the most that was resident since the process began. The report process is not inside
the bound: it is looked at beside it. Outboxes are the machine's memory, counted apart.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from logd.config.settings import Config, memory_parts, parse
from logd.config.table import MIB
from logd.errors import ConfigError
from logd.storage.opening import open_for_reading
from logd_wire.outbox.names import outbox_name
from tests.faults.neighbours import memory_bytes, neighbours, plant
from tests.support.instance import Instance, Process, check_streams, until
from tests.support.tally import Tally

HOUR_EVENTS = 360_000  # a hundred a second


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def numbers(instance: Instance) -> list[dict[str, Any]]:
    """Producer and sequence of every event, oldest first: all that the sums need of so many."""
    connection = open_for_reading(instance.config)
    try:
        rows = connection.execute("SELECT producer, sequence FROM event ORDER BY id")
        return [{"producer": producer, "sequence": sequence} for producer, sequence in rows]
    finally:
        connection.close()


def check_memory(config: Config, daemon: Process, tally: Tally, what: str) -> None:
    """The most that was ever resident is within the bound; of the report process it is said."""
    pid = daemon.popen.pid
    most = memory_bytes(pid, "VmHWM")
    reports = max((memory_bytes(child, "VmHWM") for child in children(pid)), default=0)
    tally.say(
        f"{what}: logd at most {most / MIB:.0f} of {config.memory_bytes_max // MIB} MiB resident, "
        f"its report process {reports / MIB:.0f} MiB"
    )
    assert most <= config.memory_bytes_max
    # Nothing of a flood or a backlog reaches it.
    assert reports <= 64 * MIB


@pytest.mark.parametrize(
    "waiting", [HOUR_EVENTS // 3, pytest.param(HOUR_EVENTS, marks=pytest.mark.long(minutes=0.2))]
)
def test_an_hours_backlog_is_read_within_the_bound(
    instance: Instance, tally: Tally, waiting: int
) -> None:
    """Events of 24 producers wait, several times as many as a batch takes; then logd comes up."""
    directory = instance.config.outbox_directory
    for producer_id in range(1, 25):
        plant(directory, producer_id, waiting // 24, ring_bytes=8 * MIB, text_bytes=400)
    assert instance.status()["pending"] == waiting
    daemon = instance.start(loads_reports=True)
    until(lambda: not list(directory.glob("*.outbox")), "all of them are read, and removed", 240)
    status = instance.settle()
    check_memory(instance.config, daemon, tally, f"a backlog of {waiting:,} events")
    assert (status["stored"], status["lost"]) == (waiting, 0)
    tally.account(status, numbers(instance), attempted=waiting, accepted=waiting)


@pytest.mark.long(minutes=1)
def test_a_flood_and_a_thousand_producers_stay_within_the_bound(
    instance: Instance, tally: Tally
) -> None:
    """Garbage, the largest datagrams, invented producers and lying msgpack, all at once."""
    directory = instance.config.outbox_directory
    for producer_id in range(1, 1001):
        plant(directory, producer_id, 5)
    for number in range(3000):
        (directory / outbox_name(os.getuid(), 10**6 + number)).touch()
    daemon = instance.start(loads_reports=True)
    kinds = ("garbage", "largest", "producers", "malformed")
    with (
        neighbours(instance, kinds[0], 1, os.getuid()) as one,
        neighbours(instance, kinds[1], 1, os.getuid()) as two,
        neighbours(instance, kinds[2], 1, os.getuid(), events=15_000) as three,
        neighbours(instance, kinds[3], 1, os.getuid(), events=3_000) as four,
    ):
        hostile = [*one, *two, *three, *four]
        until(lambda: all(h.count(1) > 3000 for h in hostile), "the flood has gone on for a while")
        until(lambda: three[0].count(0) > 12_000, "so many producers were invented")
    check_memory(instance.config, daemon, tally, "a flood beside a thousand producers")
    accepted = 5000 + sum(one.count(0) for one in hostile)

    def accounted() -> bool:
        state = instance.status()
        names = ("stored", "quarantined_events", "lost")
        return int(sum(state[name] for name in names)) >= accepted

    until(accounted, "what was queued is read", 120)
    status = instance.settle()
    events = numbers(instance)
    tally.account(status, events, attempted=accepted, accepted=accepted, killed=4)
    check_streams(events)
    assert status["lost"] == 0


def test_damaged_rings_of_the_largest_size_stay_within_the_bound(
    instance: Instance, tally: Tally
) -> None:
    """Searched for the next good record, piece by piece; given up, they are no longer there."""
    directory = instance.config.outbox_directory
    for producer_id in (1, 2):
        path = plant(directory, producer_id, 3, ring_bytes=64 * MIB, text_bytes=20_000)
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 100)
    daemon = instance.start(loads_reports=True)
    status = instance.settle()
    check_memory(instance.config, daemon, tally, "damaged rings of 64 MiB")
    assert (status["stored"], status["lost"]) == (4, 2)
    tally.account(status, instance.events(), attempted=6, accepted=6)


def test_the_bound_is_the_configurations_and_parts_that_cannot_fit_are_refused() -> None:
    file = Path("/srv/logd/logd.toml")
    config = parse("", file)
    assert sum(memory_parts(config).values()) <= config.memory_bytes_max
    for text in (
        "batch_events_max = 100_000",
        f"batch_bytes_max = {64 * MIB}",
        "outboxes_max = 100_000",
        f"cache_bytes_max = {64 * MIB}",
        f"memory_bytes_max = {64 * MIB}",
    ):
        with pytest.raises(ConfigError) as caught:
            parse(text, file)
        for name in ("memory_bytes_max", *memory_parts(config)):
            assert name in str(caught.value)
        larger = f"memory_bytes_max = {1024 * MIB}"
        parse(larger if text.startswith("memory") else f"{text}\n{larger}", file)
