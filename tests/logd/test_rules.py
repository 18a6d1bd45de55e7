"""The delivery rules, one by one, on real processes. Each was seen failing with its rule broken.

Rule 1 (stores and their order) is in tests/shared/test_outbox.py, rule 12 (what is not protected)
in tests/project/test_trust_page.py; the others are here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logd.ingest.outbox_directory import OutboxDirectory
from logd_client import Client
from logd_wire.outbox.layout import HEADER_BYTES, parse_header
from logd_wire.rendezvous import RENDEZVOUS_SUFFIX, read_rendezvous
from tests.support.instance import ROOT, Instance, check_streams, check_sums, emitters, until
from tests.support.namespaces import needs_users


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a piece of Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def check_all_stored(instance: Instance, stats: dict[str, Any]) -> None:
    """All that a client accepted is stored, in order and once."""
    status = instance.settle()
    check_sums(status, **{name: stats[name] for name in ("attempted", "accepted", "refused")})
    assert (status["stored"], status["lost"]) == (stats["accepted"], 0)
    check_streams(instance.events())


# -- rule 2: emit is not re-entered ------------------------------------------------------------


def test_rule_2_a_signal_handler_that_emits_in_an_emit_is_refused_and_leaves_no_hole(
    instance: Instance,
) -> None:
    instance.start()
    done = python(
        "import json, signal, sys\nfrom logd_client import Client\nc = Client(sys.argv[1])\n"
        "def handler(*_): c.emit('login', user='handler')\n"
        "signal.signal(signal.SIGALRM, handler)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.00005)\n"
        "while c.stats()['refused_by_cause'].get('reentered', 0) < 20: \n"
        "    c.emit('page_view', user='loop')\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\nprint(json.dumps(c.stats()))\n",
        instance.socket,
    )
    stats = json.loads(done.stdout)
    assert stats["refused_by_cause"]["reentered"] >= 20
    check_all_stored(instance, stats)
    until(lambda: instance.status()["refused_by_clients"] == stats["refused"], "it was told")


def test_rule_2_a_signal_handler_that_raises_in_an_emit_leaves_no_hole(instance: Instance) -> None:
    instance.start()
    done = python(
        "import json, signal, sys\nfrom logd_client import Client\nc = Client(sys.argv[1])\n"
        "class Abort(BaseException): pass\n"
        "def handler(*_): raise Abort\n"
        "signal.signal(signal.SIGALRM, handler)\naborted = returned = 0\n"
        "while aborted < 300:\n"
        "    try:\n"
        "        signal.setitimer(signal.ITIMER_REAL, 0.00005)\n"
        "        while True: returned += c.emit('page_view', user='loop')\n"
        "    except Abort: aborted += 1\n"
        "print(json.dumps({**c.stats(), 'returned': returned}))\n",
        instance.socket,
    )
    stats = json.loads(done.stdout)
    assert stats["returned"] <= stats["accepted"] <= stats["returned"] + 300
    check_all_stored(instance, stats)


# -- rule 3: allocation, and reading without mapping ---------------------------------------------


def test_rule_3_without_space_for_an_outbox_the_client_reports_it_and_continues(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Client(instance.socket) as client:
        assert client.emit("page_view") is False
        stats = client.stats()
    assert "No space left on device" in stats["outbox"]["reason"]
    assert (stats["attempted"], stats["accepted"], stats["refused"]) == (1, 0, 1)
    assert "No space left on device" in caplog.text
    assert [p.name for p in instance.config.outbox_directory.iterdir()] == ["token"]


# -- rule 4: liveness, forks, order of removal ---------------------------------------------------


def test_rule_4_a_forked_child_is_another_producer_and_leaves_its_parent_alone(
    instance: Instance,
) -> None:
    """The child's exit runs the parent's atexit handlers and closes its descriptors."""
    instance.start()
    done = python(
        "import json, os, sys\nfrom logd_client import Client\nc = Client(sys.argv[1])\n"
        "for n in range(100): c.emit('page_view', user='parent')\n"
        "for child in range(5):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        if child % 2: c.emit('page_view', user='child')\n"
        "        sys.exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "    c.emit('page_view', user='parent')\n"
        "from logd_wire import liveness\n"
        "held = os.popen(f'{sys.executable} -c \"'\n"
        "    'import os, sys; from logd_wire import liveness;'\n"
        "    'print(liveness.lock_holder(os.open(sys.argv[1], os.O_RDWR)))\" '\n"
        "    + f\"{sys.argv[2]}/{os.getuid()}-{c.stats()['producer']}.outbox\").read()\n"
        "print(json.dumps([c.stats()['accepted'], int(held), os.getpid()]))\n",
        instance.socket,
        str(instance.config.outbox_directory),
    )
    accepted, holder, pid = json.loads(done.stdout)
    assert accepted == 105
    assert holder == pid, "the parent still holds its lock"
    status = instance.settle()
    check_sums(status, attempted=107, accepted=107)
    assert sorted(check_streams(instance.events()).values()) == [1, 1, 105]
    assert status["lost"] == 0


def test_rule_4_an_outbox_is_removed_only_after_its_rows_are_committed(instance: Instance) -> None:
    """While the database is locked nothing can be committed: the dead producer's file stays."""
    instance.start()
    instance.stop()
    python("from logd_client import Client; import sys; Client(sys.argv[1]).emit('page_view')",
           instance.socket)  # fmt: skip
    locker = subprocess.Popen(
        [sys.executable, "-c", _LOCK, str(instance.config.path)],
        cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert locker.stdout is not None
    try:
        assert instance.status()["outboxes"] == 1
        daemon = instance.start()
        locker.stdin.write("lock\n")  # type: ignore[union-attr] # it has a pipe
        locker.stdin.flush()  # type: ignore[union-attr] # it has a pipe
        assert locker.stdout.readline() == "locked\n"
        python("from logd_client import Client; import sys; Client(sys.argv[1]).emit('login')",
               instance.socket)  # fmt: skip
        until(lambda: daemon.says("locked by another program"), "it says what is the matter")
        assert instance.status()["outboxes"] == 1
        assert instance.status()["pending"] == 1
        (outbox,) = (p for p in instance.config.outbox_directory.iterdir() if p.name != "token")
        header = parse_header(outbox.read_bytes()[:HEADER_BYTES], outbox.stat().st_size)
        assert (header.written, header.confirmed_sequence) == (1, 0)
    finally:
        locker.communicate(timeout=30)
    status = instance.settle()
    check_sums(status, attempted=2, accepted=2)
    until(lambda: instance.status()["outboxes"] == 0, "both are removed")
    assert instance.stop() == 0


_LOCK = """
import sys
from logd.config import settings
from logd.storage import keyfile
from logd.storage.database import connect
c = settings.load(sys.argv[1])
connection = connect(c.database, keyfile.read(c.key_file))
sys.stdin.readline()
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


def test_rule_4_an_incomplete_outbox_is_not_read(instance: Instance) -> None:
    """Only the name it gets when it is complete counts."""
    unfinished = instance.config.outbox_directory / ".new-0-x.outbox"
    unfinished.touch()
    os.utime(unfinished, (time.time() - 3600,) * 2)  # whatever its clock says
    instance.start()
    assert unfinished.exists()
    assert instance.status()["quarantined"] == 0


# -- rule 5: the directory is the daemon's ------------------------------------------------------


def test_rule_5_a_directory_with_another_token_is_not_the_daemons(instance: Instance) -> None:
    """As in a container that has its own /dev/shm: the client sees that no daemon would read it."""
    (instance.config.outbox_directory / "token").write_text("0" * 32 + "\n")
    instance_running = instance.config.outbox_directory
    with Client(instance.socket) as client:
        client.emit("page_view")
        assert "token differs" in client.stats()["outbox"]["reason"]
    assert [p.name for p in instance_running.iterdir()] == ["token"]


def test_rule_5_a_missing_directory_of_this_boot_means_no_outbox(instance: Instance) -> None:
    shutil.rmtree(instance.config.outbox_directory)
    with Client(instance.socket) as client:
        client.emit("page_view")
        assert "own /dev/shm" in client.stats()["outbox"]["reason"]
    assert not instance.config.outbox_directory.exists()


def test_rule_5_after_a_reboot_the_owners_processes_make_the_directory_again(
    instance: Instance,
) -> None:
    """Memory is empty after a boot, and a worker may be up before the daemon."""
    shutil.rmtree(instance.config.outbox_directory)
    file = Path(instance.socket + RENDEZVOUS_SUFFIX)
    before = read_rendezvous(instance.socket)
    file.write_text(file.read_text().replace(before.boot_id, "an-earlier-boot"))
    done = python(
        "from logd_client import Client; import sys\nassert Client(sys.argv[1]).emit('page_view')",
        instance.socket,
    )
    assert done.returncode == 0, done.stderr
    assert instance.status()["pending"] == 1
    instance.start()
    check_sums(instance.settle(), attempted=1, accepted=1)
    assert len(instance.events()) == 1


@needs_users
def test_rule_5_a_directory_of_the_wrong_owner_is_refused_by_both_sides(
    instance: Instance,
) -> None:
    """One that was configured; where its name is our own to choose, another one is taken."""
    with tempfile.TemporaryDirectory(prefix="logd-test-", dir="/dev/shm") as memory:
        instance.configure(outbox_directory=memory)
        OutboxDirectory(Path(memory)).prepare(instance.socket)
        os.chown(memory, 65534, 65534)
        with Client(instance.socket) as client:
            client.emit("page_view")
            assert "belongs to uid 65534" in client.stats()["outbox"]["reason"]
        said = instance.cli("run", code=73)
        assert "belongs to uid 65534" in said


# -- rule 6: plain text stays in memory ----------------------------------------------------------


def test_rule_6_outboxes_on_a_disk_are_refused_at_start(instance: Instance) -> None:
    if subprocess.run(["stat", "-f", "-c", "%T", str(ROOT)], capture_output=True,
                      text=True, check=True).stdout.strip() in ("tmpfs", "ramfs"):  # fmt: skip
        pytest.skip("the checkout itself lies on a tmpfs: there is no disk to refuse")
    instance.configure(outbox_directory=str(ROOT / "var-of-a-test"))
    said = instance.cli("run", code=73)
    assert "must lie in memory" in said
    assert not (ROOT / "var-of-a-test").exists()


# -- rule 7 is in test_storage.py and test_store_failures.py --------------------------------------


# -- rule 8: one daemon an instance --------------------------------------------------------------


def test_rule_8_a_second_daemon_ends_before_it_touches_anything(instance: Instance) -> None:
    first = instance.start()
    said = instance.cli("run", code=75)
    assert f"pid {first.popen.pid}" in said
    with emitters(instance, count=1, events=10) as (emitter,):
        emitter.finish()
    status = instance.settle()
    check_sums(status, attempted=10 + emitter.refused, accepted=10, refused=emitter.refused)
    assert status["running_pid"] == first.popen.pid


def test_rule_8_only_sqlite_has_the_database_file_open(instance: Instance) -> None:
    """Closing any other descriptor of it would drop SQLite's locks."""
    daemon = instance.start()
    fds = Path(f"/proc/{daemon.popen.pid}/fd")
    targets = [os.readlink(fd) for fd in fds.iterdir()]
    assert targets.count(str(instance.config.database)) == 1


# -- rule 9: a database restored from an older backup --------------------------------------------


@contextlib.contextmanager
def holding(instance: Instance, events: int, outbox_bytes: int) -> Iterator[None]:
    """A live producer with that many events stored."""
    code = (
        "import sys, time\nfrom logd_client import Client\n"
        "c = Client(sys.argv[1], outbox_bytes=int(sys.argv[3]))\n"
        "for n in range(int(sys.argv[2])):\n"
        "    while not c.emit('page_view', props={'n': n}): time.sleep(0.001)\n"
        "assert c.flush(30)\nprint('flushed', flush=True)\nsys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, instance.socket, str(events), str(outbox_bytes)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"
        yield
    finally:
        process.communicate(timeout=30)


def restore(instance: Instance, backup: bytes) -> None:
    """Puts an older database in place of the instance's."""
    instance.stop()
    for suffix in ("-wal", "-shm"):
        Path(str(instance.config.database) + suffix).unlink(missing_ok=True)
    instance.config.database.write_bytes(backup)
    instance.start()


def test_rule_9_what_a_restored_database_lacks_is_read_from_the_ring_again(
    instance: Instance,
) -> None:
    instance.start()
    instance.stop()
    backup = instance.config.database.read_bytes()
    instance.start()
    with holding(instance, events=300, outbox_bytes=1024 * 1024):
        restore(instance, backup)
        status = instance.settle()
    check_sums(status, attempted=300, accepted=300)
    assert (status["stored"], status["lost"]) == (300, 0)
    check_streams(instance.events())
    instance.cli("verify")


def test_rule_9_what_is_nowhere_any_more_is_a_row_claimed(instance: Instance) -> None:
    """The ring has been overwritten since: its header's numbers show what is missing, and where.

    Nothing else does, where a file took the database's place without `logd restore`.
    """
    instance.start()
    instance.stop()
    backup = instance.config.database.read_bytes()
    instance.start()
    with holding(instance, events=3000, outbox_bytes=65536):
        restore(instance, backup)
        status = instance.settle()
    check_sums(status, attempted=3000, accepted=3000)
    assert (status["lost_claimed"] > 0, status["lost"]) == (True, 0)
    assert status["stored"] > 0
    assert [event["sequence"] for event in instance.events()] == list(
        range(status["lost_claimed"] + 1, 3001)
    )
    instance.cli("verify")


# -- rule 11: order is by sequence ---------------------------------------------------------------


def test_rule_11_order_follows_the_sequence_whatever_the_clock_does(instance: Instance) -> None:
    instance.start()
    done = python(
        "import sys\nfrom logd_client import Client\nc = Client(sys.argv[1])\n"
        "for ts in (5000, 1000, 9000, 2000): assert c.emit('page_view', ts_ns=ts * 10**9)\n"
        "assert c.flush(20)\n",
        instance.socket,
    )
    assert done.returncode == 0, done.stderr
    events = instance.events()
    assert [event["ts_ns"] // 10**9 for event in events] == [5000, 1000, 9000, 2000]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    now = time.time_ns()
    assert all(now - 60 * 10**9 < event["stored_ns"] <= now for event in events)
    check_sums(instance.status(), attempted=4, accepted=4)
