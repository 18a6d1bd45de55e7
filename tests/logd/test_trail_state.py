"""The report `trail_state`: what an auditor needs to know about the trail, without a person."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from logd.audit import anchor_file
from logd.reports.context import context_for
from logd.reports.parameters import Parameters
from logd.reports.registry import REPORTS
from logd.storage.mentions import DEFAULT_KEYS
from logd.storage.tree_head import Head
from logd_client import Client
from logd_wire.query import QueryClient, Row
from tests.support.instance import Instance, check_sums, until

HOUR_NS = 3600 * 10**9


def ask(instance: Instance, report: str) -> list[Row]:
    return QueryClient(str(instance.config.query_socket), 10.0).ask(report).rows


def read(instance: Instance) -> Row:
    """The state as the report process answers it, which an instance without a daemon has too."""
    with instance.database(read_only=True) as connection:
        context = context_for(instance.config, DEFAULT_KEYS, peer_uid=0)
        (row,) = REPORTS["trail_state"].run(connection, Parameters({}, context)).rows
    return row


def test_the_state_of_a_running_instance_is_reported_without_a_reading_or_a_name(
    instance: Instance,
) -> None:
    instance.configure(**{"retention.page_view": "90d"}, anchor_interval_s=1)
    began_ns = time.time_ns()
    instance.start()
    with contextlib.closing(Client(instance.socket)) as client:
        for user in ("noor-4711", "emil-4712"):
            assert client.emit("essay_read", user=user, props={"text": user})
        assert client.flush(20)
    instance.cli("backup")
    instance.cli("forget", "noor-4711", "--yes")
    instance.cli("prune", "--yes")
    until(lambda: (ask(instance, "trail_state")[0]["anchored_ns"] or 0) > began_ns, "an anchor")
    (state,) = ask(instance, "trail_state")
    assert state["running"] is True and state["trouble"] is None and state["pending"] == 0
    for time_of in ("started_ns", "stats_ns", "anchored_ns", "newest_backup_ns"):
        assert began_ns <= state[time_of] <= state["at_ns"], time_of
    assert state["heads_signed"] is True
    assert state["backups"] == 1 and state["exports"] == 0
    for task in ("backup", "prune", "erasure"):
        run = state[task]
        assert run["ok_ns"] == run["at_ns"] >= began_ns and run["problem"] is None, task
    periods = state["retention"]
    assert periods["page_view"] == periods["request_refused"] == 90 * 24 * HOUR_NS
    assert "essay_read" not in periods
    assert state["anchor_interval_s"] == 1 and state["anchor_file"] is None
    removals = ask(instance, "removals")
    assert [row["kind"] for row in removals] == ["prune", "forget"]
    assert removals[1]["outcome"]["events"] == 1 and removals[1]["finished_ns"] >= began_ns
    assert "4711" not in repr(state) + repr(removals) and "4712" not in repr(state)
    assert not [event for event in instance.events() if event["type"] == "report_read"]
    check_sums(instance.settle(), attempted=2, accepted=2)
    instance.stop()
    after = read(instance)
    assert after["running"] is False and after["anchored_ns"] is not None


def test_a_failed_backup_and_a_daemon_that_cannot_store_are_reported(instance: Instance) -> None:
    instance.start()
    instance.stop()
    (instance.directory / "file").write_text("")
    instance.cli("backup", str(instance.directory / "file" / "x"), code=73)
    state = read(instance)
    assert state["backup"]["problem"] and state["backup"]["ok_ns"] is None
    assert state["prune"] == {"at_ns": None, "ok_ns": None, "problem": None}
    assert state["newest_backup_ns"] is None


HEAD = Head(3, 30, bytes(32))


def last_anchor(path: Path, instance: Instance) -> Any:
    instance.configure(anchor_file=str(path))
    row = read(instance)
    assert row["anchor_file"] == str(path)
    return row["anchor_file_ns"]


def test_the_last_complete_anchor_of_the_file_is_found_whatever_follows_it(
    instance: Instance, directory: Path
) -> None:
    instance.start()
    instance.stop()
    path = directory / "anchors"
    assert last_anchor(path, instance) is None, "no file"
    os.mkfifo(path)
    assert last_anchor(path, instance) is None, "a pipe without a writer"
    path.unlink()
    path.write_bytes(b"\xff\n" * 40_000)
    assert last_anchor(path, instance) is None
    anchor_file.append(path, HEAD, 5 * HOUR_NS, "0123456789abcdef", bytes(68))
    assert last_anchor(path, instance) == 5 * HOUR_NS
    with path.open("a") as file:
        file.write("not a time anchor batch=1\n1970-01-01T09:00:00Z anchor batch=4 eve")
    assert last_anchor(path, instance) == 5 * HOUR_NS, "the last line is not complete"
