"""A hostile local process that may write to the socket and have outboxes, beside good ones.

Good producers lose nothing, are read while the flood goes on, and `logd status` names the sender.
Under users of their own, as root; what one user's processes can do to each other is not promised.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from logd.reports import ledger_queries
from logd.reports.parameters import Parameters
from logd.storage.opening import open_for_reading
from tests.faults.neighbours import (
    GOOD_UID,
    HOSTILE_UID,
    for_many_users,
    memory_bytes,
    neighbours,
)
from tests.support.instance import Instance, Process, check_sums, until
from tests.support.namespaces import needs_users
from tests.support.tally import Tally, disorder

pytestmark = needs_users

LOOK_INTERVAL_MS = 200
# A look may come late on a busy machine; without its part of each batch an outbox is never read.
INTERVALS_MAX = 150


def descriptors(daemon: Process) -> set[str]:
    """What the daemon has open, outboxes aside."""
    found = set()
    for fd in Path(f"/proc/{daemon.popen.pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except FileNotFoundError:
            continue
        if ".outbox" not in target:
            found.add(f"{fd.name} {target}")
    return found


@pytest.fixture
def daemon(instance: Instance) -> Process:
    # A batch that one step's datagrams would fill: whoever lets them, reads no outbox meanwhile.
    for_many_users(instance, look_interval_ms=LOOK_INTERVAL_MS, batch_events_max=10)
    return instance.start()


def accounted(status: dict[str, Any]) -> int:
    names = ("stored", "quarantined_events", "pending", "lost")
    return int(sum(status[name] for name in names))


FLOODS = {
    "garbage, and the largest datagrams": ["garbage", "largest"],
    "valid events, and malformed ones": ["valid", "malformed"],
    "a thousand producers, and numbers": ["producers", "numbers"],
    "duplicates, and awaited events": ["duplicates", "awaited"],
}


# Of the others' kinds, tests/logd/test_hostile.py sends some in the standard run.
IN_THE_STANDARD_RUN = {"garbage, and the largest datagrams", "duplicates, and awaited events"}


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(
            kind, marks=() if kind in IN_THE_STANDARD_RUN else pytest.mark.long(minutes=0.1)
        )
        for kind in FLOODS
    ],
)
def test_under_a_flood_good_neighbours_are_read_and_the_sender_is_named(
    instance: Instance, daemon: Process, tally: Tally, flood: str
) -> None:
    """Two processes flood under one user, two good ones emit under another."""
    before = descriptors(daemon)
    with contextlib.ExitStack() as stack:
        hostile = [
            stack.enter_context(
                neighbours(instance, kind, 1, HOSTILE_UID, seed=number, events=5000)
            )[0]
            for number, kind in enumerate(FLOODS[flood])
        ]
        until(lambda: all(one.count(1) > 50 for one in hostile), "the flood is on")
        with neighbours(instance, "good", 2, GOOD_UID, events=400) as good:
            for one in good:
                one.finish()  # all of it is on the disk, while the flood goes on
            assert all(one.process.popen.poll() is None for one in hostile), "it still does"
            flush_ms = max(one.count(2) for one in good)
        assert flush_ms <= INTERVALS_MAX * LOOK_INTERVAL_MS
        assert not {fd for fd in descriptors(daemon) - before if "/dev/null" in fd}
        assert memory_bytes(daemon.popen.pid, "VmHWM") <= instance.config.memory_bytes_max
    accepted = sum(one.count(0) for one in (*good, *hostile))
    until(lambda: accounted(instance.status()) >= accepted, "what was queued is read")
    status = instance.settle()
    refused = sum(one.count(1) for one in good)
    events = instance.events()
    tally.account(
        status, events, attempted=accepted + refused, accepted=accepted, refused=refused,
        killed=200,
    )  # fmt: skip
    assert sum(event["user"] == "good" for event in events) == 800
    assert status["lost"] == 0
    # Valid events and invented producers are nobody's fault: the others are in quarantine, by name.
    harmless = {"valid", "producers", "duplicates", "awaited"}
    kinds = dict(zip(FLOODS[flood], hostile, strict=True))
    refused_of = {one.pid for kind, one in kinds.items() if kind not in harmless}
    named = {(sender["uid"], sender["pid"]) for sender in status["quarantine_senders"]}
    assert named == {(HOSTILE_UID, pid) for pid in refused_of}
    if "duplicates" in kinds:
        first = status["duplicate_senders"][0]
        assert (first["uid"], first["pid"]) == (HOSTILE_UID, kinds["duplicates"].pid)
        refused_of = {first["pid"]}
    shown = instance.cli("status")
    assert all(f"user {HOSTILE_UID}, pid {pid}: " in shown for pid in refused_of)
    sent = sum(one.count(1) for one in hostile)
    tally.say(
        f"{flood}: {sent:,} datagrams against 800 good events, flushed {flush_ms} ms after the "
        f"last, at most {memory_bytes(daemon.popen.pid, 'VmHWM') >> 20} MiB resident"
    )
    assert instance.stop() == 0


def as_of_one_moment(instance: Instance) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Status and events. Of killed strangers something may be stored that is pending for nobody."""
    status: dict[str, Any] = {}
    events: list[dict[str, Any]] = []

    def agree() -> bool:
        nonlocal status, events
        status, events = instance.settle(), instance.events()
        return bool(len(events) == status["stored"])

    until(agree, "status and events are of one moment")
    return status, events


