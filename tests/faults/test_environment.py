"""The machine around logd is not as it should be: clocks, descriptors, queues, memory, owners."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.ingest.outbox_directory import filesystem_type
from tests.faults.faulty_disk import faulty_disk
from tests.faults.places import (
    fill,
    in_own_mounts,
    small_disk,
    unshare_works,
)
from tests.faults.steady import Steady, check_whole, one_line
from tests.support.instance import Instance, Process, check_streams, check_sums, until
from tests.support.namespaces import needs_root, needs_users
from tests.support.tally import Tally

DAY_S = 86_400


# -- the wall clock ------------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_neither_order_nor_sums(
    instance: Instance, directory: Path, tally: Tally
) -> None:
    """The daemon's by a day and on by two, the client's in every event."""
    with faulty_disk(directory) as disk, Steady(instance) as steady:
        instance.start(env=disk.env)
        for offset_s, ts_ns in ((0, 3 * 10**18), (-DAY_S, 2 * 10**18), (DAY_S, 10**18), (0, 99)):
            disk.move_clock(offset_s)
            steady.emit(50, ts_ns=ts_ns)
            assert steady.flush(30)
        disk.move_clock(-DAY_S)
        instance.kill()
        steady.emit(50, ts_ns=50)  # all in one batch at the next start
        instance.start(env=disk.env)
        steady.account(tally, kills=1)
        events = instance.events()
        assert [event["id"] for event in events] == [*range(1, 251)]
        stored_ns = [event["stored_ns"] for event in events]
        assert stored_ns != sorted(stored_ns), "the daemon's clock did not go back"
        assert [e["ts_ns"] for e in events[::50]] == [3 * 10**18, 2 * 10**18, 10**18, 99, 50]
        assert instance.stop() == 0


# -- descriptors and the kernel's queue ----------------------------------------------------------


@pytest.mark.parametrize("descriptors", [5, 8, 12, 39])
def test_with_too_few_descriptors_it_says_how_many_it_needs(
    instance: Instance, descriptors: int
) -> None:
    """With fewer it would run, read no outbox, and let all of them fill up."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    config = str(instance.config.path)
    daemon = Process("-m", "logd", "run", "--config", config, preexec_fn=few)
    try:
        until(lambda: daemon.popen.poll() is not None, "it ends")
        assert daemon.end() == 71
        line = one_line("\n".join(daemon.lines))
        assert f"only {descriptors} open files are allowed" in line and "LimitNOFILE" in line
    finally:
        daemon.close()


FOURTEEN = """
import sys, time
from logd_client import Client
clients = [Client(sys.argv[1], outbox_bytes=65536) for _ in range(14)]
for client in clients:
    assert all(client.emit("page_view", user="7") for _ in range(100))
print("emitted", flush=True)
sys.stdin.readline()
for client in clients:
    assert client.emit("page_view", user="7")
    time.sleep(0.02)
print("once more", flush=True)
sys.stdin.readline()
for client in clients[:5]:
    client.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def test_more_outboxes_than_descriptors_wait_for_their_turn(
    instance: Instance, tally: Tally
) -> None:
    """Ten may be open at once: the others' events wait in them, and are no losses."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (42, 42))

    clients = Process("-c", FOURTEEN, instance.socket, stdin=subprocess.PIPE)
    try:
        stdin, stdout = clients.popen.stdin, clients.popen.stdout
        assert stdin is not None and stdout is not None
        assert stdout.readline() == "emitted\n", clients.lines
        daemon = instance.start(preexec_fn=few)
        until(lambda: instance.status()["pending"] == 400, "ten of fourteen outboxes are read")
        until(lambda: daemon.says("since 10 outboxes of user"), "it says why")
        stdin.write("\n")
        stdin.flush()
        assert stdout.readline() == "once more\n"  # a datagram past what waits is no gap
        until(lambda: instance.status()["stored"] == 1010, "the ten are read on")
        state = instance.status()
        assert (state["pending"], state["lost"]) == (404, 0)
        stdin.write("\n")
        stdin.flush()
        assert stdout.readline() == "closed\n"
        until(lambda: instance.status()["pending"] < 404, "one that waited has its turn")
        stdin.close()
        state, events = instance.settle(), instance.events()
        tally.account(state, events, attempted=1414, accepted=1414)
        assert (state["stored"], state["lost"]) == (1414, 0)
        check_streams(events)
        check_whole(instance)
    finally:
        clients.close()


