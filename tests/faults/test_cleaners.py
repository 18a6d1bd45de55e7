"""What a running daemon and its clients have set up is removed under them, while events come in."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logd.status.checks import check
from logd.status.checks.findings import FAIL
from logd.storage.database import shm_path, wal_path
from logd_wire.query import QueryClient
from logd_wire.rendezvous import rendezvous_path
from tests.faults.steady import Steady, check_whole
from tests.support.instance import Instance, check_streams, until
from tests.support.tally import Tally

EMITTERS = 4
BACK_S = 5.0


@contextlib.contextmanager
def emitting(instance: Instance, pause_s: float) -> Iterator[list[Steady]]:
    """Processes that emit again and again, each asked by a thread of its own, until the end."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Steady(instance)) for _ in range(EMITTERS)]

        def work(client: Steady) -> None:
            while not over.wait(pause_s):
                client.emit(5)

        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            yield clients
        finally:
            over.set()
            for thread in threads:
                thread.join()


ONE_RING = 250 * 1024  # a client's room that is never followed by a larger ring


def removals(instance: Instance) -> dict[str, Callable[[], None]]:
    config = instance.config
    return {
        "token": (config.outbox_directory / "token").unlink,
        "rendezvous": Path(rendezvous_path(instance.socket)).unlink,
        "socket": config.socket.unlink,
        "query socket": config.query_socket.unlink,
        "lock file": config.lock_file.unlink,
        "outboxes": lambda: shutil.rmtree(config.outbox_directory),
    }


def problems(instance: Instance) -> dict[str, str]:
    """What `logd status` shows as missing."""
    files = instance.status()["runtime_files"]
    return {file["name"]: file["problem"] for file in files if file["problem"]}


def failures(instance: Instance) -> str:
    """What `logd check` fails for."""
    findings = check.check(instance.config)
    return "\n".join(finding.says for finding in findings if finding.verdict == FAIL)


@pytest.mark.parametrize(
    "pause_s", [0.05, pytest.param(0.0, marks=pytest.mark.long(minutes=2))], ids=["paced", "flat"]
)
def test_what_is_removed_under_emitting_processes_is_back_within_seconds_and_the_sums_hold(
    instance: Instance, tally: Tally, pause_s: float
) -> None:
    daemon = instance.start()
    with emitting(instance, pause_s) as clients:
        for name, remove in removals(instance).items():
            until(lambda: all(client.accepted for client in clients), "each has emitted")
            before = {id(client): client.accepted for client in clients}
            daemon.popen.send_signal(signal.SIGSTOP)
            remove()
            if name != "lock file":  # without which nobody can see that a daemon runs
                assert name in problems(instance)
                assert name in failures(instance)
            daemon.popen.send_signal(signal.SIGCONT)
            until(lambda n=name: daemon.says(f"{n}: "), f"{name}: in the log", BACK_S)  # type: ignore[misc] # a lambda's default
            until(lambda: problems(instance) == {}, f"{name}: put back", BACK_S)
            assert instance.status()["running_pid"] == daemon.popen.pid
            until(
                lambda: all(client.stats["outbox"]["reason"] is None for client in clients),
                f"{name}: all have an outbox", BACK_S,
            )  # fmt: skip
            until(
                lambda b=before: all(client.accepted > b[id(client)] for client in clients),  # type: ignore[misc] # a lambda's default
                f"{name}: each goes on",
            )
            assert failures(instance) == ""
        restored = {file["name"] for file in instance.status()["runtime_files"] if file["restored"]}
        assert restored == removals(instance).keys()
        assert "put back" in instance.cli("status")
        assert QueryClient(str(instance.config.query_socket), timeout_s=20).ask("summary").rows
    with Steady(instance) as late:
        late.emit_stored(3)
        assert late.stats["outbox"]["reason"] is None
    attempted = sum(client.stats["attempted"] for client in (*clients, late))
    accepted = sum(client.accepted for client in (*clients, late))
    state, events = instance.settle(), instance.events()
    tally.account(
        state, events, attempted=attempted, accepted=accepted, refused=attempted - accepted
    )
    assert state["unknown_extent"] == 0, "every event that is missing is known by number"
    check_whole(instance)
    if not state["lost"]:
        check_streams(events)


@pytest.fixture
def aside(instance: Instance) -> Iterator[Path]:
    """Where a test moves the outbox directory; removed at the end."""
    directory = instance.config.outbox_directory
    path = directory.with_name(f"{directory.name}-aside")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_directory_renamed_under_a_process_is_followed_and_its_outbox_comes_with_it(
    instance: Instance, aside: Path, tally: Tally
) -> None:
    instance.start()
    directory = instance.config.outbox_directory
    with Steady(instance) as steady:
        steady.emit_stored(10)
        producer = steady.stats["producer"]
        directory.rename(aside)
        steady.emit_stored(10)
        until(lambda: len(list(directory.glob("*.outbox"))) == 1, "it is moved", BACK_S)
        instance.kill()  # the next one finds it by its name
        assert steady.emit(10) == 10
        instance.start()
        assert steady.flush(30)
        assert steady.stats["producer"] == producer
    steady.account(tally, kills=1)


def test_a_directory_renamed_while_no_daemon_runs_is_left_and_what_it_holds_is_in_the_ledger(
    instance: Instance, aside: Path, tally: Tally
) -> None:
    """The next daemon makes a directory of its own, and never finds the one that was renamed."""
    instance.start()
    directory = instance.config.outbox_directory
    with Steady(instance, outbox_bytes=ONE_RING) as steady:
        steady.emit_stored(10)
        producer = steady.stats["producer"]
        instance.kill()
        directory.rename(aside)
        assert steady.emit(10) == 10
        instance.start()
        until(lambda: steady.emit(1) and steady.stats["producer"] != producer, "it follows")
        assert steady.emit(5) == 5
        until(lambda: steady.emit(1) and instance.status()["lost"] >= 10, "its farewell")
        assert not steady.flush(0.1), "what is lost is on no disk"
    state, events = instance.settle(), instance.events()
    tally.account(state, events, attempted=steady.accepted, accepted=steady.accepted)
    assert state["unknown_extent"] == 0


@pytest.mark.parametrize("what", ["database", "wal"])
def test_what_would_be_stored_in_a_file_without_a_name_is_not_confirmed_and_nothing_is_lost(
    instance: Instance, tally: Tally, what: str
) -> None:
    daemon = instance.start()
    database = instance.config.database
    with Steady(instance) as steady:
        steady.emit_stored(10)
        daemon.popen.send_signal(signal.SIGSTOP)
        if what == "database":
            for file in (database, wal_path(database), shm_path(database)):
                file.unlink()
        else:
            wal_path(database).unlink()
        assert steady.emit(5) == 5
        daemon.popen.send_signal(signal.SIGCONT)
        code = daemon.popen.wait(30)
        assert code == (65 if what == "database" else 74)
        assert steady.confirmed == 10
        trouble = instance.cli("status", code=65) if what == "database" else ""
        assert "Traceback" not in trouble
        until(lambda: daemon.says("under the running daemon"), "in the log")
        daemon.close()
        if what == "database":
            (saved,) = database.parent.glob("activity.db.saved-*")
            os.rename(saved, database)
        instance.start()
        assert steady.flush(30)
    steady.account(tally)
