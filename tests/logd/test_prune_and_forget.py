"""`logd prune` and `logd forget` beside a working daemon, without one, and when it is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from logd.maintenance import job_client
from logd.storage import erasure_list, job_table, opening
from tests.logd.hundred_days import NAME, fill, found, served
from tests.support.instance import Instance, Process, check_sums, emitters, until

__all__ = ["served"]  # a fixture


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