def test_a_burst_far_over_the_kernels_queue_is_read_from_the_outbox(
    instance: Instance, tally: Tally
) -> None:
    """Outside systemd the queue takes 10 datagrams and one more."""
    depth = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1
    daemon = instance.start()
    with Steady(instance) as steady, Steady(instance, outbox_directory="/nowhere") as bare:
        steady.emit_stored(1)
        daemon.popen.send_signal(signal.SIGSTOP)
        burst = 20 * depth + 3000
        assert steady.emit(burst) == burst
        daemon.popen.send_signal(signal.SIGCONT)
        until(lambda: instance.status()["stored"] == burst + 1, "all of it is stored")
        daemon.popen.send_signal(signal.SIGSTOP)
        taken = bare.emit(burst)
        daemon.popen.send_signal(signal.SIGCONT)
        assert taken == depth, "a client without an outbox is told what the kernel refused"
        assert bare.stats["refused_by_cause"] == {"undelivered": burst - depth}
        until(lambda: instance.status()["stored"] == burst + 1 + taken, "what the kernel took")
        bare.close()
        refused = burst - taken
        until(lambda: instance.status()["refused_by_clients"] == refused, "its farewell")
        state, accepted = instance.settle(), burst + 1 + taken
        tally.account(
            state,
            instance.events(),
            attempted=accepted + refused,
            accepted=accepted,
            refused=refused,
        )
        assert (state["stored"], state["lost"]) == (accepted, 0)
        check_streams(instance.events())
        check_whole(instance)


# -- memory for outboxes -------------------------------------------------------------------------


@contextlib.contextmanager
def outboxes_in(instance: Instance, place: Path, kib: int) -> Iterator[Path]:
    """The instance's outboxes in a small memory of their own."""
    with small_disk(place, kib):
        instance.configure(outbox_directory=str(place / "o"))
        yield place


@needs_root
def test_where_memory_for_outboxes_is_full_a_client_says_so_and_lives(
    instance: Instance, directory: Path, tally: Tally
) -> None:
    """The kernel refuses it the room when it asks (ENOSPC), not by a signal when it writes."""
    with outboxes_in(instance, directory / "memory", kib=128) as memory:
        instance.start()
        with (
            Steady(instance) as first,
            Steady(instance) as second,  # memory for a second one of the smallest is not there
        ):
            first.emit_stored(10)
            for _ in range(10):
                assert second.emit(1) == 1
                until(
                    lambda: instance.status()["stored"] == first.accepted + second.accepted,
                    "it is stored, by its datagram",
                )
            assert "No space left on device" in second.stats["outbox"]["reason"]
            assert second.flush(0.1) is False
            assert instance.status()["outboxes"] == 1
            # A daemon that comes to a full memory has to empty it.
            instance.kill()
            filler = fill(memory)
            first.emit(10)
            instance.start()
            first.emit_stored(10)
            filler.unlink()
            first.close()
            second.close()
            state = instance.settle()
            tally.account(state, instance.events(), attempted=40, accepted=40, kills=1)
            assert (state["stored"], state["lost"], state["quarantined"]) == (40, 0, 0)
            check_whole(instance)


@needs_root
def test_a_first_start_in_a_full_memory_names_the_file_it_cannot_write(
    instance: Instance, directory: Path
) -> None:
    with outboxes_in(instance, directory / "memory", kib=256) as memory:
        filler = fill(memory)
        line = one_line(instance.cli("run", code=73))
        assert f"{memory}/o/token: cannot be written: No space left on device" in line
        assert [path.name for path in (memory / "o").iterdir()] == []
        filler.unlink()
        instance.start()
        assert instance.stop() == 0


# -- owners --------------------------------------------------------------------------------------