@pytest.mark.parametrize("kind", ["greedy", "endless", "storm"])
def test_beside_hostile_outboxes_good_neighbours_are_read(
    instance: Instance, daemon: Process, tally: Tally, kind: str
) -> None:
    """Full ones, ones that claim events without end, and files of every kind in their place."""
    with neighbours(instance, kind, 2, HOSTILE_UID) as hostile:
        until(lambda: all(one.count(1) > 50 for one in hostile), "they are at it")
        with neighbours(instance, "good", 2, GOOD_UID, events=400) as good:
            for one in good:
                one.finish()
            assert all(one.process.popen.poll() is None for one in hostile)
            flush_ms = max(one.count(2) for one in good)
    most = memory_bytes(daemon.popen.pid, "VmHWM")
    assert flush_ms <= INTERVALS_MAX * LOOK_INTERVAL_MS
    assert most <= instance.config.memory_bytes_max
    tally.say(
        f"{kind}: good events flushed {flush_ms} ms after the last, {most >> 20} MiB resident"
    )
    status, events = as_of_one_moment(instance)
    assert sum(event["user"] == "good" for event in events) == 800
    hostile_uid = f"{HOSTILE_UID}-"
    lost = [row["producer"] for row in losses(instance)]
    assert all(producer.startswith(hostile_uid) for producer in lost)
    # What was never written is lost as it was claimed; of honest ones nothing is.
    claimed = status["lost"] + sum(event["user"] == "endless" for event in events)
    honest = sum(one.count(0) for one in (*good, *hostile))
    refused = sum(one.count(1) for one in (good + hostile if kind == "greedy" else good))
    sums = {
        "attempted": honest + claimed + refused, "accepted": honest + claimed, "refused": refused,
    }  # fmt: skip
    if kind == "endless":  # in no table: nothing was lost that ever was
        check_sums(status, **sums, killed=2)
        assert disorder(events) == (0, 0)
    else:
        tally.account(status, events, **sums, killed=2)
    assert (claimed > 0) == (kind == "endless")
    if kind != "greedy":
        senders = status["quarantine_senders"]
        assert senders
        assert {sender["uid"] for sender in senders} == {HOSTILE_UID}
    assert instance.stop() == 0


def losses(instance: Instance) -> list[dict[str, Any]]:
    connection = open_for_reading(instance.config)
    try:
        return ledger_queries.losses(connection, Parameters({"limit": 200})).rows
    finally:
        connection.close()
