"""Many processes that log one event each while the daemon is away: memory, and nothing lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from logd_wire.outbox.layout import RING_BYTES_MIN, outbox_bytes
from tests.support.instance import ROOT, Instance, check_streams, check_sums

MIB = 1024 * 1024
# Forked from one process: to start Python 2,000 times would take longer than all the rest.
PROCESSES = """
import os, sys
from logd_client import Client
client = Client(sys.argv[1])
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        accepted = client.emit("cron_ran", user="7", props={"n": number})
        client.close()
        os._exit(0 if accepted else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, number
"""


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.long(minutes=0.5))])
def test_short_lived_processes_take_memory_for_what_they_log(
    instance: Instance, count: int
) -> None:
    subprocess.run(
        [sys.executable, "-c", PROCESSES, instance.socket, str(count)], cwd=ROOT, check=True
    )
    outboxes = list(instance.config.outbox_directory.glob("*.outbox"))
    taken = sum(path.stat().st_blocks * 512 for path in outboxes)
    assert len(outboxes) == count
    assert taken == count * outbox_bytes(RING_BYTES_MIN)
    assert taken / count * 2000 <= 256 * MIB
    assert instance.status()["pending"] == count
    instance.start()
    status = instance.settle()
    check_sums(status, attempted=count, accepted=count)
    assert (status["stored"], status["lost"]) == (count, 0)
    events = instance.events()
    assert sorted(event["props"]["n"] for event in events) == list(range(count))
    assert set(check_streams(events).values()) == {1}
