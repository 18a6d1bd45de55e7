"""`logd prune` and `logd forget` beside a working daemon, without one, and when it is killed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner

from logd.batch import Batch, Producer
from logd.cli import main
from logd.errors import StorageBusy
from logd.maintenance import job_client
from logd.storage import erasure_list, job_table, keyfile, opening
from logd.storage.store import Store
from logd_wire.wire import Event, producer_seed
from tests.support import pages
from tests.support.instance import Instance, Process, check_sums, emitters, until

DAY_NS = 86_400 * 10**9
NAME, VALUE = "anna-example-4711", "value-of-anna-0815"
TYPES = ("page_view", "page_view", "page_view", "login", "task_completed")


def fill(instance: Instance, events: int, per_batch: int = 500) -> dict[str, int]:
    """A hundred days of events, each stored as it was made, in a database without a daemon; how
    many of each kind.
    """
    store = instance.open_store()
    producer = Producer(uid=4000, id=9, seed=producer_seed(9), ended=True)
    now_ns = time.time_ns()
    counts = dict.fromkeys(("old views", "anna", "mentions"), 0)
    per_batch = max(1, min(per_batch, events // 20))  # the last is of this week
    for first in range(0, events, per_batch):
        batch = Batch(per_batch, 10**9)
        age_days = 100 - 100 * min(events, first + per_batch) // events
        made_ns = now_ns - age_days * DAY_NS - DAY_NS // 2
        for number in range(first, min(events, first + per_batch)):
            user = NAME if number % 10 == 3 else f"user-{number % 97}"
            props: dict[str, Any] = {"task": number % 7, "number": number}
            if user == NAME:
                props["note"] = f"{VALUE}-{number}"
            elif number % 50 == 7:
                props["params"] = {"user": NAME}
            kind = TYPES[number % len(TYPES)]
            counts["old views"] += kind == "page_view" and age_days >= 50
            counts["anna"] += user == NAME
            counts["mentions"] += "params" in props
            producer.taken += 1
            event = Event(kind, made_ns, user, msgpack.packb(props))
            batch.add(producer, producer.taken, event, 1)
        store.commit(batch, made_ns)
        batch.mark_committed()
    store.close()
    return counts


def found(instance: Instance) -> list[str]:
    key = keyfile.read(instance.config.key_file)
    return pages.found(instance.config.database, key, [NAME.encode(), VALUE.encode()])


@contextmanager
def command(instance: Instance, *arguments: str) -> Iterator[Process]:
    """One that runs beside the test."""
    process = Process("-m", "logd", *arguments, "--config", str(instance.config.path))
    try:
        yield process
    finally:
        process.close()


def outcome(process: Process) -> dict[str, Any]:
    assert process.popen.wait(60) == 0, process.lines
    assert process.popen.stdout is not None
    said: dict[str, Any] = json.loads(process.popen.stdout.read())
    return said


def job_position(instance: Instance) -> int:
    """How far the open job is; 0 when there is none."""
    connection = opening.open_for_reading(instance.config)
    try:
        job = job_table.next_job(connection)
        return 0 if job is None else job.done
    finally:
        connection.close()


def wait_past(instance: Instance, before: int, process: Process) -> int:
    """Until the job is further than that, or its command has ended; how far it is then."""
    until(
        lambda: job_position(instance) > before or process.popen.poll() is not None,
        "the job goes on",
    )
    return job_position(instance)


@pytest.fixture
def served(instance: Instance) -> Iterator[Instance]:
    """An instance with retention that closes clean."""
    instance.configure(**{"retention.page_view": "50d"})
    yield instance
    status = instance.settle()
    instance.stop()
    instance.cli("verify")
    assert status["lost"] == 0


@pytest.mark.parametrize("work", ["prune", "forget"])
def test_under_load_sums_are_right_and_the_chain_verifies(served: Instance, work: str) -> None:
    events = 6000
    counts = fill(served, events)
    served.start()
    arguments = ("prune",) if work == "prune" else ("forget", NAME, "--yes")
    with (
        emitters(served, count=2, events=4000) as running,
        command(served, *arguments, "--json") as process,
    ):
        said = outcome(process)
        served.cli("verify")  # in the middle of the load
        for emitter in running:
            emitter.finish()
    refused = sum(emitter.refused for emitter in running)
    status = served.settle()
    check_sums(
        status,
        attempted=events + 8000 + refused,
        accepted=events + 8000,
        refused=refused,
    )
    if work == "prune":
        assert said["removed"] == said["by_type"]["page_view"] == counts["old views"]
        assert (status["pruned"], status["erased"]) == (counts["old views"], 0)
    else:
        assert (said["events"], said["redacted"]) == (counts["anna"], counts["mentions"])
        assert (status["pruned"], status["erased"]) == (0, counts["anna"])
        assert found(served) == []
    left = served.events()
    assert len(left) == status["stored"] - status["pruned"] - status["erased"]


@pytest.mark.parametrize("work", ["prune", "forget"])
def test_a_daemon_killed_in_the_middle_goes_on_at_its_next_start(
    served: Instance, work: str
) -> None:
    events = 12_000
    counts = fill(served, events)
    served.start()
    arguments = ("prune",) if work == "prune" else ("forget", NAME, "--yes")
    kills, before = 0, 0
    with (
        emitters(served, count=1, events=3000) as (emitter,),
        command(served, *arguments, "--json") as process,
    ):
        while kills < 3 and process.popen.poll() is None:
            before = wait_past(served, before, process)
            served.kill()
            kills += 1
            served.start()
        said = outcome(process)
        emitter.finish()
    status = served.settle()
    check_sums(
        status,
        attempted=events + 3000 + emitter.refused,
        accepted=events + 3000,
        refused=emitter.refused,
    )
    assert kills >= 2
    if work == "prune":
        assert status["pruned"] == counts["old views"]
    else:
        assert (said["events"], status["erased"]) == (counts["anna"], counts["anna"])
        assert said["redacted"] == counts["mentions"]
        assert found(served) == []


def test_without_a_daemon_the_command_does_it_and_the_daemon_takes_up_where_it_left(
    served: Instance,
) -> None:
    counts = fill(served, 2000)
    assert found(served)
    dry = json.loads(served.cli("forget", NAME, "--dry-run", "--json"))
    assert (dry["events"], dry["redacted"]) == (counts["anna"], counts["mentions"])
    assert served.status()["erased"] == 0
    assert f"erased: {counts['anna']:,} events" in served.cli("forget", NAME, "--yes")
    assert found(served) == []
    dry = json.loads(served.cli("prune", "--dry-run", "--json"))
    said = json.loads(served.cli("prune", "--json"))
    assert 0 < said["removed"] == dry["removed"]
    assert "removed 0 events" in served.cli("prune")
    served.start()
    status = served.settle()
    check_sums(status, attempted=2000, accepted=2000)


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


def test_an_older_copy_in_the_databases_place_is_brought_up_to_the_list(served: Instance) -> None:
    counts = fill(served, 500)
    older = served.config.database.read_bytes()
    served.cli("forget", NAME, "--yes")
    assert erasure_list.file_beside(served.config.database).stat().st_mode & 0o777 == 0o600
    served.config.database.write_bytes(older)
    served.start()
    until(lambda: served.status()["erased"] == counts["anna"], "the person is forgotten again")
    until(lambda: job_position(served) == 0, "the job is done")
    assert found(served) == []
    check_sums(served.settle(), attempted=500, accepted=500)


def test_a_command_can_have_an_event_of_logds_own_written(served: Instance) -> None:
    fill(served, 10)
    for place in ("without a daemon", "by the daemon"):
        if served.daemon is None and place == "by the daemon":
            served.start()
        record = {"type": "trail_exported", "props": {"place": place}}
        job_client.run_job(served.config, job_table.RECORD, record)
    own = [event for event in served.events() if event["type"] == "trail_exported"]
    assert [event["props"]["place"] for event in own] == ["without a daemon", "by the daemon"]
    assert served.status()["own"] == 2


def test_forget_asks_for_confirmation_or_takes_yes(
    served: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = fill(served, 100)
    assert "use --yes" in served.cli("forget", NAME, code=2)
    assert "USER" in served.cli("forget", "x" * 256, "--yes", code=2)
    # At a terminal it asks, with what would go.
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    command = ["forget", NAME, "--config", str(served.config.path)]
    question = (
        f"Permanently erase '{NAME}': {counts['anna']} events, {counts['mentions']} mentions?"
    )
    assert counts["anna"] > 5 and counts["mentions"] > 0
    for answer in ("n\n", "\n", ""):
        done = CliRunner().invoke(main, command, input=answer)
        assert (done.exit_code, done.stdout) == (130, "")
        assert question in done.stderr and "not confirmed" in done.stderr
        assert served.status()["erased"] == 0
    assert any(event["user"] == NAME for event in served.events())
    done = CliRunner().invoke(main, command, input="y\n")
    assert done.exit_code == 0, done.output
    assert question in done.stderr
    assert served.status()["erased"] == counts["anna"]
    assert not any(event["user"] == NAME for event in served.events())
    served.start()


def test_forget_names_the_copies_that_it_cannot_reach_until_they_expire(served: Instance) -> None:
    fill(served, 10)
    store = served.open_store()
    store.connection.execute(
        "CREATE TABLE IF NOT EXISTS copy (id INTEGER PRIMARY KEY, kind TEXT, made_ns INTEGER,"
        " expires_ns INTEGER, place TEXT)"
    )
    now_ns = time.time_ns()
    for kind, expires_ns in (("backup", now_ns + DAY_NS), ("export", None), ("backup", now_ns - 1)):
        store.connection.execute(
            "INSERT INTO copy (kind, made_ns, expires_ns, place) VALUES (?, 1, ?, ?)",
            (kind, expires_ns, f"/there/{kind}-{expires_ns}"),
        )
    store.close()
    said = served.cli("forget", NAME, "--yes")
    assert f"/there/backup-{now_ns + DAY_NS}" in said
    assert "/there/export-None, made 1970-01-01 00:00:00.000Z, never expires" in said
    assert f"{now_ns - 1}" not in said
    assert "the site's own database" in said
    served.start()


def test_without_retention_everything_is_kept_and_prune_reports_it(instance: Instance) -> None:
    fill(instance, 10)
    assert "every event is kept for ever" in instance.cli("prune")


def test_with_no_database_there_is_nothing_to_do_and_none_is_made(instance: Instance) -> None:
    instance.configure(**{"retention.page_view": "50d"})
    for arguments in (("prune",), ("prune", "--dry-run"), ("forget", "7", "--yes")):
        assert "no database here yet" in instance.cli(*arguments, code=73)
    assert not instance.config.database.exists()


def test_a_forget_without_space_for_the_vacuum_waits_and_reports_it(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(instance, 100)
    monkeypatch.setattr("logd.maintenance.worker.RETRY_S", 0.01)
    real, tries = Store.vacuum, []

    def vacuum(self: Store, meanwhile: Any) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise StorageBusy("too little room")
        return real(self, meanwhile)

    monkeypatch.setattr(Store, "vacuum", vacuum)
    seen = []
    job_client.run_job(
        instance.config, job_table.FORGET, {"users": [NAME]}, lambda job: seen.append(job.trouble)
    )
    assert "too little room" in seen
    assert seen[-1] is None
    assert found(instance) == []


@pytest.mark.parametrize(
    ("arguments", "at"),
    [
        (("forget", NAME, "--yes"), "logd.storage.mentions.PersonKeys.may_name"),
        (("forget", NAME, "--yes"), "logd.maintenance.event_removal.Steps.remove"),
        (("prune",), "logd.maintenance.event_removal.Steps.remove"),
    ],
)
def test_ctrl_c_without_a_daemon_ends_it_as_that_and_it_can_be_done_again(
    instance: Instance,
    arguments: tuple[str, ...],
    at: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also in the middle of a statement, with which the database cannot be closed."""
    instance.configure(**{"retention.page_view": "50d"})
    fill(instance, 200)
    calls = 0

    def interrupt(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(at, interrupt)
        out = instance.cli(*arguments, code=130)
    assert calls == 1
    assert out.splitlines()[-1] == "logd: interrupted"
    assert "locked" not in out
    assert "change of its key" not in caplog.text and "change of the key" not in caplog.text
    done = CliRunner().invoke(main, [*arguments, "--config", str(instance.config.path)])
    assert (done.exit_code, done.stderr) == (0, "")
    if arguments[0] == "forget":
        assert found(instance) == []
    instance.cli("verify")


def test_the_status_shows_the_last_forget(instance: Instance) -> None:
    fill(instance, 20)
    before_ns = time.time_ns()

    def forget() -> dict[str, Any]:
        (run,) = (run for run in instance.status()["maintenance"] if run["task"] == "forget")
        return dict(run)

    assert forget() == {"task": "forget", "at_ns": None, "ok_ns": None, "problem": None}
    instance.cli("forget", NAME, "--yes")
    run = forget()
    assert run["at_ns"] == run["ok_ns"] and before_ns < run["ok_ns"] < time.time_ns()
    assert "forget       last good " in instance.cli("status")
