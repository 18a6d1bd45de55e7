"""Under each attack of another user a good neighbour is served as if there were none.

Its durable events are stored in time, all its events are, none of it is lost; the daemon stays the
same process within its memory, and `status` names the user who attacks. As root: attacker and
neighbour are users of their own. What one user's processes can do to each other is not promised.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.storage.opening import open_for_reading
from logd_client import Client
from tests.faults.neighbours import GOOD_UID, for_many_users, memory_bytes
from tests.faults.places import small_disk
from tests.faults.steady import Steady
from tests.faults.strangers import ATTACKS, plant_sparse, remove_files
from tests.support.counter_file import CounterFile
from tests.support.instance import Instance, Process, until
from tests.support.namespaces import needs_users
from tests.support.tally import Tally, disorder

pytestmark = needs_users

ATTACKER_UID = 12345
MEMORY_KIB = 96 * 1024  # of the file system that has the outboxes
# What was promised is the bound of the long tests; a busy machine gets this.
P95_MS_MAX = 50.0
P95_MS_MAX_BUSY = 1000.0
ATTACK_S = 15.0
PLAIN = 20  # events before each durable one


class Stranger:
    """Attacks under a user of their own, and how many rounds each has made."""

    def __init__(self, instance: Instance, name: str) -> None:
        self.names = list(ATTACKS) if name == "all" else [name]
        self._counters = CounterFile()
        self._process = Process(
            *("-m", "tests.faults.strangers", name, instance.socket),
            *(str(instance.config.query_socket), "600", str(ATTACKER_UID), self._counters.path),
        )

    @property
    def rounds(self) -> dict[str, int]:
        return dict(zip(self.names, self._counters.words(), strict=False))

    def close(self) -> None:
        """Every attack at its end."""
        self._process.end(signal.SIGTERM)
        self._process.close()
        assert not self._process.lines, self._process.lines


@contextlib.contextmanager
def stranger(instance: Instance, name: str) -> Iterator[Stranger]:
    """Attacks until the block ends."""
    running = Stranger(instance, name)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def attacked(instance: Instance, directory: Path) -> Iterator[Instance]:
    """An instance that any user may log to and the attacker may ask, its outboxes in a tmpfs that
    can be filled without taking the machine's memory.
    """
    with small_disk(directory / "memory", MEMORY_KIB) as memory:
        for_many_users(
            instance,
            outbox_directory=str(memory / "outboxes"),
            query_socket_mode="0666",
            query_uids=[ATTACKER_UID],
        )
        yield instance
        if instance.daemon is not None:
            instance.daemon.close()


def emit_history(instance: Instance, users: int) -> None:
    """What makes a question about all users a heavy one."""
    with Client(instance.socket, outbox_bytes=64 * 1024 * 1024) as client:
        for user in range(users):
            assert client.emit("quiz_submitted", user=str(user), props={"quiz": "1", "score": 0.5})
        assert client.flush(60)


def of_neighbour(instance: Instance) -> tuple[list[dict[str, Any]], int, int]:
    """Its events, oldest first, its rows in the ledger, and all events there are."""
    connection = open_for_reading(instance.config)
    try:
        rows = connection.execute(
            "SELECT p.key, e.sequence FROM event e JOIN producer p ON p.id = e.producer"
            " WHERE p.uid = ? ORDER BY e.id",
            (GOOD_UID,),
        ).fetchall()
        (losses,) = connection.execute(
            "SELECT count(*) FROM loss l JOIN producer p ON p.id = l.producer WHERE p.uid = ?",
            (GOOD_UID,),
        ).fetchone()
        (events,) = connection.execute("SELECT count(*) FROM event").fetchone()
    finally:
        connection.close()
    return [{"producer": key, "sequence": sequence} for key, sequence in rows], losses, events


def check_neighbour(
    instance: Instance, daemon: Process, tally: Tally, name: str, seconds: float, p95_ms_max: float
) -> None:
    """Attacks for that long beside a good neighbour, and holds every promise against it."""
    directory = instance.config.outbox_directory
    with Steady(instance, uid=GOOD_UID, outbox_bytes=8 * 1024 * 1024) as neighbour:
        neighbour.emit_stored(1)  # its outbox is there before the file system is full
        with stranger(instance, name) as attacker:
            until(lambda: all(attacker.rounds.values()), f"under way: {attacker.rounds}")
            latencies = neighbour.emit_for(seconds, PLAIN)
            stored = neighbour.flush(30)
            says = instance.cli("status")
            rounds = attacker.rounds
        assert daemon.popen.poll() is None, daemon.lines[-3:]
        most = memory_bytes(daemon.popen.pid, "VmHWM")
        tally.say(
            f"{name}: {len(latencies.took_ms)} durable events, p95 {latencies.p95_ms:.1f} ms, "
            f"longest {max(latencies.took_ms):.1f} ms; {most >> 20} MiB resident; "
            f"rounds of attack: {rounds}"
        )
        assert stored, daemon.lines[-3:]
        assert latencies.not_stored == 0
        assert most <= instance.config.memory_bytes_max
        assert latencies.p95_ms < p95_ms_max
        remove_files(directory, ATTACKER_UID)
        stats = neighbour.stats

    def settled() -> bool:
        # What was asked last may be stored as an event between two looks.
        return bool(instance.settle()["stored"] == of_neighbour(instance)[2])

    until(settled, "as many events are stored as are counted")
    events, losses, _ = of_neighbour(instance)
    assert stats["attempted"] == stats["accepted"] + stats["refused"]
    assert (len(events), losses) == (stats["accepted"], 0)
    assert disorder(events) == (0, 0)
    tally.add(**{n: stats[n] for n in ("attempted", "accepted", "refused")}, stored=len(events))
    assert re.search(rf"\b{ATTACKER_UID}\b", says), f"status names the user who attacks:\n{says}"
    assert instance.stop() == 0
    assert not any("Traceback" in line for line in daemon.lines)


def start_attacked(instance: Instance, sparse_files: int) -> Process:
    """The daemon, come up over sparse files of the attacker's."""
    instance.start()
    instance.stop()
    plant_sparse(instance.config.outbox_directory, ATTACKER_UID, sparse_files)
    daemon = instance.spawn(loads_reports=True)
    until(lambda: daemon.says("logd: ready"), "ready, whatever lies there", 20)
    return daemon


def test_beside_all_attacks_at_once_a_good_neighbour_is_served(
    attacked: Instance, tally: Tally
) -> None:
    daemon = start_attacked(attacked, sparse_files=30)
    emit_history(attacked, 10_000)
    check_neighbour(attacked, daemon, tally, "all", 3.0, P95_MS_MAX_BUSY)


@pytest.mark.long(minutes=0.5)
@pytest.mark.parametrize("name", [*ATTACKS, "all"])
def test_under_each_attack_a_good_neighbour_is_served_in_time(
    attacked: Instance, tally: Tally, name: str
) -> None:
    daemon = start_attacked(attacked, sparse_files=300 if name in ("sparse", "all") else 0)
    emit_history(attacked, 300_000 if name in ("questions", "all") else 1000)
    check_neighbour(attacked, daemon, tally, name, ATTACK_S, P95_MS_MAX)
