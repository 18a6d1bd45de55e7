"""Bounds on what outboxes may take: descriptors, memory, and files that were never finished."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from logd.ingest.outbox_directory import TEMPORARY_AGE_MAX_S, OutboxDirectory
from logd.status.collect import collect_status
from logd_wire.outbox.names import TEMPORARY_PREFIX
from tests.logd.stepped_daemon import SteppedDaemon
from tests.logd.test_hostile import datagram, sender
from tests.support.instance import ROOT, Instance, check_sums, emitters, until


@pytest.mark.parametrize("age_s", [0, 10**8, -(10**8)], ids=["now", "3 years ahead", "1970"])
def test_an_unfinished_outbox_is_removed_by_the_time_that_it_was_seen_and_no_clock(
    directory: Path, age_s: int
) -> None:
    """The file's own time is of the wall clock, which may have been set since."""
    now_s = [0.0]
    outboxes = OutboxDirectory(directory, monotonic_s=lambda: now_s[0])
    outboxes.attach()
    file = directory / f"{TEMPORARY_PREFIX}just-begun"
    file.touch()
    moment_s = time.time() - age_s
    os.utime(file, (moment_s, moment_s))
    for now_s[0] in (0.0, 1.0, TEMPORARY_AGE_MAX_S):
        assert list(outboxes.names()) == []
        assert file.exists()
    file.unlink()
    now_s[0] += 1
    list(outboxes.names())
    file.touch()  # another of that name
    for later_s in (1, TEMPORARY_AGE_MAX_S):
        now_s[0] += later_s
        list(outboxes.names())
        assert file.exists()
    now_s[0] += 1
    list(outboxes.names())
    assert not file.exists()
    outboxes.close()


def test_unfinished_outboxes_are_remembered_up_to_a_bound(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logd.ingest.outbox_directory.TEMPORARY_MAX", 3)
    now_s = [0.0]
    outboxes = OutboxDirectory(directory, monotonic_s=lambda: now_s[0])
    outboxes.attach()
    for number in range(8):
        (directory / f"{TEMPORARY_PREFIX}{number}").touch()
    rounds, left = 0, 8
    while left:
        list(outboxes.names())
        removed, left = left - len(list(directory.iterdir())), len(list(directory.iterdir()))
        assert removed <= 3, "no others were remembered"
        now_s[0] += TEMPORARY_AGE_MAX_S + 1
        rounds += 1
    assert rounds <= 8
    outboxes.close()


def test_out_of_descriptors_outboxes_wait_and_nothing_is_lost(instance: Instance) -> None:
    """Sixty producers, and a daemon that may open forty files."""
    code = (
        "import sys\nfrom logd_client import Client\n"
        "clients = [Client(sys.argv[1], outbox_bytes=65536) for _ in range(60)]\n"
        "assert all(c.emit('page_view') for c in clients for _ in range(3))\n"
    )
    subprocess.run([sys.executable, "-c", code, instance.socket], cwd=ROOT, check=True)

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

    instance.start(preexec_fn=few)
    status_ = instance.settle()
    check_sums(status_, attempted=180, accepted=180)
    assert (status_["stored"], status_["lost"]) == (180, 0)
    until(lambda: instance.status()["outboxes"] == 0, "all are removed")
    assert instance.stop() == 0


def test_a_client_without_an_outbox_is_received_when_no_more_outboxes_can_be_opened(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    """Its gaps are still losses: none of its events can be in a file that is not open."""
    daemon.start()
    daemon.delivery.outboxes.quota.files_max = 0
    with sender(instance) as sock:
        sock.send(datagram(1))
        sock.send(datagram(4))
    daemon.run_once(timeout_s=0)
    state = instance.status()
    check_sums(state, attempted=4, accepted=4)
    assert (state["stored"], state["lost"]) == (2, 2)


def test_the_status_reads_the_watermarks_of_outboxes_only(
    instance: Instance, daemon: SteppedDaemon
) -> None:
    """Reading those of all producers ever seen would take unbounded memory."""
    daemon.start()
    daemon.store.connection.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM n WHERE n < 51000)"
        " INSERT INTO producer SELECT n, 5, printf('%016x', n), 1, 0, 1, '', 1, 1, 1 FROM n"
    )
    tracemalloc.start()
    try:
        collect_status(instance.config)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1024 * 1024


def test_outboxes_that_take_more_memory_than_their_bound_are_logged_with_their_user(
    instance: Instance,
) -> None:
    """They are not in the daemon's own memory: it logs a warning, and still reads them."""
    instance.configure(outboxes_bytes_max=1024 * 1024)
    daemon = instance.start()
    with emitters(instance, count=1, events=10**9) as (emitter,):
        until(lambda: daemon.says("outboxes_bytes_max is 1048576"), "the warning is logged")
        (line,) = [line for line in daemon.lines if "outboxes_bytes_max" in line]
        # One process: its ring, and those that it has outgrown and that are not removed yet.
        assert re.search(rf"in [123] files, belongs to user {os.getuid()}$", line)
        emitter.close()
        accepted, refused = emitter.accepted, emitter.refused
    status_ = instance.settle()
    check_sums(status_, attempted=accepted + refused, accepted=accepted, refused=refused, killed=1)
    assert status_["lost"] == 0
