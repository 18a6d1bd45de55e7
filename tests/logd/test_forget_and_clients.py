"""Events of a person that come after the forget: erased if made before it, else stored."""

from __future__ import annotations

import json
import subprocess
import time

from tests.logd.hundred_days import NAME, fill, found, served
from tests.support.instance import Instance, Process, check_sums

__all__ = ["served"]  # a fixture

EMIT = """
import sys
from logd_client import Client
client = Client(sys.argv[1])
for n in range(50):
    user, ts_ns = (sys.argv[2], int(sys.argv[3])) if n % 2 else ("other", None)
    assert client.emit("page_view", user=user, props={"n": n}, ts_ns=ts_ns)
"""


def emit_at(instance: Instance, ts_ns: int) -> None:
    """25 events of the person, at that time, and 25 of another; whoever made them has ended."""
    process = Process("-c", EMIT, instance.socket, NAME, str(ts_ns))
    try:
        assert process.popen.wait(30) == 0, process.lines
    finally:
        process.close()


def test_what_a_forgotten_person_did_before_and_arrives_after_is_erased(served: Instance) -> None:
    """Emitted while there is no daemon, by a clock that is ahead; the person is forgotten; then the
    daemon comes.
    """
    fill(served, 10)
    emit_at(served, time.time_ns() + 3600 * 10**9)
    said = json.loads(served.cli("forget", NAME, "--yes", "--json"))
    assert said["still_to_come"] == {"events": 50, "producers": 1, "unreadable": 0}
    served.start()
    check_sums(served.settle(), attempted=60, accepted=60)
    assert served.status()["erased"] == 1 + 25
    assert found(served) == []


def test_events_after_a_forget_are_stored_whatever_the_clients_clock(
    served: Instance,
) -> None:
    fill(served, 10)
    assert "nothing that was made before waits" in served.cli("forget", NAME, "--yes")
    emit_at(served, 1)
    served.start()
    check_sums(served.settle(), attempted=60, accepted=60)
    assert served.status()["erased"] == 1
    assert len(served.events("--user", NAME)) == 25


def test_a_client_that_continues_during_a_forget_is_split_by_sequence_not_by_clock(
    served: Instance,
) -> None:
    fill(served, 10)
    served.start()
    code = (
        "import sys\nfrom logd_client import Client\nc = Client(sys.argv[1])\n"
        "for ts_ns in (4 * 10**18, 1):\n"
        "    assert c.emit('login', user=sys.argv[2], ts_ns=ts_ns)\n"
        "    print('made', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    client = Process("-c", code, served.socket, NAME, stdin=subprocess.PIPE)
    try:
        assert client.popen.stdout is not None
        assert client.popen.stdin is not None
        assert client.popen.stdout.readline() == "made\n"
        served.cli("forget", NAME, "--yes")
        client.popen.stdin.write("\n")
        client.popen.stdin.flush()
        assert client.popen.stdout.readline() == "made\n"
        check_sums(served.settle(), attempted=12, accepted=12)
    finally:
        client.close()
    assert [event["ts_ns"] for event in served.events("--user", NAME)] == [1]