@needs_users
def test_a_directory_of_outboxes_of_another_owner_is_not_the_daemons(
    instance: Instance, tally: Tally
) -> None:
    outboxes = instance.config.outbox_directory
    os.chown(outboxes, 65534, 65534)
    with Steady(instance) as steady:
        assert steady.emit(1) == 0
        assert "belongs to uid 65534, logd runs as 0" in steady.stats["outbox"]["reason"]
        assert steady.stats["refused_by_cause"] == {"undelivered": 1}
    assert instance.start().says(f"{outboxes} belongs to uid 65534")
    other = instance.config.outbox_directory
    try:
        assert other != outboxes
        with Steady(instance) as steady:
            steady.emit(100)
            steady.account(tally)
        assert [path.name for path in outboxes.iterdir()] == ["token"]
    finally:
        instance.kill()
        shutil.rmtree(other)


# -- mount namespaces ----------------------------------------------------------------------------


def without_dev_shm(dev: Path) -> str:
    """A /dev that has what Python needs, made in `dev`."""
    return (
        f"mkdir {dev}; mount -t tmpfs tmpfs {dev}; for f in null zero urandom random; do "
        f": > {dev}/$f; mount --bind /dev/$f {dev}/$f; done; mount --rbind {dev} /dev"
    )


@needs_root
@unshare_works
@pytest.mark.parametrize("there", ["nothing", "a disk"])
def test_without_dev_shm_the_daemon_says_what_to_set_and_a_client_goes_on(
    instance: Instance, directory: Path, tally: Tally, there: str
) -> None:
    disk = directory / "disk"
    disk.mkdir()
    if there == "a disk" and filesystem_type(disk) in ("tmpfs", "ramfs"):
        pytest.skip(f"{disk} lies in memory, too")
    script = without_dev_shm(disk / "$$") if there == "nothing" else f"mount --bind {disk} /dev/shm"
    own_mounts = in_own_mounts(script)
    config = str(instance.config.path)
    shutil.rmtree(instance.config.outbox_directory)
    daemon = Process("-m", "logd", "run", "--config", config, prefix=own_mounts)
    try:
        until(lambda: daemon.popen.poll() is not None, "it ends")
        assert daemon.end() == 73
        line = one_line("\n".join(daemon.lines))
        assert "Set outbox_directory to a path on a tmpfs" in line
        assert ("/dev/shm does not exist" if there == "nothing" else "/dev/shm is on ") in line
    finally:
        daemon.close()
    assert "outbox_directory" in instance.status()["trouble"]["what"]
    instance.start()  # where there is one, for a client where there is none
    with Steady(instance, prefix=own_mounts) as steady:
        for n in range(20):
            assert steady.emit(1) == 1
            until(lambda n=n: instance.status()["stored"] == n + 1, "stored")  # type: ignore[misc] # a lambda's default
        assert "is not there" in steady.stats["outbox"]["reason"]
        steady.account(tally)


@needs_root
@unshare_works
def test_a_container_with_its_own_dev_shm_knows_it_has_no_outbox_and_the_ledger_counts(
    instance: Instance, tally: Tally
) -> None:
    instance.start()
    own_shm = in_own_mounts("mount -t tmpfs tmpfs /dev/shm")
    with Steady(instance, prefix=own_shm) as steady:
        assert steady.emit(5) == 5
        assert "does this process have its own /dev/shm?" in steady.stats["outbox"]["reason"]
        until(lambda: instance.status()["stored"] == 5, "stored, by datagrams")
        assert steady.flush(0.1) is False, "it cannot know"
        assert instance.daemon is not None
        instance.daemon.popen.send_signal(signal.SIGSTOP)
        assert steady.emit(7) == 7  # in the kernel's queue, which goes with the daemon
        instance.kill()
        assert steady.emit(1) == 0, "nobody takes it"
        instance.start()
        until(lambda: steady.emit(1) == 1, "it finds the new daemon")
        until(lambda: instance.status()["stored"] == 6, "stored")
        steady.close()
        state, events = instance.settle(), instance.events()
        refused = steady.stats["refused"]
        tally.account(state, events, attempted=13 + refused, accepted=13, refused=refused, kills=1)
        assert (state["stored"], state["lost"]) == (6, 7)
        assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5, 13]
        check_sums(state, attempted=13 + refused, accepted=13, refused=refused)
        check_whole(instance)
