"""The attacks of tests/faults/strangers.py, all at once, against the installed service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.instance import DEADLINE_S, check_streams, until
from tests.systemd.box import SOURCE, Box
from tests.systemd.load import SOCKET, Load

pytestmark = pytest.mark.booted
QUERY_SOCKET = "/run/logd/query.sock"
OUTBOXES = "/run/logd/writers/outboxes"
ATTACK_S = 10


@pytest.fixture
def filled(box: Box) -> Iterator[Box]:
    """The box with a user who may log and ask for reports, and a small outboxes' file system."""
    box.run("id stranger || useradd --system --groups logd-write,logd-read stranger")
    box.run(f"mount -o remount,size=96m {OUTBOXES}")
    yield box
    box.run(f"mount -o remount,size=25% {OUTBOXES}")


def test_reports_have_a_lower_priority_in_the_sandbox_too(box: Box) -> None:
    pid = box.show("logd", "MainPID")
    assert box.run(f"ps -o ni= -p {pid}").strip() == "0"
    assert box.run(f"ps -o ni= --ppid {pid}").strip() == "10"


def test_all_attacks_at_once_cause_no_restart_and_the_load_is_stored(filled: Box) -> None:
    box = filled
    pid, restarts = box.show("logd", "MainPID"), box.show("logd", "NRestarts")
    uid = box.run("id -u stranger").strip()
    running = Load(box)
    try:
        running.wait_for_more()
        attacks = box.popen(
            f"exec runuser -u stranger -- env PYTHONPATH={SOURCE} /usr/local/lib/logd/bin/python"
            f" -m tests.faults.strangers all {SOCKET} {QUERY_SOCKET} {ATTACK_S}"
        )
        rounds, complaints = attacks.communicate(timeout=DEADLINE_S + ATTACK_S)
        assert (attacks.returncode, complaints) == (0, "")
        assert ": 0" not in rounds, f"each was under way: {rounds}"
        says = box.run("logd status")
        running.wait_for_more()
    finally:
        running.end()
        # The daemon removes outboxes while find runs, so a missing file is not an error.
        box.run(f"find {OUTBOXES} -ignore_readdir_race -user stranger -delete")
    assert (box.show("logd", "MainPID"), box.show("logd", "NRestarts")) == (pid, restarts)
    until(lambda: box.status()["pending"] == 0, "nothing is pending")
    stored = box.events(f"--user {running.name}")
    assert len(stored) == running.accepted
    check_streams(stored)
    assert f"user {uid}" in says, says
